"""Soft labels: what the teacher says about every image, written once.

Layout of a folder: `<case>.safetensors` with `logits` (C x 4h x 4w, float16) or `embedding` (256 x h x w, float16) or
both, and `manifest.json`: the teacher's sha256, the preprocessing, and for each case the sha256 of its image file and,
where an out-of-fold teacher taught it, which one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from tskd.distillation.soft_labels.manifest import MANIFEST, Manifest, case_file, transforms_sha256
from tskd.distillation.soft_labels.predict import Predictions
from tskd.distillation.soft_labels.verify import check_soft_labels
from tskd.errors import TskdError
from tskd.files import atomic, sha256
from tskd.progress_file import FollowedBar

logger = logging.getLogger(__name__)


def write_soft_labels(
    network: torch.nn.Module,
    entries: Sequence[Mapping[str, Any]],
    preprocessing: Any,
    output_dir: str | Path,
    teacher: str | Path,
    description: Mapping[str, Any],
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    embedding: bool = True,
    dtype: str | None = None,
    num_workers: int = 0,
    logits: bool = True,
    tta: Mapping[str, Any] | None = None,
    fold_models: Sequence[str | Path] = (),
    case_folds: Mapping[str, int] | None = None,
    check: int = 0,
    grid: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Path:
    """Run the teacher over `entries` and write one file a case; cases already there are kept.

    Args:
        network: `PromptFreeSam` with the weights of `teacher` loaded.
        entries: datalist entries with `image` and `case`; case names must be unique.
        preprocessing: MONAI transform from {"image": path} to {"image": c x H x W in [0, 1]}.
        output_dir: folder to write.
        teacher: the teacher's weights file; its sha256 goes to the manifest.
        description: the preprocessing in words and numbers (image size, intensity range, channels), for the manifest.
        device: where the teacher runs.
        batch_size: images at a time.
        embedding: whether the image embedding is written beside the logits.
        dtype: autocast type such as "bfloat16", or None.
        num_workers: processes that load images.
        logits: whether the logits are written; false for a foundation model that has not been tuned to any task.
        tta: test-time augmentation {"flips": axes, "scales": factors} whose logits are averaged, or None.
        fold_models: weights files of out-of-fold teachers, one a fold.
        case_folds: case -> fold of the labelled cases (`tskd.data.case_folds`); fold k is taught by fold_models[k],
            which has not seen its patients.
        check: how many random entries are recomputed and compared at the end.
        grid: longest side of the logits, which are averaged down to it (`grid_for`); None for the teacher's own.
        rank: this process does every `world_size`-th entry.
        world_size: number of processes that write this folder together.

    Returns:
        Path of the manifest, which is there once all processes are done.

    Raises:
        TskdError: when neither logits nor embedding are wanted, the folder holds soft labels of another teacher or
            preprocessing, case names repeat, a fold has no model, a file cannot be written or the check fails.
    """
    keys = [key for key, asked in (("logits", logits), ("embedding", embedding)) if asked]
    if not keys:
        raise TskdError("soft labels: expected logits or embedding to be true, found both false; nothing to write")
    folder = Path(output_dir)
    counts = Counter(entry["case"] for entry in entries)
    if repeated := sorted(case for case, count in counts.items() if count > 1):
        raise TskdError(
            f"soft labels: expected unique case names, found more than once: {repeated[:5]}. Write those "
            "of each data set into a folder of its own, and give distill.json the list of these folders"
        )
    folds = {case: fold for case, fold in (case_folds or {}).items() if case in counts}
    predictions = Predictions(
        network, teacher, preprocessing, fold_models, folds, tta, keys, device, batch_size, dtype, num_workers, grid
    )
    header = {
        "teacher": sha256(teacher), "preprocessing": dict(description), "embedding": embedding, "logits": logits,
        "transforms": transforms_sha256(preprocessing), "autocast": dtype, "dtype": "float16",
        "tta": dict(tta) if tta else None, "fold_teachers": [sha256(file) for file in fold_models], "grid": grid,
    }  # fmt: skip
    wanted: dict[str, dict[str, Any]] = {
        entry["case"]: {"image": sha256(entry["image"])}
        | ({"fold": folds[entry["case"]]} if entry["case"] in folds else {})
        for entry in entries
    }
    manifest = Manifest(folder, header, wanted, rank, world_size)
    mine = entries[rank::world_size]
    todo = [entry for entry in mine if not manifest.done(entry["case"])]
    logger.info("%d of %d cases have their soft labels already", len(mine) - len(todo), len(mine))
    with FollowedBar(total=len(todo), desc="soft labels", unit="image", disable=rank > 0) as bar:
        for names, batch in predictions(todo):
            for case, arrays in zip(names, batch, strict=True):
                _save(case_file(folder, case), arrays)
                manifest.add(case, {key: list(value.shape) for key, value in arrays.items()})
            bar.update(len(names))
            manifest.save()
    if manifest.finish() and check:
        check_soft_labels(predictions, entries, folder, check)
    return folder / MANIFEST


def _save(path: Path, arrays: dict[str, torch.Tensor]) -> None:
    try:
        with atomic(path) as draft:
            save_file(arrays, draft)
    except (TskdError, SafetensorError) as error:
        raise TskdError(
            f"{path}: cannot write the soft labels ({error}). Free disk space and run again: finished cases are kept."
        ) from error
