"""Several teachers of the same classes: their soft labels averaged, case by case, when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn import functional

from tskd.distillation.soft_labels.read import Folders, add_soft_labels, read_soft_labels
from tskd.errors import TskdError


def add_teachers(
    entries: Sequence[Mapping[str, Any]],
    folders: Folders | Sequence[Folders],
    weights: Sequence[float] | None = None,
    teacher: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return `add_soft_labels`, and with `weights` for several teachers: the files of all of them under `soft_labels`.

    Args:
        entries: datalist entries with `image` and `case`.
        folders: folder or folders of one teacher; with `weights` a list with the folder or folders of each teacher,
            which together have every entry.
        weights: weight of each teacher, above 0; None for one teacher.
        teacher: weights file that the soft labels of one teacher must come from, or None.
        preprocessing: values that each manifest's preprocessing must have (a subset of its keys).

    Raises:
        TskdError: when folders and weights do not belong together, or as `add_soft_labels`.
    """
    if weights is None:
        listed = [folders] if isinstance(folders, str | Path) else folders
        of_one = [folder for folder in listed if isinstance(folder, str | Path)]
        if len(of_one) < len(listed):
            raise TskdError(
                f"soft_labels: expected the folder or folders of one teacher, found {folders}. To average several, "
                "give teacher_weights, a number for each"
            )
        return add_soft_labels(entries, of_one, teacher=teacher, preprocessing=preprocessing)
    if isinstance(folders, str | Path) or len(folders) != len(weights) or not all(weight > 0 for weight in weights):
        raise TskdError(
            "teacher_weights: expected a number above 0 for each folder, or list of folders, of the list soft_labels, "
            f"found {list(weights)} for {folders}. Null stands for one teacher, whose cases may lie in several folders."
        )
    if teacher is not None:
        raise TskdError(f"teacher_model: expected None where teacher_weights are given, found {teacher}. Leave it out.")
    by_teacher = [add_soft_labels(entries, folder, preprocessing=preprocessing) for folder in folders]
    return [
        {**entry, "soft_labels": [each["soft_labels"] for each in same_case]}
        for entry, *same_case in zip(entries, *by_teacher, strict=True)
    ]


class AverageSoftLabelsd(MapTransform):
    """Reads what `add_teachers` has put under `soft_labels` into the keys `logits` and `embedding`.

    One file is read as it is. Of several, `logits` is the log of the averaged probabilities. Not the mean of logits:
    these have a scale of each network's own, so that the loudest teacher would win; averaged probabilities are the
    prediction of the ensemble. They are averaged at the highest resolution among the teachers. Embeddings of different
    networks have no axes in common: the first teacher's is taken.

    Args:
        weights: weight of each file, which need not sum to 1; None for one file.
        embedding: whether the first teacher's embedding is read.
        logits: whether the logits are read.

    Shape:
        logits C x h x w, float16: their softmax is the average; embedding E x h x w, float16.

    Raises:
        TskdError: when the teachers have different numbers of classes, or a file lacks what is wanted.
    """

    def __init__(self, weights: Sequence[float] | None = None, embedding: bool = True, logits: bool = True) -> None:
        super().__init__(keys=["soft_labels"])
        self.weights = weights
        self.wanted = [key for key, asked in (("logits", logits), ("embedding", embedding)) if asked]

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry with the arrays in place of the paths."""
        entry = dict(data)
        paths = entry.pop("soft_labels")
        if self.weights is None:
            return entry | read_soft_labels(paths, self.wanted)
        first, *further = paths
        entry |= read_soft_labels(first, self.wanted)
        if "logits" in self.wanted:
            logits = [entry["logits"], *(read_soft_labels(path, ["logits"])["logits"] for path in further)]
            if len({len(one) for one in logits}) > 1:
                raise TskdError(
                    f"{first}: expected the same classes of every teacher, found {[len(one) for one in logits]} classes"
                )
            entry["logits"] = averaged(logits, self.weights)
        return entry


def averaged(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Log of the weighted mean of the softmaxes of C x h x w logits, at the largest h x w; float16."""
    size = max((tuple(one.shape[1:]) for one in logits), key=lambda shape: shape[0] * shape[1])
    shares = (torch.tensor(weights, dtype=torch.float32) / sum(weights)).log()
    logs = []
    for one, share in zip(logits, shares, strict=True):
        log = one.float().log_softmax(0)
        if tuple(one.shape[1:]) != size:
            mixed = functional.interpolate(log.exp()[None], size=size, mode="bilinear", align_corners=False)[0]
            log = mixed.clamp(min=torch.finfo(torch.float32).tiny).log()
        logs.append(log + share)
    return torch.stack(logs).logsumexp(0).half()
