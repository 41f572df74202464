"""Ships the best or the last network of a training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from tskd import ranks
from tskd.errors import TskdError

logger = logging.getLogger(__name__)

FEW = 3  # validation cases with fewer than which the best epoch is chance


class BestModel:
    """Calls `export` whenever the validator's key metric improves, and once at the end if there was no validation.

    With `keep="last"` it exports at the end only: on a validation list of few patients the best epoch is chance.

    The best value so far is part of the state dict, so a resumed run does not replace a better model by a worse one.

    Args:
        validator: engine that computes the key metric; None for a training without validation.
        export: writes what ships; called without arguments.
        metric: name of the metric in `validator.state.metrics`; larger is better.
        patience: validations without improvement after which the training ends, None for never.
        exported: a file that `export` writes. Where it is missing, `Checkpointing` exports the best epoch again, and
            without its checkpoint a continued run forgets the best value and exports anew; None for not to look.
        keep: "best" exports the best epoch, "last" the last one.

    Raises:
        TskdError: for another `keep`; when the validation does not compute the metric.
    """

    def __init__(
        self,
        validator: Engine | None,
        export: Callable[[], Any],
        metric: str = "val_mean_dice",
        patience: int | None = None,
        exported: str | Path | None = None,
        keep: str = "best",
    ) -> None:
        if keep not in ("best", "last"):
            raise TskdError(f"keep: expected best or last, found {keep!r}")
        self.validator = validator
        self.export = export
        self.metric = metric
        self.patience = patience
        self.exported = None if exported is None else Path(exported)
        self.keep = keep
        self.best = float("-inf")
        self.stale = 0
        self.improved = False  # in the last validation

    def attach(self, engine: Engine) -> None:
        """Register on the validator's end and on the end of the training `engine`."""
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self, engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def __call__(self, validator: Engine, trainer: Engine) -> None:
        """Export on improvement; end the training when it has been stale for `patience` validations."""
        if self.metric not in validator.state.metrics:
            raise TskdError(
                f"best model: expected the metric {self.metric!r}, the validation has {sorted(validator.state.metrics)}"
            )
        self._warn_of_few(validator)
        value = float(validator.state.metrics[self.metric])
        self.improved = value > self.best
        if self.improved:
            self.best, self.stale = value, 0
            if self.keep == "best":
                self._export()
            return
        self.stale += 1
        self._stop_if_stale(trainer)

    def state_dict(self) -> dict[str, float]:
        """Return the best value and the number of validations since."""
        return {"best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore `state_dict`."""
        if self.lacks_export():
            logger.warning("%s is not there: the next validation writes it, whatever its value", self.exported)
            return
        self.best, self.stale = state["best"], int(state["stale"])

    def lacks_export(self) -> bool:
        """Return whether the best epoch ships and its file is not there."""
        return self.keep == "best" and self.exported is not None and not self.exported.is_file()

    def export_again(self, source: Path) -> None:
        """Export the network, which has been restored from the checkpoint `source` of the best epoch."""
        logger.warning("%s is not there: written again from %s", self.exported, source)
        self._export()

    def _begin(self, engine: Engine) -> None:
        self.improved = False
        self._stop_if_stale(engine)  # a run that had ended by patience and is started again

    def _stop_if_stale(self, trainer: Engine) -> None:
        if self.patience is not None and self.stale >= self.patience:
            logger.info("no better %s in %d validations (best %.4f): stopping", self.metric, self.stale, self.best)
            trainer.terminate()

    def _warn_of_few(self, validator: Engine) -> None:
        cases = validator.state.epoch_length
        if self.keep == "best" and self.best == float("-inf") and cases is not None and cases < FEW:
            logger.warning(
                "the best epoch is chosen on %d validation case%s: that is chance. Leave keep at last, or list more",
                *(cases, "s" * (cases != 1)),
            )

    def _finish(self, engine: Engine) -> None:
        if self.keep == "last" or self.best == float("-inf"):
            self._export()
        if self.best > float("-inf"):
            logger.info("best %s %.4f", self.metric, self.best)

    def _export(self) -> None:
        if ranks.is_first():
            self.export()
