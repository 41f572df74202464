"""Checkpoints that a killed run continues from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import DiskSaver
from torch import distributed as dist

from common.errors import TskdError

logger = logging.getLogger(__name__)


class Checkpointing:
    """Saves `last.pt` after every epoch, atomically, and continues from it.

    Args:
        output_dir: folder of the run; the file is `output_dir/checkpoints/last.pt`.
        objects: name -> object with `state_dict` and `load_state_dict` (network, optimizer, schedule, EMA, ...).
        resume: "auto" continues from `last.pt` where it exists, "never" starts anew, a path continues from that file.
        identity: what must not change between a run and its continuation (classes, number of labels, the soft labels'
            hash, ...); a checkpoint with other values is refused.

    Raises:
        TskdError: on start, when the checkpoint belongs to another set-up, lacks objects or has other parameter names.
    """

    def __init__(
        self,
        output_dir: str | Path,
        objects: Mapping[str, Any],
        resume: str = "auto",
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(output_dir) / "checkpoints" / "last.pt"
        self.objects = objects
        self.resume = resume
        self.identity = {key: str(value) for key, value in (identity or {}).items()}

    def attach(self, engine: Engine) -> None:
        """Registers loading on the start and saving on the end of each epoch."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Saves on rank 0."""
        if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            return
        content = {name: _unwrap(item).state_dict() for name, item in self.objects.items()}
        content["progress"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        content["identity"] = self.identity
        saver = DiskSaver(str(self.path.parent), atomic=True, create_dir=True, require_empty=False)
        try:
            saver(content, self.path.name)
        except OSError as error:
            raise TskdError(
                f"{self.path}: cannot write the checkpoint ({error}). Free disk space, or choose another output_dir."
            ) from error

    def load(self, engine: Engine) -> None:
        """Restores all objects, the epoch and the iteration; does nothing where there is no checkpoint."""
        path = self.path if self.resume == "auto" else Path(self.resume)
        if self.resume == "never" or (self.resume == "auto" and not path.exists()):
            return
        content = torch.load(path, map_location="cpu", weights_only=True)
        self._check(path, content)
        for name, item in self.objects.items():
            try:
                _unwrap(item).load_state_dict(content[name])
            except (RuntimeError, ValueError) as error:
                raise TskdError(f"{path}: `{name}` does not fit this configuration: {error}") from error
        epoch = content["progress"]["epoch"]
        if epoch > engine.state.max_epochs:
            raise TskdError(
                f"{path} has already run {epoch} epochs, expected at most max_epochs = {engine.state.max_epochs}. "
                "Raise max_epochs, or choose another output_dir, or pass --resume never."
            )
        engine.state.epoch, engine.state.iteration = epoch, content["progress"]["iteration"]
        logger.info("continuing %s after epoch %d", path, epoch)

    def _check(self, path: Path, content: Mapping[str, Any]) -> None:
        differing = [
            f"{key}: this run has {value}, the checkpoint {content['identity'].get(key)}"
            for key, value in self.identity.items()
            if content["identity"].get(key) != value
        ]
        missing = [f"`{name}` is not in the checkpoint" for name in self.objects if name not in content]
        if differing or missing:
            raise TskdError(
                f"{path} belongs to another run; " + "; ".join(differing + missing) + ". Choose another output_dir or "
                "pass --resume never."
            )


def _unwrap(item: Any) -> Any:
    """The module inside DistributedDataParallel, so that names do not depend on the number of processes."""
    return item.module if isinstance(item, torch.nn.parallel.DistributedDataParallel) else item
