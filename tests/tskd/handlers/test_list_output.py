"""The output of a real trainer, as the trackers and the other handlers see it."""

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import from_engine

from tskd.errors import TskdError
from tskd.handlers import ListOutput, StopOnNonFinite


def trainer(images: list[float]) -> SupervisedTrainer:
    """Two cases a batch, one weight."""
    network = torch.nn.Linear(1, 1)
    batches = [
        {"image": torch.full((2, 1), value), "label": torch.zeros(2, 1), "case": [f"{i}a", f"{i}b"]}
        for i, value in enumerate(images)
    ]
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.0),
        loss_function=torch.nn.MSELoss(),
        decollate=False,
    )


def test_trackers_read_the_loss_and_it_stays_a_tensor() -> None:
    engine = trainer([1.0, 2.0])
    ListOutput().attach(engine)
    losses: list[torch.Tensor] = []
    read = from_engine(["loss"], first=True)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(read(engine.state.output)))
    engine.run()
    weight, bias = (p.item() for p in engine.network.parameters())
    assert all(isinstance(loss, torch.Tensor) for loss in losses)
    assert [loss.item() for loss in losses] == pytest.approx([(weight + bias) ** 2, (2 * weight + bias) ** 2], rel=1e-5)


def test_a_bad_batch_is_still_named() -> None:
    engine = trainer([1.0, float("nan")])
    ListOutput().attach(engine)
    StopOnNonFinite(interval=2).attach(engine)
    with pytest.raises(TskdError, match="iteration 2, cases 1a, 1b"):
        engine.run()
