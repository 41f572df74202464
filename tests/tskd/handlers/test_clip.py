"""The gradient's norm is limited where it is complete, and nowhere else."""

import pytest
import torch
from monai.engines import IterationEvents, SupervisedTrainer

from tskd.handlers import ClipGradients


def gradients(batches: list[float], accumulation_steps: int, max_norm: float) -> list[float]:
    """Norm of the gradient after each backward pass, as the optimizer would see it."""
    network = torch.nn.Linear(1, 1, bias=False)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.tensor([[x]]), "label": torch.zeros(1, 1)} for x in batches],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=lambda pred, label: pred.sum(),  # so the gradient of a batch is its value
        accumulation_steps=accumulation_steps,
        decollate=False,
    )
    found: list[float] = []
    ClipGradients(network, max_norm).attach(trainer)
    trainer.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED, lambda: found.append(network.weight.grad.norm().item())
    )
    trainer.run()
    return found


def test_only_a_large_gradient_is_scaled_down():
    assert gradients([0.5, 8.0, 2.0], 1, 1.0) == pytest.approx([0.5, 1.0, 1.0], abs=1e-4)


def test_a_gradient_that_is_still_added_up_is_left_alone():
    """Two batches an update, and the rest of the epoch is an update of its own."""
    assert gradients([8.0, 2.0, 6.0], 2, 1.0) == pytest.approx([4.0, 1.0, 1.0], abs=1e-4)
    assert gradients([8.0, -7.0, 0.5], 2, 1.0) == pytest.approx([4.0, 0.5, 0.25], abs=1e-4)
