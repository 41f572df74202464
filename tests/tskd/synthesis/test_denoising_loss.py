"""The loss is zero at identity and weighs as published."""

import pytest
import torch
from diffusers.training_utils import compute_snr

from tskd.synthesis import DiffusionLoss


def test_zero_where_the_prediction_is_the_target(scheduler):
    values, timesteps = torch.randn(4, 1, 8, 8), torch.tensor([0, 10, 500, 999])
    for gamma in (None, 5.0):
        assert DiffusionLoss(scheduler, gamma)(values, (values.clone(), timesteps)) == 0


def test_without_weights_it_is_the_mean_squared_error():
    prediction, values = torch.randn(2, 4, 1, 8, 8)
    expected = torch.nn.functional.mse_loss(prediction, values)
    torch.testing.assert_close(DiffusionLoss()(prediction, (values, torch.arange(4))), expected)


def test_min_snr_weights_are_those_of_the_paper(scheduler):
    timesteps, gamma = torch.tensor([0, 3, 50, 300, 700, 990]), 5.0
    snr = compute_snr(scheduler, timesteps)
    expected = torch.minimum(snr, torch.tensor(gamma))
    expected = expected / snr if scheduler.config.prediction_type == "epsilon" else expected / (snr + 1)
    torch.testing.assert_close(DiffusionLoss(scheduler, gamma).weights(timesteps), expected)


def test_weights_apply_image_by_image(scheduler):
    loss, timesteps = DiffusionLoss(scheduler, 5.0), torch.tensor([2, 800])
    prediction, values = torch.randn(2, 2, 1, 8, 8)
    single = (prediction - values).square().mean((1, 2, 3))
    expected = (single * loss.weights(timesteps)).mean()
    torch.testing.assert_close(loss(prediction, (values, timesteps)), expected)


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\).*\(2, 1, 4, 4\)"):
        DiffusionLoss()(torch.zeros(2, 1, 8, 8), (torch.zeros(2, 1, 4, 4), torch.zeros(2)))


@pytest.mark.parametrize("gamma", [0, -1.0])
def test_a_gamma_that_is_not_positive_is_refused(scheduler, gamma):
    with pytest.raises(ValueError, match="min_snr_gamma"):
        DiffusionLoss(scheduler, gamma)
