"""The learning rate is the published one at every step."""

import pytest
import torch
from monai.optimizers import WarmupCosineSchedule

from tskd.errors import TskdError
from tskd.schedules import warmup_schedule


def optimizer(rate: float = 0.005) -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates(schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    learning_rates = []
    for _ in range(steps):
        learning_rates.append(float(schedule.get_last_lr()[0]))
        schedule.optimizer.step()
        schedule.step()
    return learning_rates


def test_poly_is_sameds():
    """The rule of SAMed's trainer.py, written out."""
    base, warmup, total, expected = 0.005, 5, 40, []
    for iteration in range(total):
        if iteration < warmup:
            expected.append(base * (iteration + 1) / warmup)
        else:
            expected.append(base * (1.0 - (iteration - warmup) / total) ** 0.9)
    assert rates(warmup_schedule(optimizer(), "poly", warmup, total), total) == pytest.approx(expected)


def test_cosine_is_monais():
    schedule = warmup_schedule(optimizer(), "cosine", 5, 40, end=0.1)
    stock = WarmupCosineSchedule(optimizer(), warmup_steps=5, t_total=40, end_lr=0.0005)
    assert rates(schedule, 40) == pytest.approx(rates(stock, 40))


def test_cosine_stays_at_its_end():
    assert rates(warmup_schedule(optimizer(), "cosine", 5, 20), 30)[20:] == [0] * 10


def test_poly_without_warm_up_and_beyond_the_end():
    learning_rates = rates(warmup_schedule(optimizer(1.0), "poly", 0, 10), 15)
    assert learning_rates[0] == pytest.approx(1.0)
    assert learning_rates == sorted(learning_rates, reverse=True)
    assert learning_rates[9:] == [pytest.approx(0.1**0.9), 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["poly", "cosine"])
@pytest.mark.parametrize(("steps", "total"), [(8, 20), (20, 40)])
def test_continues_from_its_state_on_the_schedule_of_the_whole(kind, steps, total):
    """Also where the training was to end at the step it is continued from, and is made longer."""
    whole = rates(warmup_schedule(optimizer(), kind, 3, total), total)
    first = warmup_schedule(optimizer(), kind, 3, 20)
    rates(first, steps)
    second_optimizer = optimizer()
    second = warmup_schedule(second_optimizer, kind, 3, total)
    second.load_state_dict(first.state_dict())
    second_optimizer.load_state_dict(first.optimizer.state_dict())
    resumed = rates(second, total - steps)
    assert resumed[1:] == pytest.approx(whole[steps + 1 :])
    assert resumed[0] == pytest.approx(whole[steps] if total == 20 else first.get_last_lr()[0])  # the checkpoint's last


def test_a_warm_up_longer_than_the_training_is_said(caplog):
    warmup_schedule(optimizer(), "cosine", 250, 200)
    assert "warmup_steps = 250" in caplog.text


def test_unknown_kind():
    with pytest.raises(TskdError, match="expected cosine or poly, found 'linear'"):
        warmup_schedule(optimizer(), "linear", 0, 10)
