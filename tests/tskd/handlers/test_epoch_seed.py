"""The random numbers of an epoch."""

import torch

from tskd.handlers import EpochSeed


def test_epoch_seed_depends_on_seed_and_epoch_only(run_engine):
    def draws(seed, epochs):
        found = []
        torch.manual_seed(torch.seed())
        run_engine([EpochSeed(seed)], epochs, lambda *_: found.append(torch.rand(1).item()), data=(0, 0))
        return found

    assert draws(1, 3) == draws(1, 4)[:6]
    assert len({*draws(1, 3), *draws(2, 3)}) == 12
