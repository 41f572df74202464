"""The best network is what ships, also over a restart."""

import pytest

from common.errors import TskdError


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


def test_needs_its_metric(validation, run_engine):
    with pytest.raises(TskdError, match=r"expected the metric 'val_mean_dice', the validation has \['dice'\]"):
        run_engine([validation([0.5], metric="val_mean_dice")], 1)


def test_undefined_metric_is_no_improvement(validation, run_engine):
    handler = validation([float("nan"), 0.1, float("nan")])
    run_engine([handler], 3)
    assert handler.exported == [2]
