"""One bar over the whole training."""

import io
import math
from contextlib import redirect_stderr

import pytest

from tskd.errors import TskdError
from tskd.handlers import Progress


def test_progress_counts_on_where_a_resumed_run_starts(place, training, tmp_path):
    training(tmp_path, kill_after=3).go()
    with redirect_stderr(io.StringIO()) as shown:
        run = training(tmp_path, **{place: [Progress("student")]}).go()
    lines = [line for line in shown.getvalue().replace("\r", "\n").splitlines() if line]
    assert "9/12" in lines[0]
    assert "12/12" in lines[-1]
    assert f"loss={run.losses[-1]:.4f}" in shown.getvalue()
    assert not math.isnan(run.losses[-1])


def test_progress_lets_errors_through(run_engine):
    def step(_engine, _batch):
        raise TskdError("image 3 is broken")

    with redirect_stderr(io.StringIO()), pytest.raises(TskdError, match="image 3 is broken"):
        run_engine([Progress("teacher")], 1, step)
