"""The supervised loss: torch's cross-entropy and MONAI's Dice where all is labelled, blind to what is not."""

import pytest
import torch
from monai.losses import DiceLoss
from torch.nn import functional

from tskd.errors import TskdError
from tskd.losses import DiceCELoss

IGNORE = 255


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def label() -> torch.Tensor:
    """All four classes, none ignored."""
    return torch.randint(0, 4, (2, 1, 8, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_cross_entropy_equals_torch(logits, label):
    loss = DiceCELoss(dice_weight=0, ce_weight=1)
    torch.testing.assert_close(loss(logits, label), functional.cross_entropy(logits, label[:, 0].long()))


def test_weighted_cross_entropy_equals_torch(logits, label):
    weights = [0.1, 1, 2, 5]
    label[0, 0, :3] = IGNORE
    expected = functional.cross_entropy(logits, label[:, 0].long(), weight=torch.tensor(weights), ignore_index=IGNORE)
    loss = DiceCELoss(dice_weight=0, ce_weight=1, class_weights=weights)
    torch.testing.assert_close(loss(logits, label), expected)


@pytest.mark.parametrize("include_background", [True, False])
def test_dice_equals_monai(logits, label, include_background):
    reference = DiceLoss(
        softmax=True,
        to_onehot_y=True,
        batch=True,
        include_background=include_background,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )
    loss = DiceCELoss(dice_weight=1, ce_weight=0, include_background=include_background)
    torch.testing.assert_close(loss(logits, label), reference(logits, label))


def test_weighted_sum(logits, label):
    parts = [DiceCELoss(1, 0)(logits, label), DiceCELoss(0, 1)(logits, label)]
    torch.testing.assert_close(DiceCELoss(0.8, 0.2)(logits, label), 0.8 * parts[0] + 0.2 * parts[1])


def test_right_answer_costs_nothing(label):
    logits = 40 * functional.one_hot(label[:, 0].long(), 4).movedim(-1, 1).float()
    assert float(DiceCELoss()(logits, label)) == pytest.approx(0, abs=1e-5)


def test_ignored_pixels_have_no_influence(logits, label):
    label[:, :, :, 4:] = IGNORE
    loss = DiceCELoss(class_weights=[1, 2, 3, 4], include_background=True)
    # the same pixels cut off
    torch.testing.assert_close(loss(logits, label), loss(logits[..., :4], label[..., :4]))
    changed = logits.clone()
    changed[..., 4:] = 100 * torch.randn_like(changed[..., 4:])
    assert torch.equal(loss(logits, label), loss(changed, label))
    logits.requires_grad_()
    loss(logits, label).backward()
    assert not logits.grad[..., 4:].any()
    assert logits.grad[..., :4].abs().min() > 0


@pytest.mark.parametrize("class_weights", [None, [1, 2, 3, 4]])
def test_nothing_labelled_is_zero_with_a_zero_gradient(logits, label, class_weights):
    logits.requires_grad_()
    value = DiceCELoss(class_weights=class_weights)(logits, torch.full_like(label, IGNORE))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_absent_classes_do_not_count_in_dice(logits, label):
    """A slice without the liver says nothing about the liver's overlap."""
    label[label == 3] = 0
    loss, reference = DiceCELoss(1, 0), DiceLoss(softmax=True, to_onehot_y=True, batch=True, reduction="none")
    per_class = reference(logits, label).flatten()
    torch.testing.assert_close(loss(logits, label), per_class[1:3].mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(logits, label, dtype):
    half = (20 * logits).to(dtype)
    value = DiceCELoss()(half.requires_grad_(), label)
    assert value.dtype == torch.float32
    assert torch.equal(value, DiceCELoss()(half.float(), label))
    value.backward()
    assert torch.isfinite(half.grad).all()


def test_volumes(logits, label):
    torch.testing.assert_close(DiceCELoss()(logits[..., None], label[..., None]), DiceCELoss()(logits, label))


@pytest.mark.parametrize("shape", [(2, 8, 6), (2, 1, 16, 12), (2, 4, 8, 6), (1, 1, 8, 6)])
def test_wrong_shapes_are_both_named(logits, shape):
    with pytest.raises(TskdError) as caught:
        DiceCELoss()(logits, torch.zeros(shape))
    assert f"found (2, 4, 8, 6) and {shape}" in str(caught.value)


def test_a_weight_for_each_class(logits, label):
    with pytest.raises(TskdError, match=r"class_weights: expected one weight for each of the 4 classes.*found 3"):
        DiceCELoss(class_weights=[1, 2, 3])(logits, label)
