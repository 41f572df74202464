"""Properties that every distillation loss has, and a plain float64 reference for each."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from common.errors import TskdError
from common.losses import EmbeddingLoss, LogitsKLLoss, SoftDiceLoss


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def kl_reference(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    """Pixel by pixel, class by class."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    values = [
        sum(p[b, c, i, j] * np.log(p[b, c, i, j] / q[b, c, i, j]) for c in range(p.shape[1]))
        for b in range(p.shape[0])
        for i in range(p.shape[2])
        for j in range(p.shape[3])
    ]
    return temperature**2 * float(np.mean(values))


def dice_reference(student: np.ndarray, teacher: np.ndarray, first: int) -> float:
    p, q = softmax(student), softmax(teacher)
    values = []
    for c in range(first, p.shape[1]):
        a, b = p[:, c].ravel(), q[:, c].ravel()
        values.append(1 - 2 * np.dot(a, b) / (np.dot(a, a) + np.dot(b, b)))
    return float(np.mean(values))


def mse_reference(student: np.ndarray, teacher: np.ndarray) -> float:
    return float(np.mean((student - teacher) ** 2) / np.var(teacher, ddof=1))


def cosine_reference(student: np.ndarray, teacher: np.ndarray) -> float:
    norms = np.linalg.norm(student, axis=1) * np.linalg.norm(teacher, axis=1)
    return float(np.mean(1 - (student * teacher).sum(1) / norms))


LOSSES = {
    "kl": (LogitsKLLoss(2.0), lambda s, t: kl_reference(s, t, 2.0)),
    "kl T=1": (LogitsKLLoss(1.0), lambda s, t: kl_reference(s, t, 1.0)),
    "dice": (SoftDiceLoss(), lambda s, t: dice_reference(s, t, 1)),
    "dice with background": (SoftDiceLoss(include_background=True), lambda s, t: dice_reference(s, t, 0)),
    "mse": (EmbeddingLoss("mse"), mse_reference),
    "cosine": (EmbeddingLoss("cosine"), cosine_reference),
}
SHAPE = (2, 3, 4, 5)

each_loss = pytest.mark.parametrize("name", LOSSES)


def loss_of(name: str) -> nn.Module:
    return LOSSES[name][0]


def pair(scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(SHAPE, generator=generator), scale * torch.randn(SHAPE, generator=generator)


@each_loss
def test_equals_the_reference(name):
    student, teacher = pair()
    expected = LOSSES[name][1](student.double().numpy(), teacher.double().numpy())
    assert float(loss_of(name)(student, teacher)) == pytest.approx(expected, rel=1e-4)


@each_loss
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_zero_at_identity_and_never_negative(name, data):
    eighths = arrays(np.int16, SHAPE, elements=st.integers(-240, 240))  # -30 to 30
    student, teacher = (torch.from_numpy(data.draw(eighths)) / 8 for _ in range(2))
    assert float(loss_of(name)(student, teacher)) >= -1e-6
    teacher = teacher + 0.125 * (teacher.abs().amax(1, keepdim=True) == 0)  # a vector of zeros has no direction
    assert float(loss_of(name)(teacher, teacher)) == pytest.approx(0, abs=1e-6)


@each_loss
def test_grows_with_the_distance(name):
    student, teacher = pair()
    values = [float(loss_of(name)(teacher + step * (student - teacher), teacher)) for step in (0.1, 0.5, 1.0)]
    assert 0 < values[0] < values[1] < values[2]


@each_loss
def test_only_the_student_gets_a_gradient(name):
    student, teacher = (value.requires_grad_() for value in pair())
    loss_of(name)(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0


@each_loss
def test_gradient_vanishes_at_identity(name):
    _, teacher = pair()
    student = teacher.clone().requires_grad_()
    loss_of(name)(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_float32(name, dtype):
    student, teacher = (value.to(dtype) for value in pair(30.0))
    exact = loss_of(name)(student.float(), teacher.float())
    value = loss_of(name)(student.requires_grad_(), teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)
    value.backward()
    assert torch.isfinite(student.grad).all()


@each_loss
def test_autocast_changes_nothing(name):
    student, teacher = pair()
    exact = loss_of(name)(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss_of(name)(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, atol=1e-6, rtol=1e-6)


@each_loss
def test_volumes(name):
    """A volume of one slice is worth what the image is."""
    student, teacher = pair()
    value = loss_of(name)(student[..., None], teacher[..., None])
    torch.testing.assert_close(value, loss_of(name)(student, teacher))


@each_loss
@pytest.mark.parametrize(
    ("one", "other"), [((2, 3, 4, 4), (2, 3, 8, 8)), ((2, 3, 4, 4), (2, 5, 4, 4)), ((2, 3), (2, 3))]
)
def test_wrong_shapes_are_both_named(name, one, other):
    with pytest.raises(TskdError) as caught:
        loss_of(name)(torch.zeros(one), torch.zeros(other))
    message = str(caught.value)
    assert type(loss_of(name)).__name__ in message
    assert f"found {one} and {other}" in message


def test_kl_is_scaled_so_that_its_gradient_keeps_its_size():
    """Hinton's T squared: for large T the gradient no longer depends on T."""
    gradients = []
    for temperature in (50.0, 100.0):
        student, teacher = pair(1.0)
        LogitsKLLoss(temperature)(student.requires_grad_(), teacher).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients, rtol=0.05, atol=1e-4)


def test_dice_weighs_a_small_organ_like_a_large_one():
    teacher = torch.full((1, 3, 16, 16), -20.0)
    teacher[:, 0] = 0
    teacher[:, 1, :, :12] = 20  # 192 pixels
    teacher[:, 2, 8:10, 14:] = 20  # 4 pixels
    losses = []
    for organ in (1, 2):
        student = teacher.clone()
        student[:, organ] = -20  # this organ is missed altogether
        losses.append(float(SoftDiceLoss()(student, teacher)))
    assert losses == pytest.approx([0.5, 0.5], abs=1e-4)


def test_mse_does_not_depend_on_the_teachers_scale():
    student, teacher = pair()
    torch.testing.assert_close(EmbeddingLoss()(10 * student, 10 * teacher), EmbeddingLoss()(student, teacher))


def test_cosine_looks_at_the_direction_only():
    student, teacher = pair()
    torch.testing.assert_close(EmbeddingLoss("cosine")(7 * student, teacher), EmbeddingLoss("cosine")(student, teacher))


def test_unknown_kind():
    with pytest.raises(TskdError, match="expected kind mse or cosine, found 'mae'"):
        EmbeddingLoss("mae")
