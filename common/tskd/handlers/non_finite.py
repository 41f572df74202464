"""Stop training on a NaN or infinite loss."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import torch
from ignite.engine import Engine, Events

from tskd import ranks
from tskd.errors import TskdError


class StopOnNonFinite:
    """Stop training on a NaN or infinite loss, naming the cases of that batch.

    Losses are kept on the device and checked every `interval` iterations, so that the check does not make the host
    wait for the device in every step. Of several processes each names the batch that was first: a step later the loss
    of all of them is NaN, for they share their gradients.

    Args:
        interval: iterations between two checks.

    Raises:
        TskdError: with the iteration and the case names of the first batch whose loss was not finite.
    """

    def __init__(self, interval: int = 20) -> None:
        self.interval = interval
        self._pending: list[tuple[int, list[str], torch.Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Register on every iteration and on the end of an epoch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._look)

    def __call__(self, engine: Engine) -> None:
        """Keep this iteration's loss; check the kept ones when `interval` of them are there."""
        output: Any = engine.state.output
        output = output[0] if isinstance(output, list) else output
        batch: Any = engine.state.batch
        cases = list(batch.get("case", [])) if isinstance(batch, dict) else []
        self._pending.append((engine.state.iteration, cases, torch.as_tensor(output["loss"]).detach()))
        if len(self._pending) >= self.interval:
            self._look(engine)

    def _look(self, engine: Engine) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        finite = torch.isfinite(torch.stack([loss.float().reshape(()) for _, _, loss in pending])).tolist()
        bad_batches = [
            (step, cases, float(loss)) for (step, cases, loss), good in zip(pending, finite, strict=True) if not good
        ]
        bad = [batch for batches in ranks.gather(bad_batches[:1]) for batch in batches]
        if bad:
            iteration, _, loss = min(bad, key=itemgetter(0))
            cases = [case for step, names, _ in bad if step == iteration for case in names]
            raise TskdError(
                f"loss is {loss} at iteration {iteration}, cases {', '.join(cases) or 'unknown'}: expected "
                "a finite number. Look at these images and labels (tskd check), or lower `learning_rate`."
            )
