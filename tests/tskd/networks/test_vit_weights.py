"""ImageNet weights in MONAI's ViT."""

import copy
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNETR, SegResNet
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from tskd.errors import TskdError
from tskd.networks.vit_weights import load_vit, to_monai_layout

CONFIG = {
    "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 3, "num_hidden_layers": 12, "image_size": 48,
    "patch_size": 16, "layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def unetr(channels: int = 1, side: int = 48, **options) -> UNETR:
    return UNETR(
        channels, 3, (side, side), feature_size=4, hidden_size=48, mlp_dim=64, num_heads=3, spatial_dims=2, **options
    ).eval()


@pytest.fixture(scope="module")
def pretrained() -> ViTModel:
    """A ViT whose every weight and bias counts, with activations of the size that trained ones have."""
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**CONFIG)).eval()
    for name, value in model.named_parameters():
        if value.ndim == 1:
            torch.nn.init.normal_(value, mean=float("norm" in name and name.endswith("weight")), std=0.3)
        else:
            torch.nn.init.normal_(value, std=0.15 if value.ndim == 2 else 0.5)
    return model


@pytest.fixture(scope="module")
def folder(pretrained: ViTModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vit")
    pretrained.save_pretrained(path)
    return path


@torch.no_grad()
def tokens(model: ViTModel, image: torch.Tensor) -> torch.Tensor:
    """Patch tokens of transformers' own model without the class token, for images of any size in [0, 1]."""
    pixels = (image.expand(-1, 3, -1, -1) - 0.5) / 0.5
    hidden = model.embeddings(pixels, interpolate_pos_encoding=True)[:, 1:]
    for layer in model.layers:
        hidden = layer(hidden, None)
    return model.layernorm(hidden)


def timm_layout(model: ViTModel) -> dict[str, torch.Tensor]:
    """The same weights as timm names them, written out by hand."""
    state, result = model.state_dict(), {}
    for i in range(12):
        old, new = f"layers.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            result[f"{new}norm1.{kind}"] = state[f"{old}layernorm_before.{kind}"]
            result[f"{new}attn.qkv.{kind}"] = torch.cat([state[f"{old}attention.{x}_proj.{kind}"] for x in "qkv"])
            result[f"{new}attn.proj.{kind}"] = state[f"{old}attention.o_proj.{kind}"]
            result[f"{new}norm2.{kind}"] = state[f"{old}layernorm_after.{kind}"]
            result[f"{new}mlp.fc1.{kind}"] = state[f"{old}mlp.fc1.{kind}"]
            result[f"{new}mlp.fc2.{kind}"] = state[f"{old}mlp.fc2.{kind}"]
    for kind in ("weight", "bias"):
        result[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        result[f"norm.{kind}"] = state[f"layernorm.{kind}"]
        result[f"head.{kind}"] = torch.zeros(10)
    return {
        **result, "cls_token": state["embeddings.cls_token"], "pos_embed": state["embeddings.position_embeddings"],
    }  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("side", [48, 80])
def test_features_equal_those_of_transformers(qkv_bias, side, pretrained, folder):
    image = torch.rand(2, 1, side, side)
    network = load_vit(unetr(side=side, qkv_bias=qkv_bias), folder)
    torch.testing.assert_close(network.vit(image)[0], tokens(pretrained, image), rtol=0, atol=1e-4)


@torch.no_grad()
def test_colour_images(pretrained, folder):
    image = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(load_vit(unetr(3), folder).vit(image)[0], tokens(pretrained, image), rtol=0, atol=1e-4)


def test_layouts_agree(pretrained, folder, tmp_path):
    expected = load_vit(unetr(), folder).vit.state_dict()
    torch.save(timm_layout(pretrained), tmp_path / "timm.pth")
    classifier = ViTForImageClassification(ViTConfig(**CONFIG))
    classifier.vit.load_state_dict(pretrained.state_dict(), strict=False)  # it has no pooler
    classifier.save_pretrained(tmp_path / "classifier")
    torch.save(pretrained.state_dict(), tmp_path / "names_of_today.pth")
    for source in ("timm.pth", "classifier", "names_of_today.pth"):
        outputs = load_vit(unetr(), tmp_path / source).vit.state_dict()
        for name in (name for name in expected if "norm_cross_attn" not in name):
            torch.testing.assert_close(outputs[name], expected[name], rtol=0, atol=1e-6, msg=f"{source}: {name}")


def test_only_the_encoder_changes(folder):
    network = unetr()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = load_vit(network, folder).state_dict()
    assert before.keys() == after.keys()
    kept = {name for name in after if torch.equal(before[name], after[name])}
    assert kept == {name for name in after if not name.startswith("vit.") or "norm_cross_attn" in name}


def test_no_tensor_of_the_file_is_lost(folder):
    """All but the class token and the pooler have a place."""
    state = load_file(folder / "model.safetensors")
    used = sum(value.numel() for key, value in state.items() if not key.startswith("pooler"))
    assert sum(value.numel() for value in to_monai_layout(state).values()) == used - 2 * 48


def test_misfits_are_named(pretrained, folder, tmp_path):
    state = timm_layout(pretrained)
    odd = {**state, "blocks.0.ls1.gamma": torch.ones(48), "norm.weight": torch.ones(24)}
    del odd["blocks.3.mlp.fc1.bias"]
    torch.save(odd, tmp_path / "odd.pth")
    with pytest.raises(TskdError) as error:
        load_vit(unetr(), tmp_path / "odd.pth")
    for part in (
        "missing blocks.3.mlp.linear1.bias", "unexpected blocks.0.ls1.gamma",
        r"norm.weight: expected shape (48,), found (24,)",
    ):  # fmt: skip
        assert part in str(error.value)
    with pytest.raises(TskdError, match="num_attention_heads: expected 4, found 3"):
        load_vit(UNETR(1, 3, 48, hidden_size=48, mlp_dim=64, num_heads=4, feature_size=4, spatial_dims=2), folder)
    with pytest.raises(TskdError, match="expected square grids, found 9 patches in the file and 6"):
        load_vit(UNETR(1, 3, (32, 48), hidden_size=48, mlp_dim=64, num_heads=3, feature_size=4, spatial_dims=2), folder)
    for nowhere in ("no/such_folder", None):
        with pytest.raises(TskdError, match="owner/name@revision"):
            load_vit(unetr(), nowhere)
    with pytest.raises(TskdError, match="expected a MONAI ViT without class token, found Sequential"):
        load_vit(SegResNet(spatial_dims=2), folder, encoder="up_layers.0")


def test_a_singular_query_is_refused(pretrained, tmp_path):
    state = timm_layout(pretrained)
    state["blocks.2.attn.qkv.weight"] = state["blocks.2.attn.qkv.weight"].clone()
    state["blocks.2.attn.qkv.weight"][0] = 0  # this feature of q is its bias alone
    torch.save(state, tmp_path / "singular.pth")
    with pytest.raises(TskdError, match=r"blocks\.2\.attn\.qkv\.bias: .*Set `network_def#qkv_bias` to True"):
        load_vit(unetr(), tmp_path / "singular.pth")
    load_vit(unetr(qkv_bias=True), tmp_path / "singular.pth")


def query_shift(model: ViTModel, block: int) -> torch.Tensor:
    """The shift of the norm that stands for the bias of q."""
    q = model.layers[block].attention.q_proj
    return torch.linalg.solve(q.weight.double(), q.bias.double())


@torch.no_grad()
def test_under_autocast_features_are_off_by_a_few_per_cent_at_most(pretrained, tmp_path):
    """With q biases as large as they may be: the error is that of bfloat16, not of what was folded."""
    model = copy.deepcopy(pretrained)
    for block in range(12):
        model.layers[block].attention.q_proj.bias.mul_(7.9 / query_shift(model, block).abs().max())
    model.save_pretrained(tmp_path)
    image = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    expected = tokens(model, image)
    network = load_vit(unetr(), tmp_path, amp_dtype="bfloat16")
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network.vit(image)[0].float()
    assert (outputs - expected).norm() < 0.03 * expected.norm()


def test_a_shift_that_bfloat16_would_not_survive_is_refused(pretrained, folder):
    assert max(query_shift(pretrained, block).abs().max() for block in range(12)) > 100
    message = (
        r"largest shift 1\.2e\+01, expected 8 or less; .*#qkv_bias` to True in all .*--amp_dtype float32 instead of bf"
    )
    with pytest.raises(TskdError, match=message):
        load_vit(unetr(), folder, amp_dtype="bfloat16")
    load_vit(unetr(qkv_bias=True), folder, amp_dtype="bfloat16")
    load_vit(unetr(), folder)


def test_weights_of_a_whole_student_are_not_overwritten(folder):
    with pytest.raises(TskdError, match=r"init_weights: expected None .* found student\.pt\. Leave it out"):
        load_vit(unetr(), folder, init_weights="student.pt")
