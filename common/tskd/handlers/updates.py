"""Whether an iteration ends in an optimizer's step."""

from __future__ import annotations

from ignite.engine import Engine


def updates_weights(engine: Engine) -> bool:
    """Return false for an iteration whose gradient is only added up (`accumulation_steps` of MONAI's trainer)."""
    steps = getattr(engine, "accumulation_steps", 1)
    length = engine.state.epoch_length
    done = engine.state.iteration if length is None else (engine.state.iteration - 1) % length + 1
    return done % steps == 0 or done == length
