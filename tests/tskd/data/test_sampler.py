"""EpochSampler: fixed epochs, fair draws, ranks that add up to one process."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from tskd.data.sampler import EpochSampler
from tskd.errors import TskdError


def epochs(sampler: EpochSampler, count: int) -> list[list[int]]:
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 1000))
def test_every_item_equally_often_up_to_one_over_all_epochs(size, num_samples, seed):
    sampler = EpochSampler(range(size), num_samples, seed=seed)
    drawn: list[int] = []
    for epoch in epochs(sampler, 4):
        assert len(epoch) == len(sampler) == num_samples
        drawn += epoch
        counts = Counter(drawn)
        often = [counts[item] for item in range(size)]
        assert max(often) - min(often) <= 1


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 30), st.integers(0, 100))
def test_ranks_together_see_what_one_process_sees(ranks, batch, size, seed):
    num_samples = ranks * batch * 3
    one = EpochSampler(range(size), num_samples, seed=seed)
    many = [EpochSampler(range(size), num_samples, seed=seed, rank=r, world_size=ranks) for r in range(ranks)]
    for sampler in (one, *many):
        sampler.set_epoch(2)
    steps = zip(*(DataLoader(range(size), batch, sampler=sampler) for sampler in many), strict=True)
    for whole, parts in zip(DataLoader(range(size), batch * ranks, sampler=one), steps, strict=True):
        assert sorted(whole.tolist()) == sorted(chain(*(part.tolist() for part in parts)))


def test_order_depends_on_seed_and_epoch_only():
    first = epochs(EpochSampler(range(50), 50, seed=1), 3)
    again = EpochSampler(range(50), 50, seed=1)
    again.set_epoch(2)
    assert list(again) == list(again) == first[2]
    assert first[0] != first[1]
    assert first[0] != epochs(EpochSampler(range(50), 50, seed=2), 1)[0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_batch_of_every_rank_has_the_set_numbers(ranks):
    blocks = [(5, 2), (0, 0), (45, 5), (3, 1)]
    for rank in range(ranks):
        sampler = EpochSampler(range(53), 8 * ranks * 7, seed=1, rank=rank, world_size=ranks, per_batch=blocks)
        for epoch in epochs(sampler, 3):
            for start in range(0, len(epoch), 8):
                batch = epoch[start : start + 8]
                assert [sum(low <= i < high for i in batch) for low, high in ((0, 5), (5, 50), (50, 53))] == [2, 5, 1]


def test_ranks_with_blocks_together_see_what_one_process_sees():
    """Two processes with batches of 2 + 3 draw step by step what one with batches of 4 + 6 does."""
    one = EpochSampler(range(30), 60, seed=4, per_batch=[(7, 4), (23, 6)])
    two = [EpochSampler(range(30), 60, seed=4, rank=r, world_size=2, per_batch=[(7, 2), (23, 3)]) for r in range(2)]
    whole, parts = list(one), [list(sampler) for sampler in two]
    for step in range(6):
        together = [item for part in parts for item in part[5 * step : 5 * step + 5]]
        assert sorted(whole[10 * step : 10 * step + 10]) == sorted(together)


@pytest.mark.parametrize("ranks", [1, 2])
def test_no_item_is_twice_in_a_step_where_that_is_asked_for(ranks):
    blocks = [(7, 2), (0, 0), (23, 3)]
    options = {"seed": 4, "world_size": ranks, "per_batch": blocks, "without_repeats": True}
    samplers = [EpochSampler(range(30), 10 * 5 * ranks, rank=rank, **options) for rank in range(ranks)]
    epoch_of_ranks = [list(chain(*epochs(sampler, 40))) for sampler in samplers]
    seen: Counter[int] = Counter()
    for start in range(0, 2000, 5):
        step = [item for epoch in epoch_of_ranks for item in epoch[start : start + 5]]
        assert len(set(step)) == len(step) == 5 * ranks
        assert sum(item < 7 for item in step) == 2 * ranks
        seen.update(step)
    assert seen.keys() == set(range(30))
    often = [seen[item] for item in range(7)]  # of 7, all but 7 % (2 * ranks) in turn
    assert max(often) < 1.3 * min(often)


def test_blocks_are_fair_inside():
    sampler = EpochSampler(range(12), 60, per_batch=[(4, 1), (0, 0), (8, 1)])
    counts = Counter(chain(*epochs(sampler, 5)))
    for block in (range(4), range(4, 12)):
        often = [counts[item] for item in block]
        assert max(often) - min(often) <= 1
    assert sum(counts[item] for item in range(4)) == 150


def test_monai_sets_the_epoch():
    """MONAI's Workflow calls set_epoch on a DistributedSampler only."""
    import torch
    from monai.engines import SupervisedTrainer

    data = [{"image": torch.tensor([float(i)]), "label": torch.zeros(1)} for i in range(8)]
    sampler = EpochSampler(data, 4, seed=3)
    seen: list[list[float]] = [[], []]
    network = torch.nn.Linear(1, 1)

    class Watch(torch.nn.Module):
        def forward(self, x):
            seen[trainer.state.epoch - 1] += x[:, 0].tolist()
            return network(x)

    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(data, 2, sampler=sampler),
        network=Watch(),
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=torch.nn.MSELoss(),
    )
    trainer.run()
    assert isinstance(sampler, DistributedSampler)
    expected = epochs(EpochSampler(data, 4, seed=3), 3)[1:]
    assert seen == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 5, "world_size": 2, "rank": 0}, "multiple of the number of processes 2, found 5"),
        ({"num_samples": 0}, "found 0"),
        ({"num_samples": 4, "world_size": 2, "rank": 2}, "0 to 1, found 2"),
        ({"num_samples": 4, "per_batch": [(3, 1)]}, "sum to the 6 items"),
        ({"num_samples": 4, "per_batch": [(6, 1), (0, 1)]}, "blocks that have items"),
        ({"num_samples": 4, "per_batch": [(6, 0)]}, "blocks that have items"),
        ({"num_samples": 4, "without_repeats": True}, "expected per_batch, which says how many"),
        ({"num_samples": 8, "per_batch": [(2, 1), (4, 3)], "without_repeats": True, "world_size": 2, "rank": 0},
         r"at most the 4 images of the transfer set .* found 6\. Give a smaller batch_size"),
        ({"num_samples": 4, "per_batch": [(6, 3)]}, "whole batches of 3 for each of 1 processes, found 4"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit(options, message):
    with pytest.raises(TskdError, match=message):
        EpochSampler(range(6), **options)
