"""Properties that every distillation loss has, and a plain float64 reference for each."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from tskd.errors import TskdError
from tskd.losses import (
    AttentionTransferLoss,
    BoundaryKLLoss,
    ChannelWiseLoss,
    ConfidenceKLLoss,
    EmbeddingLoss,
    LogitsKLLoss,
    RegionAffinityLoss,
    SoftBCELoss,
    SoftDiceLoss,
)


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


def bce_reference(student: np.ndarray, teacher: np.ndarray, first: int) -> float:
    p, q = softmax(student)[:, first:], softmax(teacher)[:, first:]
    entropy = -q * np.log(q) - (1 - q) * np.log(1 - q)
    return float(np.mean(-q * np.log(p) - (1 - q) * np.log(1 - p) - entropy))


def weighted_kl(student: np.ndarray, teacher: np.ndarray, weight: np.ndarray) -> float:
    """KL at T = 2 of each pixel, with a weight a pixel."""
    p, q = softmax(teacher / 2), softmax(student / 2)
    return float((weight * 4 * (p * np.log(p / q)).sum(1)).sum() / weight.sum())


def confidence_reference(student: np.ndarray, teacher: np.ndarray, power: float) -> float:
    p = softmax(teacher)
    return weighted_kl(student, teacher, (1 + (p * np.log(p)).sum(1) / np.log(p.shape[1])) ** power)


def boundary_reference(student: np.ndarray, teacher: np.ndarray, sigma: float, floor: float) -> float:
    """The distance of each pixel to each pixel of the contour, one after the other."""
    weight = np.full((len(teacher), *teacher.shape[2:]), floor)
    for b, classes in enumerate(teacher.argmax(1)):
        h, w = classes.shape
        places = [(i, j) for i in range(h) for j in range(w)]
        edge = [
            (i, j)
            for i, j in places
            if any(
                0 <= k < h and 0 <= m < w and classes[k, m] != classes[i, j]
                for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
            )
        ]
        for i, j in places:
            for k, m in edge:
                weight[b, i, j] = max(weight[b, i, j], np.exp(-((i - k) ** 2 + (j - m) ** 2) / (2 * sigma**2)))
    return weighted_kl(student, teacher, weight)


def channel_reference(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    values = []
    for b in range(student.shape[0]):
        for c in range(student.shape[1]):
            p, q = (softmax(x[b, c].reshape(1, -1) / temperature)[0] for x in (teacher, student))
            values.append(temperature**2 * np.sum(p * np.log(p / q)))
    return float(np.mean(values))


def attention_reference(student: np.ndarray, teacher: np.ndarray, power: float) -> float:
    maps = [(np.abs(x) ** power).sum(1).reshape(len(x), -1) for x in (student, teacher)]
    student_map, teacher_map = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in maps)
    return float(np.mean(((student_map - teacher_map) ** 2).sum(1)))


def affinity_reference(student: np.ndarray, teacher: np.ndarray, regions: np.ndarray) -> float:
    masks, values = softmax(regions), []
    for b in range(len(masks)):
        present = [c for c in range(masks.shape[1]) if masks[b, c].max() > 0.5]
        for i in present:
            for j in present:
                if i < j:
                    cosines = []
                    for x in (student[b], teacher[b]):
                        u, v = ((x * masks[b, c]).sum((1, 2)) / masks[b, c].sum() for c in (i, j))
                        cosines.append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
                    values.append((cosines[0] - cosines[1]) ** 2)
    return float(np.mean(values))


class ByTeachersRegions(nn.Module):
    """Region affinity with the teacher's own channels as the regions' logits, to be called like the others."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return RegionAffinityLoss()(student, teacher, teacher)


LOSSES = {
    "kl": (LogitsKLLoss(2.0), lambda s, t: kl_reference(s, t, 2.0)),
    "kl T=1": (LogitsKLLoss(1.0), lambda s, t: kl_reference(s, t, 1.0)),
    "dice": (SoftDiceLoss(), lambda s, t: dice_reference(s, t, 1)),
    "dice with background": (SoftDiceLoss(include_background=True), lambda s, t: dice_reference(s, t, 0)),
    "mse": (EmbeddingLoss("mse"), mse_reference),
    "cosine": (EmbeddingLoss("cosine"), cosine_reference),
    "bce": (SoftBCELoss(), lambda s, t: bce_reference(s, t, 0)),
    "bce without background": (SoftBCELoss(include_background=False), lambda s, t: bce_reference(s, t, 1)),
    "confidence": (ConfidenceKLLoss(), lambda s, t: confidence_reference(s, t, 1)),
    "confidence squared": (ConfidenceKLLoss(power=2), lambda s, t: confidence_reference(s, t, 2)),
    "boundary": (BoundaryKLLoss(sigma=1.0), lambda s, t: boundary_reference(s, t, 1.0, 0.1)),
    "channel-wise": (ChannelWiseLoss(), lambda s, t: channel_reference(s, t, 4.0)),
    "attention": (AttentionTransferLoss(), lambda s, t: attention_reference(s, t, 2.0)),
    "affinity": (ByTeachersRegions(), lambda s, t: affinity_reference(s, t, t)),
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


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("attention", "affinity")])
@pytest.mark.parametrize(
    ("one", "other"), [((2, 3, 4, 4), (2, 3, 8, 8)), ((2, 3, 4, 4), (2, 5, 4, 4)), ((2, 3), (2, 3))]
)
def test_wrong_shapes_are_both_named(name, one, other):
    with pytest.raises(TskdError) as caught:
        loss_of(name)(torch.zeros(one), torch.zeros(other))
    message = str(caught.value)
    assert type(loss_of(name)).__name__ in message
    assert f"found {one} and {other}" in message


def test_attention_takes_other_channels_and_no_other_size():
    student, teacher = pair()
    assert AttentionTransferLoss()(student.repeat(1, 2, 1, 1), student) == pytest.approx(0, abs=1e-6)
    with pytest.raises(TskdError, match=r"of one size, found \(2, 3, 4, 5\) and \(2, 3, 5, 4\)"):
        AttentionTransferLoss()(student, teacher.transpose(2, 3))


def test_affinity_takes_other_channels_and_sizes():
    """Features twice as large with every pixel doubled have the same regions."""
    student, teacher = pair()
    large = student.repeat(1, 2, 1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    value = RegionAffinityLoss()(large, teacher, teacher)
    torch.testing.assert_close(value, RegionAffinityLoss()(student, teacher, teacher))
    with pytest.raises(TskdError, match=r"of one batch, found \(2, 3, 4, 5\), \(2, 3, 4, 5\) and \(1, 3, 4, 5\)"):
        RegionAffinityLoss()(student, teacher, teacher[:1])


@pytest.mark.parametrize(
    ("loss", "teacher"),
    [
        (ConfidenceKLLoss(), torch.zeros(SHAPE)),  # sure of nothing
        (BoundaryKLLoss(floor=0.0), torch.tensor([5.0, 0.0, 0.0])[None, :, None, None].expand(SHAPE)),  # no contour
        (ByTeachersRegions(), torch.tensor([5.0, 0.0, 0.0])[None, :, None, None].expand(SHAPE)),  # one region
    ],
    ids=["confidence", "boundary", "affinity"],
)
def test_everything_ignored_is_zero_with_a_zero_gradient(loss, teacher):
    student = pair()[0].requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_bce_has_the_gradient_of_the_cross_entropy():
    student, teacher = pair()
    gradients = []
    for loss in (SoftBCELoss(), lambda s, t: nn.functional.binary_cross_entropy(s.softmax(1), t.softmax(1))):
        student = student.detach().requires_grad_()
        loss(student, teacher).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_confidence_looks_away_where_the_teacher_doubts():
    student, teacher = pair()
    teacher[..., 2:] = 0
    changed = student.clone()
    changed[..., 2:] = 9 * torch.randn_like(changed[..., 2:])
    torch.testing.assert_close(ConfidenceKLLoss()(changed, teacher), ConfidenceKLLoss()(student, teacher))


def test_boundary_weighs_a_mistake_by_its_place():
    """The same mistake counts more at the organ's border than far from it."""
    teacher = torch.full((1, 2, 32, 32), 0.0)
    teacher[:, 1] = -6
    teacher[:, 1, :, 20:] = 6
    losses = []
    for column in (2, 14, 19):
        student = teacher.clone()
        student[:, 1, 10:14, column] = 0
        losses.append(float(BoundaryKLLoss()(student, teacher)))
    assert losses[0] < losses[1] < losses[2]


def test_channel_wise_does_not_see_a_shift_of_a_channel():
    student, teacher = pair()
    torch.testing.assert_close(
        ChannelWiseLoss()(student + torch.tensor([3.0, -2.0, 0.5])[:, None, None], teacher),
        ChannelWiseLoss()(student, teacher),
    )


@pytest.mark.parametrize("options", [{"sigma": 0}, {"floor": 1.5}, {"floor": -0.1}])
def test_boundary_options(options):
    with pytest.raises(TskdError, match=r"expected sigma > 0 and floor in 0\.\.1"):
        BoundaryKLLoss(**options)


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


@pytest.mark.parametrize(("kind", "power", "least"), [(AttentionTransferLoss, 0.5, 1), (ConfidenceKLLoss, -1, 0)])
def test_a_power_without_a_bounded_gradient(kind, power, least):
    with pytest.raises(TskdError, match=f"expected a power of {least} or more, found {power}"):
        kind(power=power)


def test_unknown_kind():
    with pytest.raises(TskdError, match="expected kind mse or cosine, found 'mae'"):
        EmbeddingLoss("mae")


@pytest.mark.parametrize("temperature", [0.0, -1.0])
@pytest.mark.parametrize("kind", [LogitsKLLoss, ConfidenceKLLoss, BoundaryKLLoss, ChannelWiseLoss])
def test_a_temperature_at_which_there_is_no_softmax(kind, temperature):
    with pytest.raises(TskdError, match=f"temperature above 0, found {temperature:g}"):
        kind(temperature)(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4))


def test_soft_dice_leaves_classes_out_that_the_teacher_sees_nowhere():
    teacher = torch.zeros(2, 4, 6, 6)
    teacher[:, 3] = -6  # nowhere the most likely one
    teacher[:, 1, :3], teacher[:, 2, 3:] = 5, 5
    student = torch.randn(2, 4, 6, 6, generator=torch.manual_seed(0))
    kept = SoftDiceLoss()(student, teacher)
    p, q = student.softmax(1), teacher.softmax(1)
    dice = [1 - 2 * (p[:, c] * q[:, c]).sum() / ((p[:, c] ** 2).sum() + (q[:, c] ** 2).sum()) for c in range(4)]
    torch.testing.assert_close(kept, (dice[1] + dice[2]) / 2)
    torch.testing.assert_close(SoftDiceLoss(only_present=False)(student, teacher), sum(dice[1:]) / 3)
    torch.testing.assert_close(SoftDiceLoss(include_background=True)(student, teacher), (dice[1] + dice[2]) / 2)
    empty = torch.zeros(1, 3, 4, 4)
    empty[:, 0] = 9
    assert SoftDiceLoss()(torch.randn(1, 3, 4, 4), empty) == 0
