"""What fine-tuning writes: adapters that stock peft reads, and the trainable part of a checkpoint."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from tests.tskd.small_sam import VFMS, fresh, trained
from tskd.errors import TskdError
from tskd.lora import TrainableState, frozen_sha256, load_adapter, merged, prepare_fine_tuning, save_adapter
from tskd.networks.qkv import split_qkv


@torch.no_grad()
def test_stock_peft_reads_the_folder(tuned, tmp_path):
    vfm, network = tuned
    save_adapter(network, tmp_path)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    images = torch.rand(1, 3, 64, 64)
    stock = PeftModel.from_pretrained(split_qkv(fresh(vfm).image_encoder), str(tmp_path)).eval()
    reloaded = load_adapter(fresh(vfm).image_encoder, tmp_path).eval()
    outputs = [encoder(images) for encoder in (network.image_encoder, stock, reloaded)]
    if vfm == "sam_vit_b":
        outputs = [output.last_hidden_state for output in outputs]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("vfm", VFMS)
def test_stock_peft_reads_the_neck_too(vfm, x, tmp_path):
    network = trained(prepare_fine_tuning(fresh(vfm), blocks=1, train_neck=True), x, steps=1)
    save_adapter(network, tmp_path)
    stock = PeftModel.from_pretrained(split_qkv(fresh(vfm).image_encoder), str(tmp_path)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        outputs = [encoder(images) for encoder in (network.image_encoder, stock, merged(network).image_encoder)]
    if vfm == "sam_vit_b":
        outputs = [output.last_hidden_state for output in outputs]
    assert torch.equal(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], outputs[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_load_adapter_is_strict(change, tuned, tmp_path):
    vfm, network = tuned
    save_adapter(network, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    key = sorted(state)[0]
    value = state.pop(key)
    if change == "unexpected":
        state |= {key: value, key.replace("lora_A", "lora_X"): value.clone()}
        key = key.replace("lora_A", "lora_X")
    if change == "shape":
        state[key] = torch.zeros(value.shape[0], value.shape[1] + 1)
    save_file(state, file)
    named = key.rsplit(".lora_", 1)[0].removeprefix("base_model.model.")
    with pytest.raises(TskdError, match=named) as caught:
        load_adapter(fresh(vfm).image_encoder, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_adapter_of_another_encoder_is_refused(tuned, tmp_path):
    vfm, network = tuned
    save_adapter(network, tmp_path)
    other_vfm = next(name for name in VFMS if name != vfm)
    with pytest.raises(TskdError, match=str(tmp_path)):
        load_adapter(fresh(other_vfm).image_encoder, tmp_path)


def test_adapter_folder_must_exist(tmp_path):
    with pytest.raises(TskdError, match=r"expected a peft adapter folder with adapter_config.json"):
        load_adapter(fresh("sam_vit_b").image_encoder, tmp_path / "none")


@torch.no_grad()
def test_trainable_state_round_trip(tuned, x, tmp_path):
    vfm, network = tuned
    torch.save(TrainableState(network).state_dict(), tmp_path / "state.pt")
    restored = prepare_fine_tuning(fresh(vfm)).eval()
    assert not torch.equal(restored(x), network(x))
    TrainableState(restored).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(restored(x), network(x))
    frozen = sum(parameter.numel() for parameter in network.parameters() if not parameter.requires_grad)
    assert (tmp_path / "state.pt").stat().st_size < 4 * sum(p.numel() for p in network.parameters()) - 3.9 * frozen


def test_trainable_state_names_what_does_not_fit():
    small, large = (prepare_fine_tuning(fresh("sam_vit_b"), rank=rank, blocks=1) for rank in (2, 3))
    with pytest.raises(
        ValueError, match=r"layers.2.attn.qkv.q.lora_A.default.weight: expected shape \(3, 32\), found \(2, 32\)"
    ):
        TrainableState(large).load_state_dict(TrainableState(small).state_dict())
    decoder_only = prepare_fine_tuning(fresh("sam_vit_b"), mode="decoder")
    with pytest.raises(ValueError, match=r"unexpected image_encoder.*lora_B"):
        TrainableState(decoder_only).load_state_dict(TrainableState(small).state_dict())
    with pytest.raises(ValueError, match=r"missing image_encoder.*lora_B"):
        TrainableState(small).load_state_dict(TrainableState(decoder_only).state_dict())


def test_the_folder_holds_the_adapter_of_the_last_network_only(tmp_path):
    folder = tmp_path / "adapter"
    save_adapter(prepare_fine_tuning(fresh("mobile_sam"), rank=2), folder)
    (folder / "left over").touch()
    save_adapter(prepare_fine_tuning(fresh("mobile_sam"), rank=3), folder)
    assert LoraConfig.from_pretrained(str(folder)).r == 3
    assert not (folder / "left over").exists()
    save_adapter(prepare_fine_tuning(fresh("mobile_sam"), mode="decoder"), folder)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_adapter_is_said(tmp_path):
    save_adapter(prepare_fine_tuning(fresh("mobile_sam"), rank=2), tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TskdError, match=r"adapter_model\.safetensors: cannot be read as a file of tensors"):
        load_adapter(fresh("mobile_sam").image_encoder, tmp_path / "adapter")


def test_one_target_may_stand_alone():
    names = [n for n, p in prepare_fine_tuning(fresh("mobile_sam"), targets="v").named_parameters() if ".lora_" in n]
    assert names
    assert all(".qkv.v." in name for name in names)


def test_the_frozen_weights_have_a_hash():
    def digest(**options):
        network = fresh("mobile_sam")
        with torch.no_grad():
            network.get_parameter("image_encoder.layers.0.blocks.0.conv1.c.weight").add_(options.pop("shift", 0))
        return frozen_sha256(prepare_fine_tuning(network, **options))

    torch.manual_seed(0)
    first = digest()
    torch.manual_seed(1)  # another random start of the adapters
    assert digest() == first
    assert digest(shift=1e-3) != first
    assert digest(init="pissa") == first  # what PiSSA leaves of a layer depends on the processor's rounding
