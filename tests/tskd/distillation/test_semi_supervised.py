"""The semi-supervised recipe: its special cases equal their plain formulas in float64, and CutMix moves all alike."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tskd.distillation import SemiSupervisedBatch
from tskd.distillation.semi_supervised import agreement, boxes, mixed
from tskd.errors import TskdError
from tskd.handlers import BatchNormStatistics
from tskd.inferers import AutocastInferer
from tskd.losses import PseudoLabelLoss


@pytest.fixture
def average() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)).double()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Two labelled images and four others."""
    torch.manual_seed(0)
    label = torch.full((6, 1, 16, 16), 255, dtype=torch.uint8)
    label[:2] = 1
    logits = 3 * torch.randn(6, 3, 16, 16, dtype=torch.float64)
    return {"image": torch.rand(6, 1, 16, 16, dtype=torch.float64), "label": label, "logits": logits}


@torch.no_grad()
def taught(recipe: SemiSupervisedBatch, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """What the recipe makes of a batch on the device, in the batch's own precision."""
    return recipe.teach(batch["image"], {key: value for key, value in batch.items() if key != "image"})


def student_loss(image: Tensor, target: dict[str, Tensor], student: nn.Module, **options) -> Tensor:
    return PseudoLabelLoss(**options)(student(image)[2:], target["logits"][2:], target["weight"][2:])


def test_a_ratio_of_0_is_distillation(batch, average):
    """KL of the cached teacher on every pixel."""
    student = nn.Conv2d(1, 3, 1).double()
    image, target = taught(SemiSupervisedBatch(None, average, 0, threshold=0, cutmix=0), batch)
    p, q = batch["logits"][2:].softmax(1), student(batch["image"])[2:].softmax(1)
    expected = (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(student_loss(image, target, student), expected, atol=1e-12, rtol=1e-12)


def test_a_ratio_of_1_is_fixmatch(batch, average):
    """Cross-entropy with the average's confident classes, on the strong view, over all pixels; no teacher is read."""
    student, strong = nn.Conv2d(1, 3, 1).double(), Halve()
    recipe = SemiSupervisedBatch(None, average, 1, threshold=0.5, cutmix=0, strong=strong)
    assert "logits" not in recipe.targets
    image, target = taught(recipe, {key: batch[key] for key in ("image", "label")})
    with torch.no_grad():
        own = average.eval()(batch["image"])[2:].softmax(1)
    best, classes = own.max(1)
    log_q = student(batch["image"][2:] / 2).log_softmax(1)
    expected = -(log_q.gather(1, classes[:, None])[:, 0] * (best >= 0.5)).mean()
    torch.testing.assert_close(student_loss(image, target, student, hard=True), expected, atol=1e-12, rtol=1e-12)
    assert 0 < target["weight"].mean() < 1
    assert torch.equal(image[:2], batch["image"][:2])  # labelled images stay in their weak view


def test_mean_teacher(batch, average):
    student = nn.Conv2d(1, 3, 1).double()
    image, target = taught(SemiSupervisedBatch(None, average, 1, threshold=0, cutmix=0), batch)
    with torch.no_grad():
        own = average.eval()(batch["image"])[2:].softmax(1)
    expected = (student(batch["image"])[2:].softmax(1) - own).square().sum(1).mean()
    torch.testing.assert_close(student_loss(image, target, student, kind="mse"), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("ratio", [0, 0.3, 1, "agreement"])
def test_the_average_is_asked_only_for_images_that_are_taught(batch, average, ratio):
    asked: list[int] = []
    average.register_forward_pre_hook(lambda _, arguments: asked.append(len(arguments[0])))
    whole, apart = (SemiSupervisedBatch(None, average, ratio, 0.5, cutmix=0, images=images)
                    for images in ("all", "unlabelled"))  # fmt: skip
    (image, target), (same_image, same) = taught(whole, batch), taught(apart, batch)
    assert asked == ([] if ratio == 0 else [6, 4])
    assert torch.equal(image, same_image)
    for key in ("logits", "weight"):
        torch.testing.assert_close(target[key][2:], same[key][2:], atol=1e-12, rtol=1e-12)
    assert same["logits"].shape == (6, 3, 16, 16)


def test_a_fixed_ratio_and_agreement(batch):
    teacher, own = batch["logits"].softmax(1), batch["logits"].roll(1, 0).softmax(1)
    torch.testing.assert_close(mixed(teacher, own, 0.25), 0.75 * teacher + 0.25 * own)
    r = agreement(teacher, own) / 2
    torch.testing.assert_close(mixed(teacher, own, "agreement"), (1 - r) * teacher + r * own)
    torch.testing.assert_close(agreement(teacher, teacher), torch.ones(6, 1, 1, 1, dtype=torch.float64))
    assert (agreement(teacher, own) < 1).all()


def test_cutmix_moves_image_label_and_weights_alike(average):
    """Every unlabelled image holds its number in all that it has; after CutMix all keys show the same numbers."""
    torch.manual_seed(0)
    number = torch.arange(8, dtype=torch.float64).view(8, 1, 1, 1).expand(8, 1, 32, 32)
    label = torch.full((8, 1, 32, 32), 255, dtype=torch.uint8)
    label[0] = 1
    share = (number + 1) / 10
    batch = {"image": share, "label": label, "logits": torch.cat([1 - share, share], 1).log(), "depth": number}
    recipe = SemiSupervisedBatch(None, average, 0, threshold=0.55, cutmix=1, targets=("label", "logits", "depth"))
    image, target = taught(recipe, batch)
    mixed_in = (image != share).flatten(1).any(1)
    assert mixed_in.sum() >= 4
    assert not mixed_in[0]
    assert torch.equal(target["label"], label)
    torch.testing.assert_close((target["depth"] + 1) / 10, image)
    torch.testing.assert_close(target["logits"].exp()[:, 1:], image)
    confident = torch.maximum(image, 1 - image) >= 0.55
    assert torch.equal(target["weight"].bool(), confident)


def test_cutmix_moves_a_target_of_another_size_where_the_box_covers_half_a_cell(average):
    """An embedding of a quarter of the size: a cell is another image's where most of its pixels are."""
    torch.manual_seed(0)
    number = torch.arange(8, dtype=torch.float64).view(8, 1, 1, 1)
    label = torch.full((8, 1, 32, 32), 255, dtype=torch.uint8)
    batch = {
        "image": number.expand(8, 1, 32, 32), "label": label, "logits": number.expand(8, 2, 32, 32),
        "embedding": number.expand(8, 5, 8, 8),
    }  # fmt: skip
    recipe = SemiSupervisedBatch(None, average, 0, 0, cutmix=1, targets=("label", "logits", "embedding"))
    image, target = taught(recipe, batch)
    shares = functional.avg_pool2d((image != batch["image"]).double(), 4)
    moved = target["embedding"] != batch["embedding"]
    assert torch.equal(moved, (shares > 0.5).expand(8, 5, 8, 8))
    assert moved.flatten(1).any(1).sum() >= 4
    inside = moved[:, :1] & (shares == 1)
    assert torch.equal(target["embedding"][:, :1][inside], functional.avg_pool2d(image, 4)[inside])


def test_the_average_has_the_precision_of_the_training(batch, average):
    """bfloat16 has 8 bits of mantissa: the pseudo-label differs from float32's by less than 1%, and is not the same."""
    average.float()
    batch = {key: value.float() if value.is_floating_point() else value for key, value in batch.items()}
    recipes = [SemiSupervisedBatch(None, average, 1, 0, cutmix=0, inferer=AutocastInferer(name)) for name in
               ("float32", "bfloat16")]  # fmt: skip
    (_, plain), (_, rounded) = (taught(recipe, batch) for recipe in recipes)
    assert rounded["logits"].dtype == torch.float32
    torch.testing.assert_close(plain["logits"].exp(), rounded["logits"].exp(), atol=0.01, rtol=0)
    assert not torch.equal(plain["logits"], rounded["logits"])


def test_statistics_of_the_average_can_be_estimated_anew(batch, average):
    """They come from the student's views, of a network in training; that it labels them on the way must not end it."""
    recipe = SemiSupervisedBatch(None, average.float(), "agreement", 0, cutmix=0, strong=Halve())
    seen: list[Tensor] = []

    def prepare(*arguments: Any, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = recipe(*arguments, **options)
        seen.append(image)
        return image, target

    state = SimpleNamespace(device="cpu", dataloader=[batch, batch])
    engine = SimpleNamespace(state=state, non_blocking=False, prepare_batch=prepare)
    BatchNormStatistics(average, 2, interval=1)(engine)
    with torch.no_grad():
        features = average[0](seen[0])
    torch.testing.assert_close(average[1].running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(average[1].running_var, features.var((0, 2, 3)))


def test_boxes_are_rectangles_of_the_areas_asked_for():
    torch.manual_seed(0)
    found = boxes(300, (40, 40), 0.5, torch.device("cpu"))
    areas = found.double().mean((1, 2, 3))
    assert 0.4 < (areas > 0).double().mean() < 0.6
    assert areas.max() < 0.45
    rectangle = found.any(2, keepdim=True) & found.any(3, keepdim=True)
    assert torch.equal(rectangle, found)


def test_the_loss_is_0_at_identity_and_refuses_other_kinds(batch):
    ones = torch.ones(6, 1, 16, 16, dtype=torch.float64)
    assert PseudoLabelLoss()(batch["logits"], batch["logits"], ones).abs() < 1e-12
    with pytest.raises(TskdError, match="expected kind cross_entropy or mse, found 'l1'"):
        PseudoLabelLoss("l1")
    with pytest.raises(TskdError, match="expected a number from 0 to 1 or agreement, found 2"):
        SemiSupervisedBatch(None, nn.Identity(), 2)
    with pytest.raises(TskdError, match="taught_images: expected all or unlabelled, found 'some'"):
        SemiSupervisedBatch(None, nn.Identity(), images="some")


class Halve(nn.Module):
    """A strong view that can be recomputed."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"image": batch["image"] / 2}
