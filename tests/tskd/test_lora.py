"""LoRA through peft: exact to split, exact to merge, nothing but the adapters moves."""

import copy

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers.models.sam.modeling_sam import SamVisionEncoder

from tests.tskd.small_sam import VFMS, fresh, trained
from tskd.errors import TskdError
from tskd.lora import load_adapter, merged, prepare_fine_tuning, save_adapter, trainable_table
from tskd.networks.qkv import SplitQKV, fuse_qkv, split_qkv


def attention_with_qkv(encoder: nn.Module) -> nn.Module:
    return next(module for module in encoder.modules() if hasattr(module, "qkv"))


@pytest.mark.parametrize("heads", [None, 4])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_split_equals_fused_and_fuses_back_exactly(heads, bias):
    fused, tokens = nn.Linear(16, 48, bias=bias), torch.rand(2, 5, 7, 16)
    split = SplitQKV(fused, heads)
    torch.testing.assert_close(split(tokens), fused(tokens), atol=1e-5, rtol=0)
    back = split.fuse()
    assert back.state_dict().keys() == fused.state_dict().keys()
    assert all(torch.equal(value, fused.state_dict()[key]) for key, value in back.state_dict().items())


@pytest.mark.parametrize("vfm", VFMS)
@torch.no_grad()
def test_q_k_and_v_are_what_the_attention_takes_them_for(vfm):
    """Scaling one projection changes that third of the features, in the layout in which the encoder reads them."""
    attention = attention_with_qkv(split_qkv(fresh(vfm).image_encoder))
    heads = 2 if vfm == "sam_vit_b" else 4
    tokens = torch.rand(1, 5, attention.qkv.q.in_features)
    before = attention.qkv(tokens)
    attention.qkv.k.weight.zero_()
    attention.qkv.k.bias.zero_()
    after = attention.qkv(tokens)
    if vfm == "sam_vit_b":  # SamVisionAttention: reshape(batch, tokens, 3, heads, -1)
        parts = [value.reshape(1, 5, 3, heads, -1).unbind(2) for value in (before, after)]
    else:  # TinyViT: view(windows, tokens, heads, 3 * key_dim), chunk(3)
        parts = [value.view(1, 5, heads, -1).chunk(3, dim=-1) for value in (before, after)]
    same = [torch.equal(old, new) for old, new in zip(*parts, strict=True)]
    assert same == [True, False, True]
    assert not parts[1][1].any()


@pytest.mark.parametrize("vfm", VFMS)
@torch.no_grad()
def test_split_encoder_equals_the_encoder(vfm, x):
    network = fresh(vfm).eval()
    state, expected = copy.deepcopy(network.state_dict()), network(x)
    split_qkv(network.image_encoder)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)
    fuse_qkv(network.image_encoder)
    assert list(network.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("vfm", VFMS)
@torch.no_grad()
def test_starts_as_the_pretrained_network(vfm, x):
    expected = fresh(vfm).eval()(x)
    torch.testing.assert_close(prepare_fine_tuning(fresh(vfm)).eval()(x), expected, atol=1e-5, rtol=1e-5)


def test_merged_equals_the_adapted_network_in_the_stock_architecture(tuned, x):
    vfm, network = tuned
    stock = fresh(vfm)
    with torch.no_grad():
        adapted, start = network(x), stock.eval()(x)
    stock.load_state_dict(merged(network).state_dict())  # strict
    with torch.no_grad():
        torch.testing.assert_close(stock.eval()(x), adapted, atol=1e-5, rtol=1e-5)
        assert (adapted - start).abs().max() > 0.01  # it has learned something
    assert isinstance(network.image_encoder, PeftModel)  # merging works on a copy


def test_merged_encoder_loads_into_unmodified_transformers(x):
    network = trained(prepare_fine_tuning(fresh("sam_vit_b")), x, steps=1)
    encoder = merged(network).image_encoder
    stock = SamVisionEncoder(fresh("sam_vit_b").image_encoder.config)
    stock.load_state_dict(encoder.state_dict())
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.image_encoder(pixels).last_hidden_state
        torch.testing.assert_close(stock.eval()(pixels).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


def test_only_adapters_decoder_and_no_prompt_embedding_move(tuned):
    vfm, network = tuned
    start = prepare_fine_tuning(fresh(vfm)).state_dict()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, start[name])}
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    # the random halves of the adapters differ between two calls, so the frozen ones are what must be equal
    assert moved <= trainable
    encoder = {name for name in trainable if name.startswith("image_encoder.")}
    assert encoder
    assert all(".qkv.q.lora_" in name or ".qkv.v.lora_" in name for name in encoder)
    assert any(name.startswith("mask_decoder.") for name in moved)
    assert "no_prompt_embedding" in moved
    assert not any("iou_prediction_head" in name for name in trainable)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("vfm", VFMS)
def test_late_blocks_only(vfm, checkpointing, x):
    network = prepare_fine_tuning(fresh(vfm, gradient_checkpointing=checkpointing), blocks=1).train()
    adapters = [name for name, parameter in network.image_encoder.named_parameters() if parameter.requires_grad]
    last = "layers.2" if vfm == "sam_vit_b" else "layers.3.blocks.1"
    assert len(adapters) == 4  # A and B for q and v
    assert all(f".{last}.attn.qkv." in name for name in adapters)
    reached: dict[str, bool] = {}
    for name, module in network.image_encoder.named_modules():
        if isinstance(module, SplitQKV):
            module.register_forward_hook(
                lambda _module, inputs, _output, name=name: reached.update({name: inputs[0].requires_grad})
            )
    network(x).square().mean().backward()
    assert len(reached) > 2
    assert not any(reached.values())  # no attention has an input to send a gradient back to
    with_gradient = [name for name, p in network.image_encoder.named_parameters() if p.grad is not None]
    assert set(with_gradient) == set(adapters)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"mode": "decoder"}, {"mask_decoder", "no_prompt_embedding"}),
        ({"mode": "full"}, {"image_encoder", "mask_decoder", "no_prompt_embedding"}),
        ({"mode": "lora", "train_neck": True}, {"image_encoder", "mask_decoder", "no_prompt_embedding"}),
    ],
)
def test_modes(options, wanted, x):
    network = prepare_fine_tuning(fresh("sam_vit_b"), **options)
    before = copy.deepcopy(network.state_dict())
    trained(network, x, steps=1)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == wanted
    if options["mode"] == "full":
        assert "image_encoder.layers.0.attn.qkv.weight" in moved
    if "train_neck" in options:
        neck = {name for name in moved if ".neck." in name}
        assert len(neck) == len(fresh("sam_vit_b").image_encoder.neck.state_dict())
        assert all("lora_" in name or ".neck." in name for name in moved if name.startswith("image_encoder"))


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_rslora": True, "rank": 2},
        {"init": "pissa"},
        {"targets": ["q", "k", "v", "proj", "mlp"], "alpha": 8, "dropout": 0.5},
    ],
    ids=["dora", "rslora", "pissa", "all-targets"],
)
@pytest.mark.parametrize("vfm", VFMS)
def test_variants_start_equal_learn_and_merge(vfm, options, x, tmp_path):
    if vfm == "mobile_sam" and options.get("init") != "pissa" and "targets" not in options:
        options = {**options, "blocks": 2}
    network = prepare_fine_tuning(fresh(vfm), **options).eval()
    with torch.no_grad():
        start = fresh(vfm).eval()(x)
        torch.testing.assert_close(network(x), start, atol=1e-4, rtol=1e-4)
    trained(network, x, steps=2)
    with torch.no_grad():
        adapted = network(x)
        assert (adapted - start).abs().max() > 0.01
        stock = fresh(vfm)
        stock.load_state_dict(merged(network).state_dict())
        torch.testing.assert_close(stock.eval()(x), adapted, atol=1e-4, rtol=1e-4)
        save_adapter(network, tmp_path)
        images = torch.rand(1, 3, 64, 64)
        loaded = load_adapter(fresh(vfm).image_encoder, tmp_path).eval()(images)
        expected = network.image_encoder(images)
    if vfm == "sam_vit_b":
        loaded, expected = loaded.last_hidden_state, expected.last_hidden_state
    torch.testing.assert_close(loaded, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "lorra"}, "expected lora, decoder or full, found 'lorra'"),
        ({"targets": ["q", "w"]}, r"some of q, k, v, proj, mlp, found \['w'\]"),
        ({"targets": []}, "found none"),
        ({"targets": "query"}, r"found \['query'\]"),
        ({"rank": 2.0}, r"expected 1, 2, \.\.\., found 2\.0"),
        ({"dropout": "0.1"}, "from 0 to below 1, found '0.1'"),
        ({"dropout": 1.5}, "from 0 to below 1, found 1.5"),
        ({"mode": "decoder", "train_neck": True}, "train_neck: expected false with mode decoder"),
        ({"init": "gauss"}, "expected default or pissa, found 'gauss'"),
        ({"blocks": 9}, r"'all' or 1 to 3 \(the last n\), found 9"),
        ({"blocks": "last"}, "found 'last'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(TskdError, match=message):
        prepare_fine_tuning(fresh("sam_vit_b"), **options)


def test_table_counts_parameters(tuned):
    _, network = tuned
    total = trainable_table(network).splitlines()[-1].replace(",", "").split()
    parameters = list(network.parameters())
    assert int(total[1]) == sum(p.numel() for p in parameters if p.requires_grad)
    assert int(total[3]) == sum(p.numel() for p in parameters)


@pytest.mark.parametrize("mode", ["lora", "decoder", "full"])
def test_table_is_logged_at_the_start_by_part(mode, caplog):
    caplog.set_level("INFO")
    network = prepare_fine_tuning(fresh("mobile_sam"), mode=mode, train_neck=mode == "lora")
    rows = {row.split("  ")[1]: row.replace(",", "").split()[-4:] for row in caplog.text.splitlines() if " of " in row}
    trainable = {part: int(row[0]) for part, row in rows.items()}
    assert trainable["mask_decoder"] > 0
    assert trainable["no_prompt_embedding"] == 256
    assert (trainable["image_encoder"] > 0) == (mode == "full")
    assert (trainable["image_encoder neck"] > 0) == (mode != "decoder")
    assert trainable.get("image_encoder adapters", 0) == sum(
        p.numel() for name, p in network.named_parameters() if "lora_" in name
    )
    assert sum(trainable.values()) == 2 * trainable["total"]


def test_rank_0_points_to_the_decoder():
    with pytest.raises(TskdError, match=r"expected 1, 2, ..., found 0.*mode decoder"):
        prepare_fine_tuning(fresh("mobile_sam"), rank=0)
