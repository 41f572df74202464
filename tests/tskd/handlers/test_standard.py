"""The handlers that every training needs, as one: what they write, and that only the first process writes."""

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, SupervisedEvaluator

from tskd import ranks
from tskd.handlers import StandardHandlers

FILES = {"train_log.csv", "tensorboard", "versions.json"}


def evaluator() -> SupervisedEvaluator:
    item = {"image": torch.zeros(1, 1), "label": torch.zeros(1, 1)}
    return SupervisedEvaluator(torch.device("cpu"), [item], torch.nn.Identity(), decollate=False)


def run(folder: Path, epochs: int, validator: Engine | None, **options: int) -> tuple[Engine, list[float], list[float]]:
    """A training with random losses: engine, losses, learning rates."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    losses, rates = [], []

    def step(_engine: Engine, _batch: int) -> dict[str, torch.Tensor]:
        losses.append(torch.rand(()).item())
        rates.append(optimizer.param_groups[0]["lr"])
        return {"loss": torch.tensor(losses[-1])}

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: engine.fire_event(IterationEvents.MODEL_COMPLETED))
    StandardHandlers(folder, 3, schedule, "toy", validator, **options).attach(engine)
    engine.run([0, 1], max_epochs=epochs)
    return engine, losses, rates


def test_seed_learning_rate_validation_and_logs(tmp_path: Path) -> None:
    validator = evaluator()
    validated: list[int] = []
    validator.add_event_handler(Events.COMPLETED, lambda: validated.append(validator.state.epoch))
    torch.manual_seed(1)
    _, losses, rates = run(tmp_path / "one", 3, validator, val_interval=2)
    torch.manual_seed(2)
    assert run(tmp_path / "two", 3, None)[1] == losses  # the seed is the run's, not the process's
    assert rates == [0.5**step for step in range(6)]
    assert validated == [2]
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES
    assert json.loads((tmp_path / "one/versions.json").read_text())["iterations"] == 6
    assert len((tmp_path / "one/train_log.csv").read_text().splitlines()) == 1 + 3


def test_later_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "is_first", lambda: False)
    run(tmp_path, 1, evaluator())
    assert not list(tmp_path.iterdir())
