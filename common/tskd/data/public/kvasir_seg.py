"""Prepare Kvasir-SEG, polyps in colonoscopy images; its masks are JPEG and are read at half their white."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tskd.data.public.image_parts import black_and_white, paired, prepare_parts, rewritten

_ABOUT: dict[str, Any] = {
    "name": "kvasir_seg",
    "modality": "endoscopy",
    "labels": {"0": "background", "1": "polyp"},
    "provenance": {
        "source": "Kvasir-SEG (D. Jha et al., Kvasir-SEG: a segmented polyp dataset, MMM 2020, arXiv:1911.07069)",
        "licence": "research and education, terms of Simula",
        "masks": "JPEG; above 127 of 255 is the polyp",
    },
}


def prepare_kvasir_seg(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare Kvasir-SEG (1,000 images).

    Args:
        source: folder Kvasir-SEG with images/*.jpg and masks/*.jpg of the same names.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: draws the lists (test a fifth, validation a tenth) and orders the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 instead: its test list is that fold.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        pictures = [
            replace(p, label=rewritten(Path(folder), p, "masks", black_and_white(p.label), p.label))
            for p in paired(Path(source, "images"), Path(source, "masks"))
            if p.label
        ]
        return prepare_parts(output, _ABOUT, {"train": pictures}, 3, seed, fold, folds)
