"""Samplers draw from the right distribution, and each image from its own noise."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from tskd.errors import TskdError
from tskd.synthesis import SAMPLERS, SeededSampler, default_sampler, folder_settings
from tskd.synthesis.sampling import BATCH_SIZE, image_seed, image_shape

SHAPE = (1, 8, 8)


class Denoiser(torch.nn.Module):
    """The ideal network for independent pixels of a normal distribution, in the model's range."""

    def __init__(self, scheduler, mean, spread):
        super().__init__()
        self.scheduler, self.mean, self.spread = scheduler, mean, spread

    def forward(self, x, timesteps, context=None):
        kept = self.scheduler.alphas_cumprod[timesteps][:, None, None, None]
        variance = kept * self.spread**2 + 1 - kept
        noise = (1 - kept).sqrt() * (x - kept.sqrt() * self.mean) / variance
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        image = self.mean + kept.sqrt() * self.spread**2 * (x - kept.sqrt() * self.mean) / variance
        return kept.sqrt() * noise - (1 - kept).sqrt() * image


class GreyDenoiser(Denoiser):
    """The ideal network for images of one grey level each, drawn from a normal distribution."""

    def forward(self, x, timesteps, context=None):
        kept = self.scheduler.alphas_cumprod[timesteps][:, None, None, None]
        mean = x.mean((1, 2, 3), keepdim=True)
        variance = kept * self.spread**2 + (1 - kept) / x[0].numel()
        image = self.mean + kept.sqrt() * self.spread**2 * (mean - kept.sqrt() * self.mean) / variance
        noise = (x - kept.sqrt() * image) / (1 - kept).sqrt()
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        return kept.sqrt() * noise - (1 - kept).sqrt() * image


# all lose some of the spread (0.3): 3 to 5% at these steps; linear betas need twice the steps of cosine ones for that,
# and lose 9% with 25 steps of DPM-Solver++ and 17% with 25 of DDIM
@pytest.mark.parametrize(
    ("sampler", "cosine", "linear"),
    [("ddpm", 200, 200), ("ddim", 50, 100), ("dpmsolver++", 20, 40), ("sde-dpmsolver++", 25, 50)],
)
def test_every_sampler_draws_from_the_distribution_of_the_ideal_network(scheduler, sampler, cosine, linear):
    steps = linear if scheduler.config["beta_schedule"] == "linear" else cosine
    draw = SeededSampler(scheduler, sampler, steps, shape=(1, 32, 32))
    images = draw(torch.arange(8), Denoiser(scheduler, -0.2, 0.3)) * 2 - 1
    assert images.mean().item() == pytest.approx(-0.2, abs=0.03)
    assert images.std().item() == pytest.approx(0.3, rel=0.07)


@pytest.mark.parametrize(
    ("sampler", "steps"), [("ddpm", 400), ("ddpm", 600), ("ddim", 150), ("dpmsolver++", 30), ("sde-dpmsolver++", 30)]
)
def test_numbers_of_steps_that_do_not_divide_the_schedule(scheduler, sampler, steps):
    draw = SeededSampler(scheduler, sampler, steps, shape=(1, 4, 4))
    with torch.no_grad():  # all images in one call of the network, as on an accelerator
        grey = draw._draw(torch.arange(48), 48, GreyDenoiser(scheduler, -0.4, 0.2)).mean((1, 2, 3)) * 2 - 1
    assert grey.mean().item() == pytest.approx(-0.4, abs=0.09)  # three standard errors
    assert grey.std().item() == pytest.approx(0.2, rel=0.35)


def test_ddim_is_the_stock_one(scheduler):
    """Wherever the stock one divides the schedule evenly, and clips nothing."""
    stock = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing", clip_sample=False)
    stock.set_timesteps(20)
    ideal = Denoiser(scheduler, -0.2, 0.1)
    image = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(image_seed(3, 5)))
    for timestep in stock.timesteps:
        image = stock.step(ideal(image, timestep[None]), timestep, image, return_dict=False)[0]
    images = SeededSampler(scheduler, "ddim", 20, seed=3, shape=(1, 8, 8))(torch.tensor([5]), ideal)
    torch.testing.assert_close(images, image / 2 + 0.5, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_is_a_function_of_seed_and_number(network, either_scheduler, sampler):
    def draw(numbers, seed=0):
        return SeededSampler(either_scheduler, sampler, 6, seed)(torch.tensor(numbers), network)

    together = draw([0, 1, 2, 3, 4])
    for split in (draw([4, 3, 2, 1, 0]).flip(0), torch.cat([draw([0, 1]), draw([2, 3]), draw([4])])):
        assert torch.equal(split, together)
    assert torch.equal(draw([3]), together[3:4])
    assert len({tuple(image.flatten().tolist()) for image in [*together, *draw([0, 1], seed=1)]}) == 7


def test_on_an_accelerator_the_others_of_a_batch_change_no_byte(network, either_scheduler):
    """The way of an accelerator, walked on the CPU: every call of the network has the same size."""
    sampler, sizes = SeededSampler(either_scheduler, "ddpm", 4), []
    network.register_forward_pre_hook(lambda _, args, named: sizes.append(len(named["x"])), with_kwargs=True)

    def draw(numbers):
        return sampler._draw(torch.tensor(numbers), BATCH_SIZE, network)

    together = draw(list(range(BATCH_SIZE)))
    assert torch.equal(draw([5]), together[5:6])
    assert torch.equal(draw([7, 2, 3]), together[[7, 2, 3]])
    assert set(sizes) == {BATCH_SIZE}
    torch.testing.assert_close(sampler(torch.arange(BATCH_SIZE), network), together, atol=1e-3, rtol=0)


def test_on_a_cpu_the_number_of_threads_changes_nothing_and_is_left_as_it_was(network, either_scheduler):
    seen, before = [], torch.get_num_threads()
    network.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        SeededSampler(either_scheduler, "ddim", 2)(torch.arange(2), network)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with pytest.raises(AttributeError):
            SeededSampler(either_scheduler, "ddim", 2)(torch.arange(2), None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_steps_that_nobody_names_are_the_samplers(scheduler):
    assert {name: SeededSampler(scheduler, name).steps for name in SAMPLERS} == {
        "ddpm": 1000, "ddim": 25, "dpmsolver++": 25, "sde-dpmsolver++": 25
    }  # fmt: skip
    assert SeededSampler(DDPMScheduler(10), "ddim").steps == 10


def test_settings_tell_schedule_device_and_precision_apart(make_network, scheduler):
    draw = SeededSampler(scheduler)
    plain = folder_settings("m", make_network(), "cpu", draw)
    assert plain == folder_settings("m", make_network(), torch.device("cpu"), SeededSampler(scheduler))
    others = [
        folder_settings("m", make_network(), "cuda:1", draw),
        folder_settings("m", make_network(amp_dtype="bfloat16"), "cpu", draw),
        folder_settings("m", make_network(), "cpu", SeededSampler(DDPMScheduler(1000, beta_end=0.03))),
    ]
    for key, changed in zip(("device", "amp_dtype", "schedule"), others, strict=True):
        assert {name for name in plain if plain[name] != changed[name]} == {key}


def test_ddpm_is_the_stock_pipeline(network, scheduler):
    pipeline: Any = DDPMPipeline(network.unet, DDPMScheduler.from_config(scheduler.config, timestep_spacing="trailing"))
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(image_seed(5, number)) for number in (3, 4)]
    stock = pipeline(batch_size=2, num_inference_steps=10, generator=generators, output_type="pt", return_dict=False)[0]
    images = SeededSampler(scheduler, "ddpm", 10, seed=5)(torch.tensor([3, 4]), network)
    torch.testing.assert_close(images, stock, atol=1e-5, rtol=0)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 10**6), min_size=2, max_size=20, unique=True))
def test_numbers_never_share_a_seed(seed, numbers):
    assert len({image_seed(seed, number) for number in numbers}) == len(numbers)


def test_images_are_in_range_and_of_the_networks_shape(make_network, scheduler):
    network = make_network(size=(16, 32), channels=3)
    images = SeededSampler(scheduler, "ddim", 3)(torch.arange(2), network)
    assert image_shape(network) == (3, 16, 32)
    assert images.shape == (2, 3, 16, 32)
    assert images.min() >= 0
    assert images.max() <= 1


def test_an_unknown_sampler_is_refused_with_the_known_ones(scheduler):
    with pytest.raises(TskdError, match="ddpm, ddim, dpmsolver"):
        SeededSampler(scheduler, "euler")


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_outside_the_schedule_are_refused(scheduler, steps):
    with pytest.raises(TskdError, match="1 to 1000"):
        SeededSampler(scheduler, steps=steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_number_of_steps_is_walked_down_to_the_image(sampler):
    """Diffusers' own trailing timesteps end at -1 for 62 numbers of steps, 61 among them, where DDIM draws noise."""
    scheduler = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    for steps in (*range(1, 1001, 17), 25, 61, 103, 121, 206, 998, 1000):
        draw = SeededSampler(scheduler, sampler, steps)
        draw._set_timesteps(torch.device("cpu"))
        walk = draw.scheduler.timesteps.tolist()
        assert len(walk) == steps
        assert walk == sorted(set(walk), reverse=True)
        assert walk[-1] >= 0
        if sampler != "ddpm":
            assert walk[0] == 999


def test_the_default_sampler_is_the_one_that_was_measured_to_be_better():
    measured = {None: "sde-dpmsolver++", 20: "sde-dpmsolver++", 25: "sde-dpmsolver++", 19: "dpmsolver++"}
    assert {steps: default_sampler(steps) for steps in measured} == measured
