"""The best network is what ships, also over a restart."""

import pytest
import torch

from tskd.errors import TskdError
from tskd.handlers import BestModel
from tskd.state import read_tensors, save_weights


def test_exports_on_improvement_only(validation, run_engine):
    handler = validation([0.2, 0.5, 0.4, 0.5, 0.6])
    run_engine([handler], 5)
    assert handler.exported == [1, 2, 5]
    assert handler.best.state_dict() == {"best": 0.6, "stale": 0}


def test_survives_a_restart(place, training, validation, tmp_path):
    """The epochs after the restart do not replace the better model of before."""
    exported = []
    for kill_after in (2, None, None):  # the third has nothing left to do
        handler = validation([0.3, 0.7, 0.5, 0.8])
        extra = {"best": handler.best}
        training(tmp_path, kill_after=kill_after, extra=extra, **{place: [handler]}).go()
        exported.append(handler.exported)
    assert exported == [[1, 2], [4], []]


def test_patience(validation, run_engine):
    handler = validation([0.2, 0.5, 0.4, 0.5, 0.9], patience=2)
    engine = run_engine([handler], 5)
    assert engine.state.epoch == 4  # epochs 3 and 4 are no better than 2
    assert handler.exported == [1, 2]


def test_is_the_last_without_a_validation(validation, run_engine):
    handler = validation([])
    run_engine([handler.best], 3)
    assert handler.exported == [0]


def test_exports_once_after_the_last_step_of_a_training_without_a_validator(run_engine):
    steps: list[int] = []
    exported: list[int] = []
    best = BestModel(None, lambda: exported.append(len(steps)), "none", patience=1)
    run_engine([best], 2, step=lambda _engine, batch: steps.append(batch), data=[1, 2, 3])
    assert exported == [6]


def test_keeps_the_last_where_asked_to(place, training, validation, tmp_path):
    """Also over a restart: the epoch that ships is the last of all, not the last that a process saw."""
    exported = []
    for kill_after in (2, None):
        handler = validation([0.3, 0.9, 0.5, 0.4], keep="last", exported=tmp_path / "model.pt")
        training(tmp_path, kill_after=kill_after, extra={"best": handler.best}, **{place: [handler]}).go()
        exported.append(handler.exported)
    assert exported == [[], [4]]
    assert handler.best.state_dict() == {"best": 0.9, "stale": 2}


def test_few_validation_cases_are_warned_of_once(validation, run_engine, caplog):
    for keep, cases, warnings in (("best", 1, 1), ("best", 3, 0), ("last", 1, 0)):
        caplog.clear()
        run_engine([validation([0.2, 0.5, 0.4], keep=keep, cases=cases)], 3)
        assert caplog.text.count("Leave keep at last") == warnings


def test_patience_with_the_last(validation, run_engine):
    handler = validation([0.2, 0.5, 0.4, 0.3, 0.9], patience=2, keep="last")
    run_engine([handler], 5)
    assert handler.exported == [4]


def test_keeps_nothing_else(validation):
    with pytest.raises(TskdError, match="keep: expected best or last, found 'first'"):
        validation([], keep="first")


def test_needs_its_metric(validation, run_engine):
    with pytest.raises(TskdError, match=r"expected the metric 'val_mean_dice', the validation has \['dice'\]"):
        run_engine([validation([0.5], metric="val_mean_dice")], 1)


def test_undefined_metric_is_no_improvement(validation, run_engine):
    handler = validation([float("nan"), 0.1, float("nan")])
    run_engine([handler], 3)
    assert handler.exported == [2]


def test_what_is_missing_is_exported_anew(training, validation, tmp_path):
    model = tmp_path / "model.pt"
    for exists, expected in ((True, []), (False, [3])):
        run = tmp_path / str(exists)
        first = validation([0.9, 0.5, 0.3, 0.2], exported=model)
        training(run, max_epochs=2, before=[first], extra={"best": first.best}).go()
        if exists:
            model.touch()
        else:
            model.unlink()
        second = validation([0.9, 0.5, 0.3, 0.2], exported=model)
        training(run, before=[second], extra={"best": second.best}).go()
        assert second.exported == expected


def test_a_run_that_ended_by_patience_stays_so(place, training, validation, tmp_path):
    for epochs, exported in ((4, [1, 2]), (None, [])):
        handler = validation([0.2, 0.5, 0.4, 0.4, 0.9, 0.9], patience=2)
        run = training(tmp_path, max_epochs=6, extra={"best": handler.best}, **{place: [handler]}).go()
        assert handler.exported == exported
        assert len(run.losses) == 3 * (epochs or 0)


def test_best_checkpoint_is_that_of_the_best_epoch(place, training, validation, tmp_path):
    handler = validation([0.3, 0.7, 0.5])
    training(tmp_path, max_epochs=3, best=handler.best, extra={"best": handler.best}, **{place: [handler]}).go()
    best, last = (read_tensors(tmp_path / f"checkpoints/{name}.pt") for name in ("best", "last"))
    assert (best["progress"]["epoch"], last["progress"]["epoch"]) == (2, 3)
    assert best.keys() == last.keys()


def test_the_best_weights_are_exported_again_where_a_workflow_has_removed_them(place, training, tmp_path, validation):
    """Epoch 2 is the best: its weights ship, though the run was interrupted after epoch 3 and lost its outputs."""

    def go(kill_after=None):
        model = tmp_path / "model.pt"
        handler = validation([0.3, 0.7, 0.5, 0.6], exported=model)
        run = training(tmp_path, kill_after=kill_after, best=handler.best, extra={"best": handler.best},
                       **{place: [handler]})  # fmt: skip
        handler.best.export = lambda: save_weights(run.network, model)
        run.go()
        return read_tensors(model)

    whole = go(kill_after=3)
    (tmp_path / "model.pt").unlink()
    again = go()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    best = read_tensors(tmp_path / "checkpoints/best.pt")
    assert best["progress"]["epoch"] == 2
    assert all(torch.equal(best["network"][name], value) for name, value in again.items())
    (tmp_path / "model.pt").unlink()
    assert all(torch.equal(value, whole[name]) for name, value in go().items())  # of a finished run, too
