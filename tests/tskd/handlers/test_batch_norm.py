"""Batch norm statistics are those of training batches under the weights that are validated and shipped."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from torch import nn

from tests import forked
from tskd import ranks
from tskd.handlers import BatchNormStatistics


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=1e-3), nn.Dropout(0.3), nn.Linear(4, 1))


def expected(net: nn.Sequential, batches: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance over the items of a batch, averaged over batches."""
    with torch.no_grad():
        features = [net[0](batch) for batch in batches]
    return (
        torch.stack([f.mean(0) for f in features]).mean(0),
        torch.stack([f.var(0) for f in features]).mean(0),
    )


@pytest.mark.parametrize("count", [2, 3, 99])
def test_statistics_are_those_of_the_training_batches(training, tmp_path, count):
    net = network()
    run = training(tmp_path, max_epochs=2, network=net, before=[BatchNormStatistics(net, count, interval=2)])
    seen: list[torch.Tensor] = []
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.batch["image"]))
    run.go()
    mean, variance = expected(net, seen[3:][:count])  # the last epoch's batches, under the final weights
    torch.testing.assert_close(net[1].running_mean, mean)
    torch.testing.assert_close(net[1].running_var, variance)
    assert net[1].momentum == 1e-3


def test_training_itself_stays_the_same(training, tmp_path):
    losses = []
    for batches in (0, 3):
        net = network()
        handler = BatchNormStatistics(net, batches, interval=1)
        run = training(tmp_path / str(batches), network=net, before=[handler]).go()
        losses.append(run.losses)
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12


@pytest.mark.parametrize(("max_epochs", "expected_epochs"), [(5, [2, 4, 5]), (4, [2, 4])])
def test_they_are_recomputed_where_it_is_validated_and_at_the_end_once(
    training, tmp_path, monkeypatch, max_epochs, expected_epochs
):
    net, epochs = network(), []
    run = training(tmp_path, max_epochs=max_epochs, network=net, before=[BatchNormStatistics(net, 3, interval=2)])
    monkeypatch.setattr("tskd.handlers.batch_norm.update_bn", lambda *_: epochs.append(run.trainer.state.epoch))
    run.go()
    assert epochs == expected_epochs


def test_a_finished_run_that_is_started_again_keeps_them(training, tmp_path):
    states = []
    for _ in range(2):
        net = network()
        handler = BatchNormStatistics(net, 3, interval=2)
        training(tmp_path, max_epochs=3, network=net, before=[handler], resume="auto").go()
        states.append({name: value.clone() for name, value in net.state_dict().items()})
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def test_running_statistics_stay_where_none_are_asked_for(training, tmp_path):
    net = network()
    training(tmp_path, max_epochs=1, network=net, before=[BatchNormStatistics(net, 0, interval=1)]).go()
    assert net[1].num_batches_tracked == 3
    assert net[1].running_mean.abs().max() < 0.05  # hardly moved: that is what it mends


def test_a_network_without_batch_norm_is_left_alone(training, tmp_path):
    net = nn.Linear(4, 1)
    handler = BatchNormStatistics(net, 3, interval=1)
    run = training(tmp_path, network=net, before=[handler])
    assert not run.trainer.has_event_handler(handler)


def test_float16_batches_are_collated_outside_autocast(training, tmp_path):
    """Torch refuses to stack float16 under autocast to bfloat16 on the CPU: only the forward may run in it."""

    class Targets(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"image": torch.full((4,), float(index)), "label": torch.ones(1, dtype=torch.float16)}

    net = network()
    seen = []
    net[0].register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    engine = SimpleNamespace(
        state=SimpleNamespace(device="cpu", dataloader=torch.utils.data.DataLoader(Targets(), 2)),
        prepare_batch=lambda batch, *_: (batch["image"], batch["label"]),
        non_blocking=False,
    )
    BatchNormStatistics(net, 2, interval=1, dtype="bfloat16")(engine)
    assert seen == [True, True]
    assert not torch.is_autocast_enabled("cpu")


def recompute_in_a_group(folder: str) -> None:
    torch.distributed.init_process_group("gloo")
    rank, net = ranks.rank(), nn.Sequential(nn.BatchNorm1d(3))
    batches = [torch.arange(12.0).reshape(4, 3) * (rank + 1)]
    engine = SimpleNamespace(
        state=SimpleNamespace(device="cpu", dataloader=batches),
        prepare_batch=lambda batch, *_: (batch, None),
        non_blocking=False,
    )
    BatchNormStatistics(net, 1, interval=1)(engine)
    torch.save(net.state_dict(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.process
def test_several_processes_get_the_mean_of_their_statistics(tmp_path):
    done = forked.run(recompute_in_a_group, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    images = torch.arange(12.0).reshape(4, 3)
    for state in states:
        torch.testing.assert_close(state["0.running_mean"], images.mean(0) * 1.5)
        torch.testing.assert_close(state["0.running_var"], images.var(0) * 2.5)
