"""MONAI's call, ranges, targets, and a schedule that no step changes."""

import pytest
import torch
from diffusers import DDPMScheduler
from monai.data import MetaTensor
from monai.inferers import DiffusionInferer

from tskd.distillation import preset_augmentation
from tskd.errors import TskdError
from tskd.synthesis import DiffusionBatch, DiffusionLoss, from_model_range, preset_flips, to_model_range


def batch(count=4, seed=0):
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return {"image": MetaTensor(images), "case": [f"case {k}" for k in range(count)]}


def test_ranges_are_inverse_and_clip():
    image = torch.linspace(0, 1, 11)
    assert to_model_range(image).aminmax() == (-1.0, 1.0)
    torch.testing.assert_close(from_model_range(to_model_range(image)), image)
    assert from_model_range(torch.tensor([-3.0, 3.0])).tolist() == [0.0, 1.0]


def test_network_answers_monais_call_with_the_unets_own_output(network):
    x, timesteps = torch.randn(3, 1, 16, 16), torch.tensor([0, 10, 999])
    torch.testing.assert_close(network(x=x, timesteps=timesteps, context=None), network.unet(x, timesteps).sample)


def test_state_dict_is_the_unets_under_one_prefix(network):
    assert set(network.state_dict()) == {f"unet.{name}" for name in network.unet.state_dict()}


def test_context_is_refused(network):
    with pytest.raises(TskdError, match="takes no context"):
        network(x=torch.zeros(1, 1, 16, 16), timesteps=torch.tensor([0]), context=torch.zeros(1, 1, 4))


def test_a_size_that_cannot_be_halved_is_refused_with_the_factor(network):
    with pytest.raises(TskdError, match=r"multiple of 2 .*found \(15, 16\)"):
        network(x=torch.zeros(1, 1, 15, 16), timesteps=torch.tensor([0]))


def test_inferer_gets_the_noisy_image_of_the_schedule(network, scheduler):
    images, (target, timesteps), args, named = DiffusionBatch(scheduler)(batch(), "cpu")
    noisy = scheduler.add_noise(images, named["noise"], named["timesteps"])
    prediction = DiffusionInferer(scheduler)(images, network, *args, **named)
    torch.testing.assert_close(prediction, network.unet(noisy, timesteps).sample)
    assert target.shape == prediction.shape
    assert not isinstance(images, MetaTensor)


def test_target_is_what_turns_the_noisy_image_back(scheduler):
    images, (target, timesteps), _, named = DiffusionBatch(scheduler)(batch(), "cpu")
    kept = scheduler.alphas_cumprod[timesteps][:, None, None, None]
    noisy = scheduler.add_noise(images, named["noise"], timesteps)
    if scheduler.config.prediction_type == "epsilon":
        torch.testing.assert_close(target, named["noise"])
    else:
        torch.testing.assert_close(kept.sqrt() * noisy - (1 - kept).sqrt() * target, images, atol=1e-4, rtol=0)


def test_fixed_noise_depends_on_the_case_and_not_on_the_batch(scheduler):
    prepare, entries = DiffusionBatch(scheduler, fixed_seed=3), batch()
    images, (target, timesteps), _, named = prepare(entries, "cpu")
    again = prepare(entries, "cpu")
    assert torch.equal(again[3]["noise"], named["noise"])
    assert torch.equal(again[1][0], target)
    alone = prepare({"image": entries["image"][2:3], "case": ["case 2"]}, "cpu")
    assert torch.equal(alone[3]["noise"][0], named["noise"][2])
    assert alone[1][1][0] == timesteps[2]
    assert not torch.equal(DiffusionBatch(scheduler, fixed_seed=4)(entries, "cpu")[3]["noise"], named["noise"])
    assert images.aminmax().min >= -1


def test_noise_is_drawn_anew_without_a_fixed_seed(scheduler):
    prepare = DiffusionBatch(scheduler)
    assert not torch.equal(prepare(batch(), "cpu")[3]["noise"], prepare(batch(), "cpu")[3]["noise"])


def test_a_bfloat16_step_leaves_the_schedule_in_float32(make_network, scheduler):
    network, before = make_network(amp_dtype="bfloat16").train(), scheduler.alphas_cumprod.clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    images, target, args, named = DiffusionBatch(scheduler)(batch(), "cpu")
    with torch.autocast("cpu", torch.bfloat16):  # even if someone wraps the whole step
        prediction = DiffusionInferer(scheduler)(images, network, *args, **named)
        loss = DiffusionLoss(scheduler, 5.0)(prediction, target)
    loss.backward()
    optimizer.step()
    scheduler.add_noise(images.bfloat16(), named["noise"].bfloat16(), named["timesteps"])
    assert prediction.dtype == torch.float32
    assert scheduler.alphas_cumprod.dtype == scheduler.betas.dtype == torch.float32
    assert torch.equal(scheduler.alphas_cumprod, before)
    assert 0 < 1 - scheduler.alphas_cumprod[0] < 1e-3


@pytest.mark.parametrize("kind", ["sample", "v-prediction"])
def test_other_targets_are_refused(kind):
    with pytest.raises(TskdError, match=f"prediction_type: expected epsilon or v_prediction, found '{kind}'"):
        DiffusionBatch(DDPMScheduler(prediction_type=kind))


@pytest.mark.parametrize(
    ("modality", "axes"),
    [
        ("MR", []), ("CT", []), ("US", []), ("X-ray", []), ("unknown", []),
        ("dermoscopy", ["x", "y"]), ("fundus photography", ["x", "y"]),
    ],
)  # fmt: skip
def test_flips_are_those_of_the_students_preset(modality, axes):
    assert preset_flips(preset_augmentation(modality)) == axes


def test_one_axis_alone_is_the_same_axis_for_student_and_diffusion_model():
    """Left and right are x, the first axis of an image that is x first."""
    still = dict.fromkeys(("rotate", "scale", "translate", "shear", "gamma", "brightness", "noise", "blur"), 0.0)
    augmentation = preset_augmentation("plain", **still, flip=1.0)
    assert preset_flips(augmentation) == ["x"]
    image = torch.rand(1, 1, 8, 6)
    torch.testing.assert_close(augmentation({"image": image})["image"], image.flip(-2), atol=1e-5, rtol=0)
