"""A training whose loss is no number stops, and says which images it was."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from tests import forked
from tskd.errors import TskdError
from tskd.handlers import StopOnNonFinite


@pytest.mark.parametrize("interval", [1, 3, 100])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_names_the_cases_of_the_first_bad_batch(interval, bad):
    batches = [{"case": [f"{number}_a", f"{number}_b"]} for number in range(6)]
    losses = [1.0, 1.0, bad, 1.0, bad, 1.0]
    engine = Engine(lambda engine, _batch: {"loss": torch.tensor(losses[engine.state.iteration - 1])})
    StopOnNonFinite(interval).attach(engine)
    with pytest.raises(TskdError, match=rf"loss is {bad} at iteration 3, cases 2_a, 2_b: expected a finite number"):
        engine.run(batches, max_epochs=1)


def test_comes_before_the_checkpoint_of_that_epoch(place, training, tmp_path):
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


def _train(folder: str) -> None:
    """Rank 0 has a bad batch in iteration 2; as with shared gradients, the loss of rank 1 is NaN in iteration 3."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    engine = Engine(
        lambda engine, _: {"loss": torch.tensor(float("nan") if engine.state.iteration > 1 + rank else 1.0)}
    )
    StopOnNonFinite(4).attach(engine)
    try:
        engine.run([{"case": [f"rank{rank}_{number}"]} for number in range(8)], max_epochs=1)
    except TskdError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))
    finally:
        dist.destroy_process_group()


@pytest.mark.process
def test_every_process_names_the_batch_that_was_first(tmp_path):
    done = forked.run(_train, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert "at iteration 2, cases rank0_1: expected" in (tmp_path / f"{rank}.txt").read_text()


def test_finite_losses_go_on(run_engine):
    engine = run_engine([StopOnNonFinite(2)], 3, lambda *_: {"loss": torch.tensor(1.0)}, data=range(5))
    assert engine.state.iteration == 15
