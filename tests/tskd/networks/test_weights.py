"""Every layout of a checkpoint gives the same network, and every key is accounted for."""

import json
import re

import pytest
import torch
from transformers import SamConfig, SamModel

from tskd.errors import TskdError
from tskd.networks import build_sam, load_pretrained, read_checkpoint
from tskd.networks.conversion import to_network_layout

# From our names back to those of the published checkpoints, the inverse of tskd.networks.conversion
TO_ORIGINAL = [
    (r"^positional_embedding$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^no_prompt_embedding$", "prompt_encoder.no_mask_embed.weight"),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"^(mask_decoder\.transformer\..*)\.layer_norm", r"\1.norm"),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"\1.layers.1."),
    (r"(mlps\.\d+|iou_prediction_head)\.proj_in\.", r"\1.layers.0."),
    (r"(mlps\.\d+|iou_prediction_head)\.proj_out\.", r"\1.layers.2."),
]
VIT_TO_ORIGINAL = [
    (r"^image_encoder\.layers\.(\d+)\.layer_norm", r"image_encoder.blocks.\1.norm"),
    (r"^image_encoder\.layers\.", "image_encoder.blocks."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.neck\.conv1\.", ".neck.0."),
    (r"\.neck\.layer_norm1\.", ".neck.1."),
    (r"\.neck\.conv2\.", ".neck.2."),
    (r"\.neck\.layer_norm2\.", ".neck.3."),
]
UNUSED = {
    "prompt_encoder.point_embeddings.0.weight": (1, 256),
    "prompt_encoder.not_a_point_embed.weight": (1, 256),
    "prompt_encoder.mask_downscaling.0.weight": (4, 1, 2, 2),
}


def original(state: dict, vit: bool) -> dict:
    """A published checkpoint with these weights."""
    result = {key: torch.rand(shape) for key, shape in UNUSED.items()}
    for key, value in state.items():
        for pattern, replacement in TO_ORIGINAL + (VIT_TO_ORIGINAL if vit else []):
            key, count = re.subn(pattern, replacement, key)
            if count and not pattern.startswith("^image_encoder"):
                break
        result[key] = value
    return result


@pytest.fixture(scope="module")
def vit_state(tiny_sam):
    torch.manual_seed(1)
    return tiny_sam().state_dict()


def _equal(state: dict, other: dict) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def test_original_vit_layout_round_trip(vit_state, tmp_path, tiny_sam):
    checkpoint = original(vit_state, vit=True)
    assert "image_encoder.blocks.0.norm1.weight" in checkpoint
    assert "mask_decoder.output_hypernetworks_mlps.3.layers.2.bias" in checkpoint
    assert "mask_decoder.transformer.layers.1.norm4.bias" in checkpoint
    assert _equal(to_network_layout(checkpoint, vit=True), vit_state)
    torch.save(checkpoint, tmp_path / "sam.pth")
    assert _equal(load_pretrained(tiny_sam(), tmp_path / "sam.pth").state_dict(), vit_state)


def test_original_key_names_are_the_published_ones(shared):
    """What the inverse mapping of this test writes is what MobileSAM's checkpoint has."""
    published = read_checkpoint(shared / "weights" / "mobile_sam.pth")
    with torch.device("meta"):
        network = build_sam("mobile_sam", 4, 256)
    written = original(network.state_dict(), vit=False)
    ignored = ("prompt_encoder.point_embeddings.", "prompt_encoder.not_a_point", "prompt_encoder.mask_downscaling.")
    assert {k: v.shape for k, v in written.items() if not k.startswith(ignored)} == {
        k: v.shape for k, v in published.items() if not k.startswith(ignored)
    }


def test_lite_medsam_layout(tmp_path):
    state = build_sam("lite_medsam", 4, 64).state_dict()
    head = {"image_encoder.norm_head.weight": torch.rand(320), "image_encoder.head.weight": torch.rand(1000, 320)}
    torch.save({"model": original(state, vit=False) | head}, tmp_path / "lite.pth")
    assert _equal(load_pretrained(build_sam("lite_medsam", 4, 128), tmp_path / "lite.pth").state_dict(), state)


def test_transformers_folder_equals_original_file(stock, stock_folder, tmp_path, tiny_sam):
    from_folder = load_pretrained(tiny_sam(image_size=128), stock_folder)
    torch.save(original(from_folder.state_dict(), vit=True), tmp_path / "sam.pth")
    assert _equal(
        load_pretrained(tiny_sam(image_size=128), tmp_path / "sam.pth").state_dict(), from_folder.state_dict()
    )
    torch.save(stock.state_dict(), tmp_path / "pytorch_model.bin")  # as MedSAM is on the hub
    assert _equal(load_pretrained(tiny_sam(image_size=128), tmp_path).state_dict(), from_folder.state_dict())


def test_sharded_folder(stock, stock_folder, tmp_path):
    stock.save_pretrained(tmp_path, max_shard_size="8MB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    whole, parts = read_checkpoint(stock_folder), read_checkpoint(tmp_path)
    assert _equal(whole, parts)


@pytest.mark.parametrize(("num_classes", "tokens"), [(2, [0, 1]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3, 1, 2, 3, 1, 2])])
def test_classes_start_from_pretrained_tokens(num_classes, tokens, vit_state, tmp_path, tiny_sam):
    torch.save(original(vit_state, vit=True), tmp_path / "sam.pth")
    decoder = load_pretrained(tiny_sam(num_classes=num_classes), tmp_path / "sam.pth").mask_decoder
    assert torch.equal(decoder.mask_tokens.weight, vit_state["mask_decoder.mask_tokens.weight"][tokens])
    for mlp, token in zip(decoder.output_hypernetworks_mlps, tokens, strict=True):
        stem = f"mask_decoder.output_hypernetworks_mlps.{token}."
        assert _equal(mlp.state_dict(), {k.removeprefix(stem): v for k, v in vit_state.items() if k.startswith(stem)})


def test_missing_unexpected_and_ill_shaped_keys_are_all_named(vit_state, tmp_path, tiny_sam):
    checkpoint = original(vit_state, vit=True)
    del checkpoint["image_encoder.neck.0.weight"]
    checkpoint["image_encoder.extra"] = torch.zeros(1)
    checkpoint["image_encoder.blocks.0.mlp.lin1.bias"] = torch.zeros(7)
    torch.save(checkpoint, tmp_path / "sam.pth")
    with pytest.raises(TskdError) as error:
        load_pretrained(tiny_sam(), tmp_path / "sam.pth")
    for part in (
        "missing: image_encoder.neck.conv1.weight;",
        "unexpected: image_encoder.extra;",
        "image_encoder.layers.0.mlp.lin1.bias (7,) in the file, (128,) in the network",
        "sam.pth",
        "sam_vit_b",
    ):
        assert part in str(error.value)


def test_a_failed_load_changes_nothing(vit_state, tmp_path, tiny_sam):
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 32)}, tmp_path / "sam.pth")
    network = tiny_sam()
    network.load_state_dict(vit_state)
    with pytest.raises(TskdError, match=r"missing: .* and \d+ more"):
        load_pretrained(network, tmp_path / "sam.pth")
    assert _equal(network.state_dict(), vit_state)


def test_settings_that_shapes_do_not_show_are_compared(stock_folder, tiny_sam):
    with pytest.raises(TskdError, match=r"config\.json: .*num_attention_heads: 2 in the file, 4 in the network"):
        load_pretrained(tiny_sam(image_size=128, num_attention_heads=4, use_rel_pos=False), stock_folder)


def test_windows_of_another_size_are_not_stretched(vit_state, tmp_path, tiny_sam):
    torch.save(original(vit_state, vit=True), tmp_path / "sam.pth")
    with pytest.raises(TskdError, match=r"layers\.0\.attn\.rel_pos_h \(5, 16\) in the file, \(7, 16\) in the network"):
        load_pretrained(tiny_sam(window_size=4), tmp_path / "sam.pth")


def test_another_encoder_is_refused(stock_folder, vit_state, tmp_path):
    with pytest.raises(TskdError, match=r"weights of a ViT .* mobile_sam is a TinyViT"):
        load_pretrained(build_sam("mobile_sam", 4, 64), stock_folder)
    torch.save(original(vit_state, vit=True), tmp_path / "sam.pth")
    with pytest.raises(TskdError, match="not a checkpoint of lite_medsam"):
        load_pretrained(build_sam("lite_medsam", 4, 64), tmp_path / "sam.pth")


def test_unusable_sources(tmp_path, tiny_sam):
    network = tiny_sam()
    with pytest.raises(TskdError, match=r"owner/name@revision.*; found no such file"):
        load_pretrained(network, "facebook/sam-vit-base")  # a hub id without a revision
    with pytest.raises(TskdError, match=r"expected model\.safetensors"):
        load_pretrained(network, tmp_path)
    with pytest.raises(TskdError, match=r"none\.pth: expected a file of weights, found none"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(TskdError, match=r"text\.pth: cannot be read as a file of tensors"):
        load_pretrained(network, tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(TskdError, match=r"text\.safetensors: cannot be read"):
        read_checkpoint(tmp_path / "text.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(TskdError, match=r"list\.pth: expected a dict of tensors, found list"):
        load_pretrained(network, tmp_path / "list.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"image_encoder.pos_embed": json.JSONDecodeError("", "", 0)}, tmp_path / "code.pth")
    with pytest.raises(TskdError, match="weights_only"):
        read_checkpoint(tmp_path / "code.pth")


def test_default_and_hub_sources(stock_folder, monkeypatch, tiny_sam, tmp_path):
    asked = []
    monkeypatch.setenv("TSKD_CACHE", str(tmp_path))
    monkeypatch.setattr("tskd.networks.weights.default_weights", lambda vfm: asked.append(vfm) or stock_folder)  # type: ignore[func-returns-value]
    monkeypatch.setattr("tskd.networks.weight_store.hub_snapshot", lambda *parts: asked.append(parts) or stock_folder)  # type: ignore[func-returns-value]
    by_default = load_pretrained(tiny_sam(image_size=128))
    from_hub = load_pretrained(tiny_sam(image_size=128), "owner/name@0123abc")
    assert asked == ["sam_vit_b", ("owner/name", "0123abc", tmp_path / "hub")]
    assert _equal(by_default.state_dict(), from_hub.state_dict())


@pytest.mark.parametrize(
    ("vfm", "width", "layers", "heads"),
    [("sam_vit_b", 768, 12, 12), ("sam_vit_l", 1024, 24, 16), ("sam_vit_h", 1280, 32, 16)],
)
def test_full_size_models_have_the_keys_and_shapes_of_stock_sam(vfm, width, layers, heads):
    vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    with torch.device("meta"):
        stock = SamModel(
            SamConfig(
                vision_config={**vision, "global_attn_indexes": list(range(layers))[layers // 4 - 1 :: layers // 4]}
            )
        )
        network = build_sam(vfm, 4, 1024)
    expected = to_network_layout(stock.state_dict(), vit=True)
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in expected.items()}
