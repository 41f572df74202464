"""Segment a shipped bundle's files one by one: what cannot be read is named, the rest is segmented.

`tskd ship` copies this module, and those that it imports, into the bundle's `scripts/`: they need nothing else of tskd.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import DataLoader
from torch.utils.data import Subset

from tskd.data.io.nifti import NIFTI, has_orientation, load_volume, write_volume
from tskd.errors import TskdError
from tskd.files import atomic


def segment(evaluator: Any, postprocessing: Any, files: Sequence[str], folder: str, output: str, channels: int) -> None:
    """Write a mask for each file, and at the end a line for each that has none.

    Args:
        evaluator: MONAI's SupervisedEvaluator whose dataset has the files in this order.
        postprocessing: its transforms, of which one saves.
        files: volumes or pictures.
        folder: where they lie; its other files are counted.
        output: folder of the masks.
        channels: of the images, 1 or 3.

    Raises:
        SystemExit: with the names and causes of files that could not be segmented.
    """
    names = mask_names([Path(file).name for file in files])
    listed = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    unused = [path.name for path in listed if path.name not in names]
    saver = next(step.saver for step in postprocessing.transforms if type(step).__name__ == "SaveImaged")
    dataset, failed = evaluator.data_loader.dataset, []
    evaluator.state.epoch_length = 1  # each run is one file
    for number, file in enumerate(files):
        name = names[Path(file).name]
        saver.fname_formatter = _named(f"{name}.image")  # MONAI cuts an ending off
        evaluator.data_loader = DataLoader(Subset(dataset, [number]), batch_size=1)
        try:
            geometry = _checked(file, channels)
            evaluator.run()
            if not any(Path(output).glob(f"{escape(name)}_seg.*")):
                raise TskdError(f"{file}: expected a mask in {output}, found none written.")
            if geometry is not None:
                _set_geometry(Path(output, f"{name}_seg.nii.gz"), *geometry)
        except Exception as error:  # one file must not end the others' run
            # else ignite's next run would go on with this one, and end at once
            evaluator._internal_run_generator = None
            failed.append(_line(file, error))
            print(failed[-1], file=sys.stderr)
    print(f"{len(files) + len(unused)} found, {len(files) - len(failed)} segmented, {len(failed)} failed", end="")
    print(f"; not used: {len(unused)} others ({', '.join(unused[:4])})" if unused else "")
    if failed:
        sys.exit("\n".join([f"{len(failed)} of {len(files)} files are not segmented:", *failed]))


def mask_names(files: Iterable[str]) -> dict[str, str]:
    """File name -> name of its mask without "_seg": the name without endings, or the whole where that is not unique."""
    files = list(files)
    stems = {file: _stem(file) for file in files}
    taken = Counter(word for file in files for word in {file.lower(), stems[file].lower()})
    return {file: stems[file] if taken[stems[file].lower()] == 1 else file for file in files}


def _stem(file: str) -> str:
    stem = file[:-3] if file.lower().endswith(".gz") else file
    return stem.rpartition(".")[0] or stem


def _named(name: str) -> Any:
    return lambda meta, saver: {"subject": name, "idx": None}


def _checked(file: str, channels: int) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Shape and affine of a volume, after it was read to its end; None of a picture.

    Raises:
        TskdError: a file that is damaged, or means something else than its numbers.
    """
    if not file.lower().endswith(NIFTI):
        from tskd.data.io.image_files import colour_note, read_image  # needs Pillow

        read_image(Path(file), channels)
        if note := colour_note(Path(file), channels):
            print(f"warning: {file}: {note}", file=sys.stderr)
        return None
    array, affine = load_volume(file)
    if not array.size or not np.isfinite(array.astype(np.float32)).any():
        raise TskdError(f"{file}: expected voxels with intensities, found {array.shape} and none finite.")
    if not has_orientation(file):
        print(f"warning: {file}: the file does not say how it lies in the patient", file=sys.stderr)
    return array.shape, affine


def _set_geometry(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Write the mask anew with the axes of its image (a single slice stays a volume), one geometry and the unit mm."""
    import nibabel as nib

    mask = np.asarray(nib.load(path).dataobj, np.uint8).reshape(shape)  # type: ignore[attr-defined]
    with atomic(path) as draft:
        write_volume(draft, mask, affine)


def _line(file: str, error: BaseException) -> str:
    """One line about a file, with the innermost cause."""
    while error.__cause__ is not None and not isinstance(error, TskdError):
        error = error.__cause__
    said = " ".join(str(error).split()) or type(error).__name__
    return said if file in said else f"{file}: {said}"
