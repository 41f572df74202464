"""Checkpoints that a killed run continues from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from tskd import ranks
from tskd.errors import TskdError
from tskd.files import lock_folder, remove_drafts
from tskd.handlers.best_model import BestModel
from tskd.handlers.run_config import MAY_DIFFER, is_below, running_parser, training_identity, used_settings
from tskd.state import copy_file, read_tensors, save_tensors

logger = logging.getLogger(__name__)

SHOWN = 8  # differences that a refusal names
OLDER = {  # names in the identity of older checkpoints
    "images_an_update": "effective_batch_size",
    "surest_synthetic": "max_confident_synthetic",
}
VERSION = 2  # of the identity: all settings of the config; before, a list of them


class Checkpointing:
    """Save `last.pt` after every epoch, atomically, and continue from it; `best.pt` is the one of the best epoch.

    A checkpoint is bound to the config that it was written with: all settings but `run_config.MAY_DIFFER`, and the
    fingerprints of the files that the training reads. Where the best epoch ships and its export has gone, as a workflow
    removes the outputs of a step that was interrupted, it is exported again from `best.pt`.

    Args:
        output_dir: folder of the run; the files are in `output_dir/checkpoints`.
        objects: name -> object with `state_dict` and `load_state_dict` (network, optimizer, EMA, ...), or None for one
            that is switched off.
        resume: "auto" continues from `last.pt` where it exists, "never" starts anew, a path continues from that file.
        fingerprints: name -> what identifies the content of files (the data set, the teacher's weights, ...).
        best: one more object; its attribute `improved` tells whether the epoch is the best so far. None: no `best.pt`.
        may_differ: keys of the config, with `#` between their levels, that may differ from the checkpoint's.

    Raises:
        TskdError: on start, when another process runs in this folder, or the checkpoint cannot be read, belongs to
            another set-up, lacks objects or has other parameter names; at the end of an epoch, when it cannot be
            written.
    """

    def __init__(
        self,
        output_dir: str | Path,
        objects: Mapping[str, Any],
        resume: str = "auto",
        fingerprints: Mapping[str, Any] | None = None,
        best: BestModel | None = None,
        may_differ: Sequence[str] = (),
    ) -> None:
        self.path = Path(output_dir) / "checkpoints" / "last.pt"
        self.objects = {name: item for name, item in [*objects.items(), ("best", best)] if item is not None}
        self.resume = resume
        self.best = best
        self.fingerprints = {key: str(value) for key, value in (fingerprints or {}).items()}
        self.may_differ = may_differ
        self.parser = running_parser()

    def attach(self, engine: Engine) -> None:
        """Register loading on the start and, from there, saving on the end of each epoch.

        Registered so late, saving comes after all else that happens at the end of an epoch (a validation, the look for
        a loss that is not finite), in whatever order the handlers are attached.
        """
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        if ranks.is_first():
            lock_folder(self.path.parents[1])
            remove_drafts(self.path.parent)
        if hasattr(engine, "data_loader"):
            steps = getattr(engine, "accumulation_steps", 1)
            self.fingerprints["effective_batch_size"] = str(engine.data_loader.batch_size * steps * ranks.world_size())
        self.load(engine)
        if len(epochs := set(ranks.gather(engine.state.epoch))) > 1:
            raise TskdError(
                f"{self.path}: expected all processes to continue after the same epoch, found {sorted(epochs)}. Give "
                "them an output_dir that they share, or set resume to never."
            )
        if not engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save on rank 0."""
        if not ranks.is_first():
            return
        content = {name: _unwrap(item).state_dict() for name, item in self.objects.items()}
        content["progress"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        content["identity"], content["identity_version"] = self.identity, VERSION
        if self.best is not None and self.best.improved:  # first: whoever continues from last.pt may need it
            save_tensors(content, self.path.with_name("best.pt"))
            copy_file(self.path.with_name("best.pt"), self.path)
        else:
            save_tensors(content, self.path)

    def load(self, engine: Engine) -> None:
        """Restore all objects, the epoch and the iteration; do nothing where there is no checkpoint."""
        path = self.path if self.resume == "auto" else Path(self.resume)
        if self.resume == "never" or (self.resume == "auto" and not path.exists()):
            return
        content = self._read(path)
        best = path.with_name("best.pt")
        if self.best is not None and self.best.lacks_export() and best.is_file():
            self._restore(self._read(best), best)
            self.best.export_again(best)
        self._restore(content, path)
        epoch = content["progress"]["epoch"]
        if epoch > engine.state.max_epochs:
            raise TskdError(
                f"{path} has already run {epoch} epochs, expected at most max_epochs = {engine.state.max_epochs}. "
                "Raise max_epochs, or choose another output_dir, or set resume to never."
            )
        engine.state.epoch, engine.state.iteration = epoch, content["progress"]["iteration"]
        logger.info("continuing %s after epoch %d", path, epoch)

    def _restore(self, content: Mapping[str, Any], path: Path) -> None:
        for name, item in self.objects.items():
            try:
                _unwrap(item).load_state_dict(content[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise TskdError(f"{path}: `{name}` does not fit this configuration: {error}") from error

    def _read(self, path: Path) -> dict[str, Any]:
        content = read_tensors(path)
        if not isinstance(content, dict) or not {"progress", "identity"} <= content.keys():
            raise TskdError(
                f"{path}: expected a checkpoint (checkpoints/last.pt of a run), found another file. "
                "Weights to start from are `init_weights` or `weights`."
            )
        differing = self._differences(content["identity"], content.get("identity_version", 1))
        missing = [f"`{name}` is not in the checkpoint" for name in self.objects if name not in content]
        if problems := differing + missing:
            more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise TskdError(
                f"{path} belongs to another run; {'; '.join(problems[:SHOWN])}{more}. Choose another output_dir or set "
                "resume to never. If it is the same training all the same, name what differs in "
                "train#named_handlers#checkpoint#may_differ."
            )
        return content

    @property
    def identity(self) -> dict[str, str]:
        """What has to agree: the fingerprints, and the settings of the config."""
        return {**training_identity(self.parser), **self.fingerprints}

    def _differences(self, stored: Mapping[str, str], version: int) -> list[str]:
        """One line a value that is not the checkpoint's; of an older checkpoint only what it and this run both name."""
        current = self.identity
        stored = {OLDER.get(key, key): value for key, value in stored.items()}
        # keys of the config (fingerprints have no levels) that were compared once, and may differ now
        stored = {key: value for key, value in stored.items() if "#" not in key or not is_below(key, MAY_DIFFER)}
        keys = list(dict.fromkeys([*current, *stored]))
        if version < VERSION:
            settings = {key: current.get(key, str(value)) for key, value in used_settings(self.parser).items()}
            current = {**settings, **self.fingerprints}
            keys = [key for key in stored if key in current]
        return [
            f"{key}: this run has {current.get(key)}, the checkpoint {stored.get(key)}"
            for key in keys
            if current.get(key) != stored.get(key) and not is_below(key, self.may_differ)
        ]


def _unwrap(item: Any) -> Any:
    """Return the module inside DistributedDataParallel, so that names do not depend on the number of processes."""
    return item.module if isinstance(item, torch.nn.parallel.DistributedDataParallel) else item
