"""One batch of a distillation: what the engine gets from it, and the step it makes of it."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.nn import functional

from tskd.distillation import AugmentedBatch, BatchAugmentation, DistillationLoss, Term, distillation_step
from tskd.errors import TskdError
from tskd.losses import LogitsKLLoss
from tskd.networks import TappedNetwork

BATCH: dict[str, Any] = {
    "image": MetaTensor(torch.rand(2, 1, 8, 8)),
    "label": MetaTensor(torch.randint(0, 3, (2, 1, 8, 8), dtype=torch.uint8)),
    "logits": torch.randn(2, 3, 4, 4),
    "embedding": torch.randn(2, 5, 2, 2),
    "case": ["a", "b"],
}
IDENTITY = {"rotate": 0, "scale": 0, "translate": 0, "shear": 0, "gamma": 0, "brightness": 0, "noise": 0, "blur": 0}


def test_one_target_is_a_tensor():
    image, label = AugmentedBatch(None)(BATCH, "cpu")
    assert type(image) is type(label) is torch.Tensor
    assert torch.equal(image, BATCH["image"].as_tensor())
    assert torch.equal(label, BATCH["label"].as_tensor())


def test_several_targets_are_a_dict_without_the_rest():
    target: Any
    image, target = AugmentedBatch(None, targets=["logits", "embedding"])(BATCH, "cpu")
    assert torch.equal(image, BATCH["image"].as_tensor())
    assert list(target) == ["logits", "embedding"]
    assert all(torch.equal(target[key], BATCH[key]) for key in target)


def test_a_list_of_one_target_is_a_dict_too():
    _, target = AugmentedBatch(None, targets=["embedding"])(BATCH, "cpu")
    assert list(target) == ["embedding"]


def test_augments_image_and_target_together():
    mirror = AugmentedBatch(BatchAugmentation(**IDENTITY, flip=1), targets=["logits", "label"])
    target: Any
    image, target = mirror(BATCH, "cpu")
    torch.testing.assert_close(image, BATCH["image"].as_tensor().flip(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(target["logits"], BATCH["logits"].flip(2), atol=1e-5, rtol=0)
    assert torch.equal(target["label"], BATCH["label"].as_tensor().flip(2))


def test_float16_soft_labels_become_float32_here():
    batch = {**BATCH, "logits": BATCH["logits"].half()}
    target: Any
    for augmentation in (None, BatchAugmentation(**IDENTITY)):
        _, target = AugmentedBatch(augmentation, targets=["logits", "label"])(batch, "cpu")
        assert target["logits"].dtype == torch.float32
        torch.testing.assert_close(target["logits"], batch["logits"].float(), atol=1e-5, rtol=0)
        assert target["label"].dtype == torch.uint8


def student() -> TappedNetwork:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    return TappedNetwork(network, tap="2", embedding_channels=5, example_shape=(1, 1, 8, 8))


def trainer(network: TappedNetwork, steps: int = 1, **options: Any) -> SupervisedTrainer:
    """An epoch of five batches of 2, with augmentation."""
    kl = Term(LogitsKLLoss(temperature=2.0), 0.3, "logits", "logits")
    mse = Term(nn.MSELoss(), 0.7, "embedding", "embedding", resample="student")
    torch.manual_seed(1)
    batches = [
        {"image": torch.rand(2, 1, 8, 8), "logits": torch.randn(2, 3, 4, 4), "embedding": torch.randn(2, 5, 2, 2)}
        for _ in range(5)
    ]
    return SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=DistillationLoss({"logits_kl": kl, "embedding": mse}),
        prepare_batch=AugmentedBatch(options.pop("augmentation", None), targets=["logits", "embedding"]),
        accumulation_steps=steps,
        decollate=False,
        **options,
    )


@pytest.mark.parametrize("steps", [1, 2])
def test_the_step_is_monais_own_bit_by_bit(steps: int):
    """Also where the accumulated batches do not divide the epoch; every event comes in its place."""
    trained, seen = [], []
    for options in ({}, {"iteration_update": distillation_step}):
        network = student()
        events: list[Any] = []
        losses: list[Any] = []
        engine = trainer(network, steps, augmentation=BatchAugmentation(rotate=15), **options)
        for event in IterationEvents:
            if event in engine._allowed_events:
                engine.add_event_handler(event, lambda _engine, log, name: log.append(name), events, event.value)
        engine.add_event_handler(
            IterationEvents.MODEL_COMPLETED, lambda engine, log: log.append(engine.state.output["loss"].item()), losses
        )
        torch.manual_seed(2)
        engine.run()
        trained.append(network.state_dict())
        seen.append((events, losses, sorted(engine.state.output)))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) == 10
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_the_step_is_the_plain_formula():
    """Weights after one step of gradient descent, against the definition of the terms in float64."""
    network, plain = student(), student().double()
    engine = trainer(network, iteration_update=distillation_step)
    engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda engine: engine.terminate())
    (first, *_) = engine.data_loader
    batch = {name: value.double() for name, value in first.items()}
    engine.run()

    def resized(x: Tensor, size: int) -> Tensor:
        return functional.interpolate(x, size=(size, size), mode="bilinear")

    outputs = plain.train()(batch["image"])
    teacher = (resized(batch["logits"], 8) / 2).softmax(1)
    kl = 4 * (teacher * (teacher.log() - (outputs["logits"] / 2).log_softmax(1))).sum(1).mean()
    embedding = (resized(outputs["embedding"], 2) - batch["embedding"]).square().mean()
    (0.3 * kl + 0.7 * embedding).backward()
    for moved, start in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(moved.detach().double(), (start - 0.1 * start.grad).detach(), atol=1e-6, rtol=0)


def test_monais_amp_is_refused_with_the_key_to_set():
    engine = trainer(student(), iteration_update=distillation_step)
    engine.amp = True
    with pytest.raises(TskdError, match=r"train#trainer#amp: expected False.* amp_dtype"):
        distillation_step(engine, next(iter(engine.data_loader)))
