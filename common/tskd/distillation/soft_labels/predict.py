"""What the teachers say: batches of soft labels, each case by the teacher that it should have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import DataLoader, Dataset

from tskd.distillation.soft_labels.tta import with_tta
from tskd.errors import TskdError
from tskd.inferers import autocast_dtype
from tskd.networks.bundle_teacher import load_checkpoint

Entry = Mapping[str, Any]


class _Images(Dataset):
    """Preprocessed images of datalist entries with their case names."""

    def __init__(self, entries: Sequence[Entry], preprocessing: Any) -> None:
        self.entries, self.preprocessing = entries, preprocessing

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        entry = self.entries[index]
        image = self.preprocessing({"image": entry["image"]})["image"]
        return entry["case"], torch.as_tensor(image).as_subclass(Tensor)


@dataclass
class Predictions:
    """The teacher with its out-of-fold stand-ins; called with entries, it yields (case names, arrays) batch by batch.

    Args:
        network: network with the weights of `teacher` loaded.
        teacher: weights file of the teacher.
        preprocessing: from {"image": path} to {"image": c x H x W in [0, 1]}.
        fold_models: weights files of the teachers that were trained outside each fold.
        case_folds: case -> index of the model in `fold_models`; every other case is the teacher's.
        tta: options of test-time augmentation, or None; the embedding is the plain image's either way.
        keys: which of "logits" and "embedding" are wanted.
        device: where the network runs.
        batch_size: images at a time.
        dtype: autocast type such as "bfloat16", or None.
        num_workers: processes that load images.
        grid: longest side of the logits, which are averaged down to it; None for the teacher's own.

    Raises:
        TskdError: when a case belongs to a fold without a model, or for another autocast type than bfloat16.
    """

    network: torch.nn.Module
    teacher: str | Path
    preprocessing: Any
    fold_models: Sequence[str | Path] = ()
    case_folds: Mapping[str, int] = field(default_factory=dict)
    tta: Mapping[str, Any] | None = None
    keys: Sequence[str] = ("logits", "embedding")
    device: str | torch.device = "cpu"
    batch_size: int = 8
    dtype: str | None = None
    num_workers: int = 0
    grid: int | None = None

    def __post_init__(self) -> None:
        if wrong := sorted({fold for fold in self.case_folds.values() if fold not in range(len(self.fold_models))}):
            raise TskdError(
                f"fold_models: expected a model for each fold of the labelled cases, found {len(self.fold_models)} "
                f"models and cases of fold {wrong[0]}. List one model file a fold, in their order."
            )
        autocast_dtype(self.dtype)
        self.network.eval().to(self.device)
        self._loaded: int | None = None

    def __call__(self, entries: Sequence[Entry]) -> Iterator[tuple[list[str], list[dict[str, Tensor]]]]:
        """Yield names and {key: float16 array} of each batch; the teacher's own cases first, then fold by fold."""
        tta = self.tta if "logits" in self.keys else None
        for fold in (None, *range(len(self.fold_models))):
            chosen = [entry for entry in entries if self.case_folds.get(entry["case"]) == fold]
            if not chosen:
                continue
            self._load(fold)
            loader = DataLoader(_Images(chosen, self.preprocessing), self.batch_size, num_workers=self.num_workers)
            network = None
            for names, batch in loader:
                network = network or with_tta(self.network, batch.shape[-1], tta)
                yield list(names), self._predict(network, batch)
        self._load(None)

    def _load(self, fold: int | None) -> None:
        """Put the weights of a fold's model into the network, or those of the teacher."""
        if fold != self._loaded:
            load_checkpoint(self.network, self.teacher if fold is None else self.fold_models[fold])
            self._loaded = fold

    @torch.inference_mode()
    def _predict(self, network: Any, batch: Tensor) -> list[dict[str, Tensor]]:
        batch = batch.to(self.device, non_blocking=True)
        kind = autocast_dtype(self.dtype)
        with torch.autocast(batch.device.type, kind, enabled=kind is not None):
            features = network.forward_features(batch)
        names = {"logits": "logits_low", "embedding": "embedding"}
        if missing := [key for key in self.keys if names[key] not in features]:
            raise TskdError(
                f"{missing[0]}: expected a teacher that has it, found only {', '.join(features)} of a "
                f"{type(network).__name__}. Write the soft labels with --{missing[0]} False; a distillation without it "
                f"sets the weights of its terms to 0 (loss#terms#embedding#weight 0)"
            )
        height, width = features["logits_low"].shape[2:] if "logits" in self.keys else (0, 0)
        if self.grid and max(height, width) > self.grid:
            size = (min(height, self.grid), min(width, self.grid))
            features = {**features, "logits_low": adaptive_avg_pool2d(features["logits_low"].float(), size)}
        arrays = {key: features[names[key]].to(torch.float16).cpu() for key in self.keys}
        return [{key: value[i].contiguous() for key, value in arrays.items()} for i in range(len(batch))]
