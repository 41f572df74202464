"""A sampler whose epochs have a fixed length, whatever the size of the data, on one process or many."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler

from tskd import ranks
from tskd.errors import TskdError


class EpochSampler(DistributedSampler[Any]):
    """Draw `num_samples` items an epoch over all processes, each item as often as any other up to one.

    The draws are one endless run of random permutations of the data, and an epoch is the next `num_samples` of it; the
    order depends on seed and epoch only. Rank r of R takes draws r, r + R, ...: in each step R processes with batches
    of B see together what one process with batches of R x B sees. MONAI's workflows call `set_epoch` on any
    DistributedSampler, which this is.

    Args:
        data: the data set (only its length counts).
        num_samples: draws an epoch over all ranks; a multiple of the number of ranks.
        seed: seed of the permutations, 0 or more.
        rank: of this process; None asks torch.distributed, 0 without it.
        world_size: number of processes; None asks torch.distributed, 1 without it.
        per_batch: (count, draws) of consecutive blocks of the data, such as [(100, 2), (247, 4), (160, 2)] for batches
            of 8 with 2 of the first 100 items, 4 of the next 247 and 2 of the last 160: exactly so in every batch of
            every rank. Inside a block each item is drawn as often as any other up to one. None for no blocks.
        without_repeats: no item is twice among those that all ranks draw in one step: of each permutation of a block
            the last ones that are too few for a step are left out, others each time. Wants `per_batch`, which says
            how many a step takes.

    Raises:
        TskdError: numbers that do not fit.
    """

    def __init__(
        self,
        data: Sized,
        num_samples: int,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        per_batch: Sequence[tuple[int, int]] | None = None,
        without_repeats: bool = False,
    ) -> None:
        processes = ranks.world_size() if world_size is None else world_size
        rank_index = ranks.rank() if rank is None else rank
        blocks = [(len(data), 1)] if per_batch is None else [(int(count), int(draws)) for count, draws in per_batch]
        _refuse_odd_numbers(len(data), num_samples, processes, rank_index, blocks)
        steps = [draws * processes if without_repeats else 0 for _, draws in blocks]
        if without_repeats:
            _refuse_repeats(per_batch is not None, blocks, steps)
        super().__init__(data, num_replicas=processes, rank=rank_index, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.counts = [count for count, _ in blocks]
        self.usable = [count - count % step if step else count for count, step in zip(self.counts, steps, strict=True)]
        self.num_samples = num_samples // processes
        self.total_size = num_samples
        pattern = np.repeat(np.arange(len(blocks)), [draws for _, draws in blocks])  # blocks of a rank's batch
        self.block_of_draw = pattern[np.arange(num_samples) // processes % len(pattern)]

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this rank in this epoch."""
        draws = np.empty(self.total_size, dtype=np.int64)
        for block, count in enumerate(self.counts):
            slots = np.flatnonzero(self.block_of_draw == block)
            draws[slots] = sum(self.counts[:block]) + self._run(block, count, self.epoch * len(slots), len(slots))
        return iter(draws[self.rank :: self.num_replicas].tolist())

    def __len__(self) -> int:
        """Draws of this rank in an epoch."""
        return self.num_samples

    def _run(self, block: int, count: int, start: int, length: int) -> np.ndarray:
        """Items `start` to `start + length` of the endless run of permutations of one block."""
        if length == 0:
            return np.empty(0, dtype=np.int64)
        usable = self.usable[block]
        first, last = start // usable, (start + length - 1) // usable
        turns = [np.random.default_rng([self.seed, block, turn]).permutation(count) for turn in range(first, last + 1)]
        return np.concatenate([turn[:usable] for turn in turns])[start - first * usable :][:length]


def _refuse_repeats(given: bool, blocks: list[tuple[int, int]], steps: list[int]) -> None:
    if not given:
        raise TskdError("without_repeats: expected per_batch, which says how many items a step takes, found none.")
    for (count, _), step in zip(blocks, steps, strict=True):
        if count < step:
            raise TskdError(
                f"batch_size: expected at most the {count} images of the transfer set (or of its part), so that none "
                f"is twice in a batch, found {step}. Give a smaller batch_size with more iterations_per_epoch."
            )


def _refuse_odd_numbers(size: int, num_samples: int, ranks: int, rank: int, blocks: list[tuple[int, int]]) -> None:
    if size == 0:
        raise TskdError("EpochSampler: expected data with at least one item, found none.")
    if num_samples < 1 or ranks < 1 or num_samples % ranks:
        raise TskdError(
            f"num_samples: expected a positive multiple of the number of processes {ranks}, found {num_samples}."
        )
    if not 0 <= rank < ranks:
        raise TskdError(f"rank: expected 0 to {ranks - 1}, found {rank}.")
    if sum(count for count, _ in blocks) != size:
        raise TskdError(f"per_batch: expected counts that sum to the {size} items of the data, found {blocks}.")
    batch = sum(draws for _, draws in blocks)
    if any(draws < 0 or (draws > 0 and count < 1) for count, draws in blocks) or batch < 1:
        raise TskdError(
            f"per_batch: expected draws of 0 or more, above 0 only for blocks that have items, found {blocks}."
        )
    if num_samples % (ranks * batch):
        raise TskdError(
            f"per_batch: expected num_samples to be whole batches of {batch} for each of {ranks} processes, found "
            f"{num_samples}."
        )
