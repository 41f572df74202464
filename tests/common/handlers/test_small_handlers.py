"""The handlers of one thing each."""

import csv
import getpass
import io
import json
import math
import os
import socket
from contextlib import redirect_stderr

import pytest
import torch
from ignite.engine import Engine, Events

from common.errors import TskdError
from common.handlers import BestModel, EpochSeed, HandlerGroup, LogCsv, Progress, StopOnNonFinite, WriteVersions

# attached before or after the checkpoint's handler: configs are free to order them
either_order = pytest.mark.parametrize("place", ["before", "after"])


class Validation:
    """Runs a validator whose metric takes the given values, one a training epoch."""

    def __init__(self, values, **options) -> None:
        self.values = values
        self.validator = Engine(lambda *_: None)
        self.validator.add_event_handler(Events.EPOCH_COMPLETED, self._measure)
        self.exported: list[int] = []
        self.epoch = 0
        options = {"validator": self.validator, "metric": "dice", **options}
        self.best = BestModel(export=lambda: self.exported.append(self.epoch), **options)

    def _measure(self, validator: Engine) -> None:
        validator.state.metrics["dice"] = self.values[self.epoch - 1]

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        self.best.attach(engine)

    def __call__(self, engine: Engine) -> None:
        self.epoch = engine.state.epoch
        self.validator.run([0])


def train(handlers, epochs: int, step=lambda _engine, _batch: None, data=(0,)) -> Engine:
    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    engine.run(list(data), max_epochs=epochs)
    return engine


def rows(path) -> list[tuple[int, int, str, float]]:
    with path.open(newline="") as file:
        return [(int(r["epoch"]), int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]


# ------------------------------------------------------------------------------------------------- BestModel


def test_best_model_exports_on_improvement_only():
    validation = Validation([0.2, 0.5, 0.4, 0.5, 0.6])
    train([validation], 5)
    assert validation.exported == [1, 2, 5]
    assert validation.best.state_dict() == {"best": 0.6, "stale": 0}


@either_order
def test_best_model_survives_a_restart(place, training, tmp_path):
    """The epochs after the restart do not replace the better model of before."""
    exported = []
    for kill_after in (2, None, None):  # the third has nothing left to do
        validation = Validation([0.3, 0.7, 0.5, 0.8])
        extra = {"best": validation.best}
        training(tmp_path, kill_after=kill_after, extra=extra, **{place: [validation]}).go()
        exported.append(validation.exported)
    assert exported == [[1, 2], [4], []]


def test_best_model_patience():
    validation = Validation([0.2, 0.5, 0.4, 0.5, 0.9], patience=2)
    engine = train([validation], 5)
    assert engine.state.epoch == 4  # epochs 3 and 4 are no better than 2
    assert validation.exported == [1, 2]


def test_best_model_is_the_last_without_a_validation():
    validation = Validation([])
    train([validation.best], 3)
    assert validation.exported == [0]


def test_best_model_needs_its_metric():
    with pytest.raises(TskdError, match=r"expected the metric 'val_mean_dice', the validation has \['dice'\]"):
        train([Validation([0.5], metric="val_mean_dice")], 1)


def test_undefined_metric_is_no_improvement():
    validation = Validation([float("nan"), 0.1, float("nan")])
    train([validation], 3)
    assert validation.exported == [2]


# ---------------------------------------------------------------------------------------------------- LogCsv


class Terms:
    last_terms: dict


def test_log_has_the_mean_of_each_epoch_and_the_validation(tmp_path):
    terms, values = Terms(), [1.0, 2.0, 6.0, 8.0]
    validation = Validation([0.25, 0.75])

    def step(engine, _batch):
        value = torch.tensor(values[engine.state.iteration - 1])
        terms.last_terms = {"kl": value / 10}
        return {"loss": value}

    log = LogCsv(tmp_path / "new" / "log.csv", validation.validator, terms)
    train([validation, log], 2, step, data=(0, 0))
    found = rows(tmp_path / "new" / "log.csv")
    assert sorted(found) == [
        (1, 2, "kl", 0.15),
        (1, 2, "loss", 1.5),
        (1, 2, "validation_dice", 0.25),
        (2, 4, "kl", 0.7),
        (2, 4, "loss", 7.0),
        (2, 4, "validation_dice", 0.75),
    ]


@either_order
def test_log_of_a_resumed_run_equals_that_of_a_whole_one(place, training, tmp_path):
    """Rows of an epoch that is run again appear once, whatever the order of the handlers in the config."""

    def log(name):
        return {place: [LogCsv(tmp_path / name / "log.csv")]}

    training(tmp_path / "whole", **log("whole")).go()
    training(tmp_path / "parts", kill_after=2, **log("parts")).go()
    with (tmp_path / "parts" / "log.csv").open("a") as file:
        file.write("3,9,loss,123\n")  # as if killed between the log and the checkpoint of epoch 3
    training(tmp_path / "parts", **log("parts")).go()
    assert rows(tmp_path / "parts" / "log.csv") == rows(tmp_path / "whole" / "log.csv")
    before = (tmp_path / "parts" / "log.csv").read_text()
    training(tmp_path / "parts", **log("parts")).go()  # a finished run
    assert (tmp_path / "parts" / "log.csv").read_text() == before


def test_log_of_a_run_that_starts_anew(training, tmp_path):
    for _ in range(2):
        training(tmp_path, max_epochs=1, resume="never", before=[LogCsv(tmp_path / "log.csv")]).go()
    assert [row[:3] for row in rows(tmp_path / "log.csv")] == [(1, 3, "loss")]


def test_log_takes_decollated_outputs(tmp_path):
    train([LogCsv(tmp_path / "log.csv")], 1, lambda *_: [{"loss": 2.0}, {"loss": 2.0}])
    assert rows(tmp_path / "log.csv") == [(1, 1, "loss", 2.0)]


# ------------------------------------------------------------------------------------------- StopOnNonFinite


@pytest.mark.parametrize("interval", [1, 3, 100])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_stop_names_the_cases_of_the_first_bad_batch(interval, bad):
    batches = [{"case": [f"{number}_a", f"{number}_b"]} for number in range(6)]
    losses = [1.0, 1.0, bad, 1.0, bad, 1.0]
    engine = Engine(lambda engine, _batch: {"loss": torch.tensor(losses[engine.state.iteration - 1])})
    StopOnNonFinite(interval).attach(engine)
    with pytest.raises(TskdError, match=rf"loss is {bad} at iteration 3, cases 2_a, 2_b: expected a finite number"):
        engine.run(batches, max_epochs=1)


@either_order
def test_stop_comes_before_the_checkpoint_of_that_epoch(place, training, tmp_path):
    good = training(tmp_path, kill_after=1).go()
    run = training(tmp_path, **{place: [StopOnNonFinite()]})

    def spoil(_engine):
        with torch.no_grad():
            run.network[0].weight.fill_(float("nan"))

    run.trainer.add_event_handler(Events.ITERATION_STARTED(once=5), spoil)
    with pytest.raises(TskdError, match=r"at iteration 5, cases case_\d, case_\d"):
        run.go()
    state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert state["progress"]["epoch"] == 1
    assert torch.equal(state["network"]["0.weight"], good.network[0].weight)


def test_finite_losses_go_on():
    engine = train([StopOnNonFinite(2)], 3, lambda *_: {"loss": torch.tensor(1.0)}, data=range(5))
    assert engine.state.iteration == 15


# -------------------------------------------------------------------------------------------------- the rest


def test_group_attaches_in_order_and_skips_what_is_disabled():
    attached = []

    class Handler:
        def __init__(self, name):
            self.name = name

        def attach(self, engine):
            attached.append((self.name, engine))

    engine = Engine(lambda *_: None)
    HandlerGroup({"b": Handler("b"), "off": None, "a": Handler("a")}).attach(engine)
    assert attached == [("b", engine), ("a", engine)]


def test_epoch_seed_depends_on_seed_and_epoch_only():
    def draws(seed, epochs):
        found = []
        torch.manual_seed(torch.seed())
        train([EpochSeed(seed)], epochs, lambda *_: found.append(torch.rand(1).item()), data=(0, 0))
        return found

    assert draws(1, 3) == draws(1, 4)[:6]
    assert len({*draws(1, 3), *draws(2, 3)}) == 12


def test_versions_tell_what_but_not_who_and_where(tmp_path, monkeypatch):
    folder = tmp_path / getpass.getuser() / socket.gethostname()
    config = [str(folder / "configs" / name) for name in ("train.json", "distill.json")]
    settings = {
        "seed": 3, "init_weights": str(folder / "model.pt"), "fine_tuning": {"rank": 4, "from": folder / "a.pt"},
        "files": [str(folder / "b.json")], "num_labelled": None,
    }  # fmt: skip
    for command in (["--config_file", str(config)], [f"--config_file={','.join(config)}", "--seed", "3"]):
        monkeypatch.setattr("sys.argv", ["monai.bundle", "run", *command])
        engine = train([WriteVersions(tmp_path / "out", settings)], 2, data=range(3))
        text = (tmp_path / "out" / "versions.json").read_text()
        content = json.loads(text)
        assert content["config"] == ["train.json", "distill.json"]
        assert content["settings"] == {
            "seed": 3, "init_weights": "model.pt", "fine_tuning": {"rank": 4, "from": "a.pt"}, "files": ["b.json"],
            "num_labelled": None,
        }  # fmt: skip
        assert content["packages"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
        assert content["iterations"] == engine.state.iteration == 6
        assert content["seconds"] >= 0
        for private in (str(tmp_path), os.path.expanduser("~"), socket.gethostname()):
            assert private not in text


def test_versions_are_there_from_the_start(tmp_path):
    def step(_engine, _batch):
        assert "packages" in json.loads((tmp_path / "versions.json").read_text())
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train([WriteVersions(tmp_path)], 1, step)
    assert "seconds" not in json.loads((tmp_path / "versions.json").read_text())


@either_order
def test_progress_counts_on_where_a_resumed_run_starts(place, training, tmp_path):
    training(tmp_path, kill_after=3).go()
    with redirect_stderr(io.StringIO()) as shown:
        run = training(tmp_path, **{place: [Progress("student")]}).go()
    lines = [line for line in shown.getvalue().replace("\r", "\n").splitlines() if line]
    assert "9/12" in lines[0]
    assert "12/12" in lines[-1]
    assert f"loss={run.losses[-1]:.4f}" in shown.getvalue()
    assert not math.isnan(run.losses[-1])


def test_progress_lets_errors_through(tmp_path):
    def step(_engine, _batch):
        raise TskdError("image 3 is broken")

    with redirect_stderr(io.StringIO()), pytest.raises(TskdError, match="image 3 is broken"):
        train([Progress("teacher")], 1, step)
