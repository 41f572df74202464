"""Encoders of transformers as teachers: the stock embeddings, weights from folders, LoRA that merges exactly."""

import copy
import json
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.models.sam2.configuration_sam2 import Sam2Config
from transformers.models.sam2.modeling_sam2 import Sam2Model

from tskd.errors import TskdError
from tskd.lora import load_adapter, merged, prepare_fine_tuning, save_adapter
from tskd.networks import build_sam, load_pretrained
from tskd.networks.encoders.families import ENCODERS, FAMILIES, PRESETS
from tskd.networks.encoders.pyramid_head import PyramidHead

_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_HIERA = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 16, "embed_dim_per_stage": [16, 32, 64, 128],
    "blocks_per_stage": [1, 1, 2, 1], "num_attention_heads_per_stage": [1, 2, 2, 2], "global_attention_blocks": [3],
    "window_size_per_stage": [4, 2, 2, 2],
}  # fmt: skip
SMALL = {  # family -> settings of a small random encoder, image size
    "sam2": (
        {"backbone_config": _HIERA, "backbone_channel_list": [128, 64, 32, 16], "fpn_hidden_size": 16, "model_type":
         "sam2_vision_model"}, 64,
    ),
    "sam3": (
        {"backbone_config": {"model_type": "sam3_vit_model", **_VIT, "intermediate_size": 64, "image_size": 56,
                             "patch_size": 14, "window_size": 3, "global_attn_indexes": [1], "pretrain_image_size": 42},
         "fpn_hidden_size": 16, "model_type": "sam3_vision_model"}, 56,
    ),
    "dinov2": ({**_VIT, "image_size": 70, "patch_size": 14, "model_type": "dinov2"}, 56),
    "dinov2_with_registers": ({**_VIT, "image_size": 70, "patch_size": 14, "model_type": "dinov2_with_registers"}, 56),
    "dinov3_vit": (
        {**_VIT, "intermediate_size": 64, "patch_size": 16, "num_register_tokens": 4, "model_type": "dinov3_vit"}, 64,
    ),
    "radio": ({**_VIT, "max_img_size": 128, "model_type": "radio"}, 64),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each family as `save_pretrained` writes it, with random weights that are nowhere zero."""
    found = {}
    for name, (settings, _) in SMALL.items():
        torch.manual_seed(0)
        family = FAMILIES[name]
        fields = {key: value for key, value in settings.items() if key != "model_type"}
        encoder = family.model_class()(family.config_class()(**fields))
        for parameter in encoder.parameters():
            nn.init.normal_(parameter, std=0.1)
        found[name] = tmp_path_factory.mktemp(name)
        encoder.save_pretrained(found[name])
    return found


def built(folders, name, **options):
    torch.manual_seed(1)
    return load_pretrained(build_sam(str(folders[name]), 3, SMALL[name][1], **options))


def images(name, channels=1):
    size = SMALL[name][1]
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_folder_gives_the_stock_embeddings(folders, name):
    network, x = built(folders, name).eval(), images(name)
    family = FAMILIES[name]
    stock = family.model_class().from_pretrained(folders[name]).eval()
    pixels = (x.expand(-1, 3, -1, -1) - torch.tensor(family.scale.mean).view(3, 1, 1)) / torch.tensor(
        family.scale.std
    ).view(3, 1, 1)
    features = network.forward_features(x)
    torch.testing.assert_close(features["embedding"], family.pyramid(stock, pixels)[-1], atol=1e-5, rtol=1e-5)
    side = x.shape[-1] // network.stride
    assert features["embedding"].shape[-2:] == (side, side)
    assert features["logits_low"].shape == (2, 3, 4 * side, 4 * side)
    assert network(x).shape == (2, 3, *x.shape[-2:])
    torch.testing.assert_close(network(x.expand(-1, 3, -1, -1)), network(x))
    assert set(network.image_encoder.state_dict()) == set(stock.state_dict())


@pytest.mark.parametrize("name", SMALL)
def test_lora_moves_nothing_else_and_merges_into_the_stock_encoder(folders, name, tmp_path):
    network, x = built(folders, name), images(name)
    before = copy.deepcopy(network.image_encoder.state_dict())
    tuned: Any = prepare_fine_tuning(network, rank=2, alpha=2, targets=("q", "v", "proj", "mlp"))
    trainable = [n for n, p in tuned.named_parameters() if p.requires_grad]
    assert all(".lora_" in n or n.startswith("head.") for n in trainable)
    assert sum(".lora_A" in n for n in trainable) == 5 * len(
        [n for n in trainable if "q.lora_A" in n or "q_proj.lora_A" in n]
    )
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        tuned.train()(x, low_resolution=True).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        plain = merged(tuned).eval()
        torch.testing.assert_close(plain(x), tuned.eval()(x), atol=1e-5, rtol=1e-5)
    state = plain.image_encoder.state_dict()
    assert state.keys() == before.keys()
    assert any(not torch.equal(state[key], before[key]) for key in state)
    save_adapter(tuned, tmp_path / "adapter")
    again = load_adapter(built(folders, name).image_encoder, tmp_path / "adapter").merge_and_unload()
    assert len(load_file(tmp_path / "adapter/adapter_model.safetensors")) == 2 * sum(".lora_A" in n for n in trainable)
    assert isinstance(again, nn.Module)


@pytest.mark.parametrize("name", ["sam2", "dinov3_vit"])
def test_checkpointing_changes_no_gradient(folders, name):
    gradients = []
    for checkpointing in (False, True):
        network = prepare_fine_tuning(built(folders, name, gradient_checkpointing=checkpointing), rank=2, alpha=2)
        torch.manual_seed(3)
        for n, p in network.named_parameters():
            if ".lora_B" in n:
                nn.init.normal_(p, std=0.1)
        network.train()(images(name)).square().mean().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("mode", "encoder"), [("decoder", False), ("full", True)])
def test_the_head_is_trained_alone_or_with_all(folders, mode, encoder):
    network = prepare_fine_tuning(built(folders, "dinov2"), mode=mode)
    assert all(p.requires_grad for p in network.head.parameters())
    assert all(p.requires_grad == encoder for p in network.image_encoder.parameters())
    with pytest.raises(TskdError, match="train_neck: expected an encoder with a neck, found Dinov2"):
        prepare_fine_tuning(built(folders, "dinov2"), train_neck=True)
    assert any(".neck." in n for n, p in prepare_fine_tuning(built(folders, "sam2"), train_neck=True).named_parameters()
               if p.requires_grad)  # fmt: skip


@torch.no_grad()
def test_a_whole_sam_2_and_its_original_names_give_the_same_encoder(folders, tmp_path):
    settings = {key: value for key, value in SMALL["sam2"][0].items() if key != "model_type"}
    expected = built(folders, "sam2")
    whole = Sam2Model(Sam2Config(vision_config=settings))
    whole.vision_encoder.load_state_dict(expected.image_encoder.state_dict())
    whole.save_pretrained(tmp_path / "whole")
    network = load_pretrained(build_sam(str(tmp_path / "whole"), 3, 64))
    for key, value in expected.image_encoder.state_dict().items():
        torch.testing.assert_close(network.image_encoder.state_dict()[key], value)
    original = {}  # as segment-anything-2 and MedSAM2 name them
    for key, value in expected.image_encoder.state_dict().items():
        key = (
            key.replace("backbone.", "trunk.")
            .replace("layer_norm", "norm")
            .replace("patch_embed.projection", "patch_embed.proj")
        )
        key = key.replace("mlp.proj_in", "mlp.layers.0").replace("mlp.proj_out", "mlp.layers.1")
        if key.startswith("neck.convs."):
            key = f"{key[:12]}.conv.{key[13:]}"
        original[f"image_encoder.{key}"] = value
    torch.save({"model": {**original, "memory_encoder.x": torch.zeros(1)}}, tmp_path / "medsam2.pt")
    blank = build_sam(str(folders["sam2"]), 3, 64)
    assert not torch.equal(blank.image_encoder.state_dict()["neck.convs.0.weight"], value)
    load_pretrained(blank, tmp_path / "medsam2.pt")
    torch.testing.assert_close(blank.image_encoder.state_dict(), expected.image_encoder.state_dict())


def test_what_does_not_fit_is_said(folders, tmp_path):
    with pytest.raises(TskdError, match=r"multiple of 14, found 64 x 64; resize the image, such as to image_size=70"):
        build_sam(str(folders["dinov2"]), 3, 64)
    with pytest.raises(TskdError, match="built for images of 56 x 56"):
        built(folders, "sam3")(torch.rand(1, 1, 70, 70))
    with pytest.raises(TskdError, match="is not a checkpoint of"):
        load_pretrained(built(folders, "dinov2"), folders["radio"])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(TskdError, match=r"expected a model_type among sam2, .*, found 'bert'"):
        build_sam(str(tmp_path), 3, 64)
    with pytest.raises(TskdError, match=r"expected the key `weights`, found none. Set it to the file MedSAM2_latest"):
        load_pretrained(build_sam("medsam2", 3, 64, config={"backbone_config": _HIERA, "fpn_hidden_size": 16,
                                                             "backbone_channel_list": [128, 64, 32, 16]}))  # fmt: skip
    with pytest.raises(TskdError, match="settings_that_is_none"):
        build_sam("dinov2_small", 3, 56, config={"settings_that_is_none": 1})


@pytest.mark.parametrize("kind", ["edgetam", "edgetam_video", "edgetam_vision_model"])
def test_an_encoder_that_needs_timm_is_named_with_what_needs_it(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    for vfm in (str(tmp_path), "edgetam"):
        with pytest.raises(TskdError, match=r"EdgeTamVisionModel .* TimmWrapperModel, which needs timm"):
            build_sam(vfm, 3, 64)
    if find_spec("timm") is None:  # so that the reason is not forgotten when transformers changes
        module = import_module("transformers.models.edgetam.modeling_edgetam")
        with pytest.raises(ImportError, match="TimmWrapperModel requires the timm library"):
            module.EdgeTamVisionModel(module.EdgeTamVisionConfig())


@pytest.mark.parametrize(("vfm", "millions"), [
    ("sam2_hiera_tiny", 27.2), ("sam2_hiera_small", 34.3), ("sam2_hiera_base_plus", 69.1), ("sam2_hiera_large", 212.7),
    ("dinov2_small", 22.1), ("dinov2_base", 86.6), ("dinov2_large", 304.4), ("dinov3_small", 21.6),
    ("dinov3_base", 85.7), ("dinov3_large", 303.1),
])  # fmt: skip
def test_published_sizes(vfm, millions):
    """Parameters of the encoders as their papers and model cards round them (DINO: with the mask token)."""
    family, settings = PRESETS[vfm]
    with torch.device("meta"):
        encoder = FAMILIES[family].model_class()(FAMILIES[family].config_class()(**settings))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert vfm in ENCODERS


@pytest.mark.parametrize(("strides", "factor"), [((4, 8, 16), 1), ((3.5, 7, 14), 1), ((14,), 4), ((16,), 4)])
def test_the_head_ends_at_a_quarter_of_the_image(strides, factor):
    head = PyramidHead([8] * len(strides), strides, 3, width=8)
    levels = [torch.rand(1, 8, round(112 / s), round(112 / s)) for s in strides]
    assert head.factor == factor
    assert head(levels).shape[-1] == factor * levels[0].shape[-1]
