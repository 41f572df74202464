"""Merged weights load strictly into the unmodified encoder and compute what the adapter does."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import SamConfig, SamModel

from tests.tskd.networks.test_weights import original
from tests.tskd.small_sam import VIT, fresh, trained
from tskd.cli import main
from tskd.errors import TskdError
from tskd.export.merge import merge_adapter, merge_run, merged_encoder
from tskd.lora import merged, prepare_fine_tuning, save_adapter
from tskd.networks import TinyViT, build_sam
from tskd.networks.qkv import split_qkv
from tskd.state import save_weights


@pytest.mark.parametrize("train_neck", [False, True])
def test_vit_into_an_unmodified_sam(train_neck, x, tmp_path):
    network = trained(prepare_fine_tuning(fresh("sam_vit_b"), train_neck=train_neck), x, steps=2)
    save_adapter(network, tmp_path)
    state = merged_encoder(fresh("sam_vit_b"), tmp_path)
    sam = SamModel(SamConfig(vision_config={**VIT, "image_size": 64}, prompt_encoder_config={"image_size": 64}))
    sam.vision_encoder.load_state_dict(state, strict=True)
    pixels = torch.rand(2, 3, 64, 64)
    stock = fresh("sam_vit_b").image_encoder.eval()
    adapter = PeftModel.from_pretrained(split_qkv(fresh("sam_vit_b").image_encoder), str(tmp_path)).eval()
    with torch.no_grad():
        expected = adapter(pixels).last_hidden_state
        torch.testing.assert_close(sam.eval().vision_encoder(pixels).last_hidden_state, expected, atol=1e-5, rtol=0)
        assert (stock(pixels).last_hidden_state - expected).abs().max() > 0.01


@pytest.fixture(scope="module")
def mobile_sam(tmp_path_factory):
    """MobileSAM's file in its own layout, the adapter of a short training on it, and the tuned network."""
    folder = tmp_path_factory.mktemp("mobile")
    torch.manual_seed(0)
    network = build_sam("mobile_sam", 4, 64)
    head = {"head.weight": (1000, 320), "head.bias": (1000,), "norm_head.weight": (320,), "norm_head.bias": (320,)}
    published = original(network.state_dict(), vit=False)
    published |= {f"image_encoder.{name}": torch.rand(shape) for name, shape in head.items()}
    torch.save(published, folder / "mobile_sam.pth")
    prepare_fine_tuning(network, blocks=2)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:  # as after a training
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(network, folder / "adapter")
    return folder, network.eval()


@torch.no_grad()
def test_tiny_vit_in_mobile_sams_layout(mobile_sam, tmp_path, monkeypatch):
    folder, network = mobile_sam
    monkeypatch.setenv("HOME", str(folder))
    arguments = ["--adapter", folder / "adapter", "--weights", "~/mobile_sam.pth", "--vfm", "mobile_sam"]
    assert main(["merge", *map(str, arguments), "--output", str(tmp_path / "new" / "encoder.safetensors")]) == 0
    state = load_file(tmp_path / "new" / "encoder.safetensors")
    published = torch.load(folder / "mobile_sam.pth", weights_only=True)
    names = {name.removeprefix("image_encoder.") for name in published if name.startswith("image_encoder.")}
    assert set(state) == names  # so it loads strictly into the published code, with its ImageNet head
    assert torch.equal(state["head.weight"], published["image_encoder.head.weight"])
    encoder = TinyViT().eval()
    encoder.load_state_dict({name: value for name, value in state.items() if "head." not in name}, strict=True)
    pixels = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(encoder(pixels), network.image_encoder(pixels), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_of_a_run_whose_network_was_given_keys(tmp_path):
    network = build_sam("mobile_sam", 2, 64, high_res_features=True)
    save_weights(network, tmp_path / "models" / "model.pt")
    keys = {"network_def#high_res_features": True}
    settings = {"vfm": "mobile_sam", "num_classes": 2, "image_size": 64}
    (tmp_path / "versions.json").write_text(json.dumps({"settings": settings, "network_keys": keys}))
    TinyViT().load_state_dict(load_file(merge_run(tmp_path, tmp_path / "encoder.safetensors")), strict=True)


@torch.no_grad()
@pytest.mark.parametrize("elsewhere", [False, True])
def test_of_a_run(elsewhere, mobile_sam, tmp_path, capsys):
    _, network = mobile_sam
    run, models = tmp_path / "run", tmp_path / ("models" if elsewhere else "run/models")
    save_weights(merged(network), models / "model.pt")
    settings = {"vfm": "mobile_sam", "num_classes": 4, "image_size": 64}
    run.mkdir(exist_ok=True)
    (run / "versions.json").write_text(json.dumps({"settings": settings}))
    output = tmp_path / "encoder.safetensors"
    model = ["--model", str(models / "model.pt")] if elsewhere else []
    assert main(["merge", "--run", str(run), *model, "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    encoder = TinyViT().eval()
    encoder.load_state_dict(load_file(output), strict=True)
    pixels = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(encoder(pixels), network.image_encoder(pixels), atol=1e-5, rtol=1e-5)
    with safe_open(output, "pt") as file:
        assert file.metadata() == {"vfm": "mobile_sam", "image_size": "64"}


def test_what_is_wrong_is_said(mobile_sam, tmp_path, capsys):
    folder, _ = mobile_sam
    with pytest.raises(TskdError, match=r"versions.json: expected the file that a training writes"):
        merge_run(tmp_path, tmp_path / "x.safetensors")
    (tmp_path / "versions.json").write_text(json.dumps({"settings": {"image_size": 64}}))
    with pytest.raises(TskdError, match="found none for vfm, num_classes"):
        merge_run(tmp_path, tmp_path / "x.safetensors")
    with pytest.raises(TskdError, match=r"ends in \.safetensors"):
        merge_adapter(folder / "adapter", folder / "mobile_sam.pth", "mobile_sam", tmp_path / "x.pt")
    with pytest.raises(TskdError, match="expected a peft adapter folder"):
        merge_adapter(folder, folder / "mobile_sam.pth", "mobile_sam", tmp_path / "x.safetensors")
    assert main(["merge", "--adapter", str(folder / "adapter"), "--output", "x.safetensors"]) == 2
    assert "--vfm" in capsys.readouterr().err
