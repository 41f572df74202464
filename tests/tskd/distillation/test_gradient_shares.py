"""Shares in the gradient: they are what a backward of each term gives, and measuring them changes nothing."""

import csv
import logging

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from tskd.distillation import DistillationLoss, GradientShares, Term
from tskd.distillation.gradient_shares import shares, term_gradients


class Squared(nn.Module):
    """Of what is known: 9 stands for an image without a target."""

    def forward(self, student: Tensor, target: Tensor) -> Tensor:
        return ((student - target) * (target != 9)).square().mean()


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x).tanh()
        return {"features": features, "logits": self.head(features)}


def loss() -> DistillationLoss:
    terms = {"a": Term(Squared(), 2.0, "logits", "logits", None), "b": Term(Squared(), 0.3, "features", "embed", None)}
    return DistillationLoss(terms)


def gradient_shares(*args) -> list[dict[str, str]]:
    return shares(term_gradients(*args))


def batch() -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, logits, embed = (torch.randn(5, n, generator=generator) for n in (3, 2, 4))
    return x, {"logits": logits, "embed": embed}


def test_equal_a_backward_of_each_term():
    x, targets = batch()
    vectors = {}
    for name in ("a", "b"):
        student = Student()
        term = loss().terms[name]
        (term.weight * term(student(x), targets)).backward()
        vectors[name] = torch.cat(
            [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in student.parameters()]
        )
    whole = vectors["a"] + vectors["b"]
    student = Student()
    rows = gradient_shares(loss(), student(x), targets, student)
    assert [row["term"] for row in rows] == ["a", "b"]
    for row in rows:
        vector = vectors[row["term"]]
        assert float(row["norm"]) == pytest.approx(float(vector.norm()), rel=1e-4)
        assert float(row["share"]) == pytest.approx(float(vector @ whole / (whole @ whole)), rel=1e-4)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-5)
    assert all(parameter.grad is None for parameter in student.parameters())


def train(path=None, step: int = 2, count: int = 3, rate: float = 0.1, unknown: tuple[int, ...] = ()) -> Student:
    student, own = Student(), loss()
    x, targets = batch()
    targets["logits"][list(unknown)] = 9
    data = [{"x": x[i], **{key: value[i] for key, value in targets.items()}} for i in range(len(x))]
    handlers = [GradientShares(own, student, path, step, count)] if path else []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=DataLoader(data, 1), network=student,
        optimizer=torch.optim.SGD(student.parameters(), rate), loss_function=own, train_handlers=handlers,
        prepare_batch=lambda b, device, non_blocking, **_: (b["x"], {k: b[k] for k in ("logits", "embed")}),
        decollate=False,
    )  # fmt: skip
    trainer.run()
    return student


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_measured_once_and_the_training_goes_on_as_without(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "tskd.distillation.gradient_shares"):
        measured = train(tmp_path / "runs" / "gradient_shares.csv")
    for one, other in zip(measured.parameters(), train().parameters(), strict=True):
        assert torch.equal(one, other)
    rows = rows_of(tmp_path / "runs" / "gradient_shares.csv")
    assert [(row["steps"], row["term"], row["weight"]) for row in rows] == [("2-4", "a", "2"), ("2-4", "b", "0.3")]
    (record,) = [r.message for r in caplog.records if "shares in the gradient at steps 2-4: a " in r.message]
    assert "%, b " in record


def test_several_steps_are_those_of_their_images_together(tmp_path):
    """With a learning rate of 0 the mean over three batches of one image is that of a batch of the three."""
    train(tmp_path / "shares.csv", rate=0.0)
    x, targets = batch()
    student = Student()
    expected = gradient_shares(loss(), student(x[1:4]), {key: value[1:4] for key, value in targets.items()}, student)
    for row, other in zip(rows_of(tmp_path / "shares.csv"), expected, strict=True):
        for key in ("weight", "value", "norm", "share"):
            assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-4), key


def test_a_term_that_some_batches_have_nothing_for(tmp_path):
    """As the labels of a small budget: the first batch measured holds none."""
    train(tmp_path / "shares.csv", unknown=(1, 2))
    assert float(rows_of(tmp_path / "shares.csv")[0]["share"]) > 0.1


def test_a_training_that_ends_before_has_what_was_measured(tmp_path):
    train(tmp_path / "shares.csv", step=4, count=10)
    assert {row["steps"] for row in rows_of(tmp_path / "shares.csv")} == {"4-5"}
    train(tmp_path / "none.csv", step=6)
    assert not (tmp_path / "none.csv").exists()


def test_inside_distributed_data_parallel(tmp_path, monkeypatch):
    """Measured between a process's forward and its backward, whose hooks exchange the gradients."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        x, targets = batch()
        student, alone = Student(), Student()
        parallel = DistributedDataParallel(student, find_unused_parameters=True)
        for _ in range(2):
            outputs = parallel(x)
            rows = gradient_shares(loss(), outputs, targets, student)
            student.zero_grad()
            loss()(outputs, targets).backward()
    finally:
        dist.destroy_process_group()
    assert rows == gradient_shares(loss(), alone(x), targets, alone)
    loss()(alone(x), targets).backward()
    for one, other in zip(student.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
