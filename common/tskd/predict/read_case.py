"""Read a case as an array with its affine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tskd.data.io.dicom_series import read_series
from tskd.data.io.image_files import colour_note, read_image
from tskd.data.io.nifti import compact, has_orientation, load_volume
from tskd.errors import TskdError
from tskd.predict.find_cases import Case
from tskd.predict.itk_header import check_unit, says_orientation
from tskd.predict.shipped_bundle import ShippedBundle


@dataclass
class LoadedImage:
    """Image as an array with its affine.

    Args:
        array: volume [X, Y, Z], or picture uint8 [rows, columns(, 3)].
        affine: of a volume, 4 x 4 (RAS+, mm); None of a picture.
        warnings: what its reader should know.
    """

    array: np.ndarray
    affine: np.ndarray | None
    warnings: list[str] = field(default_factory=list)


def read_case(case: Case, bundle: ShippedBundle) -> LoadedImage:
    """Read an image of the kind that the bundle takes.

    Raises:
        TskdError: another kind, NRRD or MetaImage in another unit than mm, or as the readers of `tskd.data.io`.
    """
    if (case.kind == "picture") != bundle.pictures:
        expected, actual = ("pictures", "a volume") if bundle.pictures else ("volumes", "a picture")
        raise TskdError(f"{case.display_name}: expected {expected}, which this bundle was trained on, found {actual}.")
    if case.kind == "picture":
        note = colour_note(case.files[0], bundle.channels)
        return _add_warnings(LoadedImage(read_image(case.files[0], bundle.channels), None, [note] if note else []))
    if case.kind == "dicom":
        array, affine = read_series(case.files[0].parent, case.files)
        return _add_warnings(LoadedImage(compact(array), affine))
    if case.kind == "itk":
        array, affine = _read_itk(case.files[0])
        oriented = says_orientation(case.files[0])
    else:
        array, affine = load_volume(case.files[0])
        oriented = has_orientation(case.files[0])
    return _add_warnings(
        LoadedImage(array, affine, [] if oriented else ["the file does not say how it lies in the patient"])
    )


def _add_warnings(image: LoadedImage) -> LoadedImage:
    """Add a warning about an image that is constant or has non-finite voxels."""
    finite = np.isfinite(image.array)
    if not finite.all():
        image.warnings.append(f"{int((~finite).sum())} voxels are not finite")
    if image.array.size and image.array.min() == image.array.max():
        image.warnings.append("the same intensity everywhere")
    return image


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import SimpleITK
    except ImportError as error:
        raise TskdError(f"{path}: expected SimpleITK, which reads this format, found it not installed. "
                        "pip install SimpleITK") from error  # fmt: skip
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise TskdError(f"{path}: expected a readable file, found {last}. Copy it again.") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise TskdError(
            f"{path}: expected a volume of 3 dimensions with one number a voxel, found {image.GetDimension()} "
            f"dimensions and {image.GetNumberOfComponentsPerPixel()} numbers."
        )
    check_unit(path)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return compact(array), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
