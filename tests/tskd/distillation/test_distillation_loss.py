"""The sum of named terms."""

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.nn import functional

from tskd.distillation import DistillationLoss, FollowSchedules, Linear, Term
from tskd.errors import TskdError
from tskd.losses import DiceCELoss, EmbeddingLoss, LogitsKLLoss, RegionAffinityLoss, SoftDiceLoss


class Shapes(nn.Module):
    """Records what it is given, and is worth their difference."""

    def forward(self, student: Tensor, target: Tensor) -> Tensor:
        self.seen = (student, target)
        return (student.mean() - target.mean()).abs()


def outputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "logits": torch.randn(2, 3, 16, 16, generator=generator).requires_grad_(),
        "features": torch.randn(2, 8, 2, 2, generator=generator).requires_grad_(),
    }


def targets() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "logits": torch.randn(2, 3, 8, 8, generator=generator),
        "embedding": torch.randn(2, 8, 4, 4, generator=generator),
    }


def terms(**weights: float) -> dict[str, Term | None]:
    weights = {"dice": 1.0, "kl": 0.5, "embedding": 0.1} | weights
    return {
        "dice": Term(SoftDiceLoss(), weights["dice"], "logits", "logits"),
        "kl": Term(LogitsKLLoss(2.0), weights["kl"], "logits", "logits"),
        "embedding": Term(EmbeddingLoss(), weights["embedding"], "features", "embedding", resample="student"),
    }


def test_is_the_weighted_sum_of_its_terms():
    loss = DistillationLoss(terms())
    value = loss(outputs(), targets())
    large = functional.interpolate(targets()["logits"], (16, 16), mode="bilinear")
    features = functional.interpolate(outputs()["features"], (4, 4), mode="bilinear")
    expected = {
        "dice": SoftDiceLoss()(outputs()["logits"], large),
        "kl": LogitsKLLoss(2.0)(outputs()["logits"], large),
        "embedding": EmbeddingLoss()(features, targets()["embedding"]),
    }
    torch.testing.assert_close(loss.last_terms, {name: term.detach() for name, term in expected.items()})
    torch.testing.assert_close(value, expected["dice"] + 0.5 * expected["kl"] + 0.1 * expected["embedding"])


def test_last_terms_hold_no_graph():
    loss = DistillationLoss(terms())
    assert loss.last_terms == {}
    loss(outputs(), targets())
    assert not any(value.requires_grad for value in loss.last_terms.values())


@pytest.mark.parametrize("switch", [{"kl": 0.0}, {"kl": None}])
def test_terms_that_are_off_are_as_if_not_there(switch):
    off = terms(kl=0.0) if switch["kl"] == 0.0 else terms() | switch
    student, reference = outputs(), outputs()
    loss = DistillationLoss(off)
    loss(student, targets()).backward()
    assert list(loss.last_terms) == ["dice", "embedding"]
    only = {name: term for name, term in terms().items() if name != "kl"}
    DistillationLoss(only)(reference, targets()).backward()
    assert all(torch.equal(student[key].grad, reference[key].grad) for key in student)


def test_gradients_are_weighted_and_reach_every_output():
    student = outputs()
    DistillationLoss(terms(dice=0, kl=0, embedding=2.0))(student, targets()).backward()
    reference = outputs()
    term = terms()["embedding"]
    assert term is not None
    (2 * term(reference, targets())).backward()
    assert student["logits"].grad is None
    torch.testing.assert_close(student["features"].grad, reference["features"].grad)
    student = outputs()
    DistillationLoss(terms())(student, targets()).backward()
    assert all(torch.isfinite(value.grad).all() and value.grad.abs().sum() > 0 for value in student.values())


def test_zero_where_student_and_teacher_agree():
    same = {"logits": torch.randn(2, 3, 8, 8), "embedding": torch.randn(2, 8, 4, 4)}
    value = DistillationLoss(terms())({"logits": same["logits"], "features": same["embedding"]}, same)
    assert value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("resample", "size"), [("target", (16, 16)), ("student", (8, 8))])
def test_resampling_directions(resample, size):
    shapes = Shapes()
    Term(shapes, 1, "logits", "logits", resample)(outputs(), targets())
    student, target = shapes.seen
    assert student.shape == target.shape == (2, 3, *size)
    kept, own = (student, outputs()["logits"]) if resample == "target" else (target, targets()["logits"])
    assert torch.equal(kept, own)


def test_without_resampling_both_come_as_they_are():
    shapes = Shapes()
    Term(shapes, 1, "logits", "logits", None)(outputs(), targets())
    assert shapes.seen[0].shape[2:] == (16, 16)
    assert shapes.seen[1].shape[2:] == (8, 8)


def test_half_precision_targets_are_resampled_in_float32():
    shapes, half = Shapes(), {key: value.half() for key, value in targets().items()}
    Term(shapes, 1, "logits", "logits")(outputs(), half)
    exact = functional.interpolate(half["logits"].float(), (16, 16), mode="bilinear")
    assert torch.equal(shapes.seen[1], exact)


@pytest.mark.parametrize(
    ("student", "target", "message"),
    [
        ("feature", "embedding", r"the student has no 'feature', only \['features', 'logits'\]"),
        ("features", "embeding", r"the target has no 'embeding', only \['embedding', 'logits'\]"),
    ],
)
def test_unknown_keys_are_named(student, target, message):
    with pytest.raises(TskdError, match=message):
        DistillationLoss({"a": Term(EmbeddingLoss(), 1, student, target)})(outputs(), targets())


@pytest.mark.parametrize(
    ("options", "message"), [({"weight": -1}, "0 or more, found -1"), ({"resample": "both"}, "found 'both'")]
)
def test_wrong_options(options, message):
    with pytest.raises(TskdError, match=message):
        Term(**{"loss": EmbeddingLoss(), "weight": 1, "student": "logits", "target": "logits"} | options)


def test_targets_are_those_of_the_terms_that_count():
    assert DistillationLoss(terms()).targets == ["embedding", "logits"]
    assert DistillationLoss(terms(embedding=0)).targets == ["logits"]
    regions = Term(RegionAffinityLoss(), 1, "features", "embedding", None, regions="logits")
    assert DistillationLoss({"a": regions}).targets == ["embedding", "logits"]


def test_regions_are_handed_over_as_they_are():
    value = Term(RegionAffinityLoss(), 1, "features", "embedding", None, regions="logits")(outputs(), targets())
    expected = RegionAffinityLoss()(outputs()["features"], targets()["embedding"], targets()["logits"])
    assert torch.equal(value, expected)


def test_labels_of_some_images_are_mixed_in():
    """The sum of the two losses, the supervised one on the labelled images alone."""
    label = torch.full((2, 1, 16, 16), 255, dtype=torch.uint8)
    label[0] = torch.randint(0, 3, (1, 16, 16))
    both = terms() | {"labelled": Term(DiceCELoss(), 0.5, "logits", "label", None)}
    value = DistillationLoss(both)(outputs(), {**targets(), "label": label})
    supervised = DiceCELoss()(outputs()["logits"][:1], label[:1])
    torch.testing.assert_close(value, DistillationLoss(terms())(outputs(), targets()) + 0.5 * supervised)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 4.0), (2, 4.0), (3, 3.5), (5, 2.5), (8, 1.0), (20, 1.0)])
def test_linear_schedule(epoch, expected):
    assert Linear(start=4.0, end=1.0, epochs=6, begin=2)(epoch) == expected


def test_a_way_without_length():
    with pytest.raises(TskdError, match="epochs above 0, found 0"):
        Linear(1.0, 0.0, 0)


def test_schedules_follow_the_epochs_also_of_a_resumed_run():
    loss = DistillationLoss(
        {
            "kl": Term(LogitsKLLoss(1.0), Linear(0, 1, 4), "logits", "logits", temperature=Linear(4, 1, 3)),
            "dice": Term(SoftDiceLoss(), 0.5, "logits", "logits"),
        }
    )
    seen = []

    def step(engine, batch):
        seen.append((engine.state.epoch, loss.terms["kl"].weight, loss.terms["kl"].loss.temperature))
        value = loss(outputs(), targets())
        kl, dice = LogitsKLLoss(seen[-1][2]), SoftDiceLoss()
        large = functional.interpolate(targets()["logits"], (16, 16), mode="bilinear")
        expected = seen[-1][1] * kl(outputs()["logits"], large) + 0.5 * dice(outputs()["logits"], large)
        torch.testing.assert_close(value, expected)

    engine = Engine(step)
    FollowSchedules(loss).attach(engine)
    engine.run([0], max_epochs=2)
    assert seen == [(1, 0.0, 4.0), (2, 0.25, 3.0)]
    resumed = Engine(step)
    FollowSchedules(loss).attach(resumed)
    resumed.load_state_dict({"epoch": 4, "max_epochs": 5, "epoch_length": 1})
    resumed.run([0])
    assert seen[-1] == (5, 1.0, 1.0)


def test_a_loss_without_temperature_has_none_to_schedule():
    with pytest.raises(TskdError, match="SoftDiceLoss has no temperature to schedule"):
        Term(SoftDiceLoss(), 1, "logits", "logits", temperature=Linear(4, 1, 3))


@pytest.mark.parametrize("nothing", [{}, {"a": None}, {"a": Term(EmbeddingLoss(), 0, "features", "embedding")}])
def test_needs_a_term(nothing):
    with pytest.raises(TskdError, match="at least one term with a weight above 0"):
        DistillationLoss(nothing)


def test_the_description_tells_weights_settings_and_schedules_apart():
    def text(**changes) -> str:
        options = {"loss": LogitsKLLoss(2.0), "weight": 1.0, "student": "logits", "target": "logits", **changes}
        return DistillationLoss({"kl": Term(**options), "off": Term(LogitsKLLoss(), 0.0, "a", "b")}).description

    assert text() == "kl: 1 LogitsKLLoss(temperature 2) of logits, logits at target"
    assert text() == text(loss=LogitsKLLoss(2), weight=1)  # as a command line writes the same numbers
    changes = [
        {}, {"weight": 0.5}, {"loss": LogitsKLLoss(3.0)}, {"loss": SoftDiceLoss()}, {"target": "other"},
        {"resample": None}, {"regions": "logits"}, {"weight": Linear(1.0, 0.0, 5)}, {"weight": lambda epoch: 1.0},
        {"weight": Linear(1.0, 0.0, 6)}, {"weight": lambda epoch: 1 + epoch}, {"temperature": Linear(2.0, 1.0, 5)},
        {"loss": DiceCELoss(class_weights=[1, 2])}, {"loss": DiceCELoss(class_weights=[1, 3])},
    ]  # fmt: skip
    assert len({text(**change) for change in changes}) == len(changes)
    assert not [change for change in changes if " at 0x" in text(**change)]  # no address, which changes with every run


def test_joint_training_compares_unlabelled_images_with_the_teacher_alone():
    label = torch.full((3, 1, 8, 8), 255, dtype=torch.uint8)
    label[1, 0, 2:, :] = 1
    student, teacher = torch.randn(3, 4, 8, 8, dtype=torch.float64), torch.randn(3, 4, 8, 8, dtype=torch.float64)
    term = Term(LogitsKLLoss(temperature=1.0), 1.0, "logits", "logits", images="unlabelled")
    p, q = (logits[[0, 2]].softmax(1) for logits in (teacher, student))
    expected = (p * (p / q).log()).sum(1).mean()
    value = term({"logits": student}, {"logits": teacher, "label": label})
    torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
    assert term.targets == {"logits", "label"}
    assert term.description.endswith("of unlabelled images")


def test_a_batch_without_unlabelled_images_counts_nothing():
    student = torch.randn(2, 4, 8, 8, requires_grad=True)
    term = Term(SoftDiceLoss(), 1.0, "logits", "logits", images="unlabelled")
    value = term({"logits": student}, {"logits": torch.randn(2, 4, 8, 8), "label": torch.zeros(2, 1, 8, 8)})
    value.backward()
    assert value == 0
    assert student.grad.abs().sum() == 0
    with pytest.raises(TskdError, match="expected images all or unlabelled, found 'some'"):
        Term(SoftDiceLoss(), 1.0, "logits", "logits", images="some")
