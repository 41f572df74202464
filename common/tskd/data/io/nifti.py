"""Volumes: read NIfTI or DICOM, turn to LPS, scale to [0, 1], write a clean NIfTI.

An array is [X, Y, Z] and its affine maps (x, y, z, 1) to millimetres in nibabel's RAS+ world, whatever the source.
"""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from tskd.data.io.dicom_series import read_series
from tskd.errors import TskdError

NIFTI = (".nii", ".nii.gz")


def load_volume(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file or a folder with one DICOM series.

    Returns:
        Array [X, Y, Z], int16 if it holds whole numbers of that range as stored, else float32; affine 4 x 4 (RAS+, mm).

    Raises:
        TskdError: missing or unreadable file, not three-dimensional, or a DICOM series that is not one regular volume.
    """
    if Path(path).is_dir():
        array, affine = read_series(path)
        return compact(array), affine
    if not str(path).endswith(NIFTI):
        raise TskdError(f"{path}: expected a NIfTI file (.nii, .nii.gz) or a folder with a DICOM series.")
    if not Path(path).is_file():
        raise TskdError(f"{path}: expected a NIfTI file, found no such file. Correct the path.")
    try:
        image = nib.nifti1.load(path)
        array, affine = np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
    except Exception as error:  # nibabel, gzip and zlib raise many kinds
        raise TskdError(f"{path}: expected a readable NIfTI file, found {error}. Copy the file again.") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise TskdError(
            f"{path}: expected a volume of 3 dimensions, found shape {array.shape}. Give one volume a file."
        )
    if array.dtype.kind not in "iubf":
        raise TskdError(f"{path}: expected one number a voxel, found {array.dtype} (colours?). Convert it to grey.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise TskdError(
            f"{path}: expected an affine with three axes, found {affine.tolist()}. Correct the file's sform or qform."
        )
    return compact(array), affine


def has_orientation(path: str | os.PathLike[str]) -> bool:
    """Whether a volume says how it lies in the patient; a NIfTI file may not, and nibabel then takes LAS."""
    if Path(path).is_dir():
        return True
    header = nib.nifti1.load(path).header
    return bool(header["sform_code"] or header["qform_code"])


def compact(array: np.ndarray) -> np.ndarray:
    """The array as int16 if its type is an integer and its values fit, else as float32."""
    limits = np.iinfo(np.int16)
    if array.dtype.kind in "iub" and (array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max)):
        return array.astype(np.int16)
    return array.astype(np.float32)


def to_lps(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip and permute axes so that x grows to the patient's left, y to posterior, z to superior; no resampling.

    Args:
        array: [X, Y, Z].
        affine: its 4 x 4 affine (RAS+, mm); for oblique volumes the nearest axes are taken.

    Returns:
        Array and affine in the new order; each voxel keeps its place in the world.
    """
    now = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(now, orientations.axcodes2ornt(("L", "P", "S")))
    turned = np.ascontiguousarray(orientations.apply_orientation(array, turn))
    return turned, affine @ orientations.inv_ornt_aff(turn, array.shape)


def load_label(path: str | os.PathLike[str], shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Read a label volume in the axis order of its image.

    Args:
        path: NIfTI file; its axes may be in another order or direction than the image's.
        shape: of the image.
        affine: of the image.

    Returns:
        uint8 array of the image's shape.

    Raises:
        TskdError: another size, another place in the world (by half a millimetre), or values that are no class indices.
    """
    label, place = load_volume(path)
    turn = orientations.ornt_transform(orientations.io_orientation(place), orientations.io_orientation(affine))
    place = place @ orientations.inv_ornt_aff(turn, label.shape)
    label = orientations.apply_orientation(label, turn)
    if label.shape != tuple(shape):
        raise TskdError(
            f"{path}: expected the size of its image {tuple(shape)}, found {label.shape}. Correct the pair."
        )
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*shape, 1]
    distance = np.abs(corners @ (affine - place).T).max()
    if distance > 0.5:
        raise TskdError(
            f"{path}: expected the place of its image, found a corner {distance:.1f} mm away from it. Correct the "
            "pair, or resample the label to the image."
        )
    return as_label(label, path)


def same_grid(affine: np.ndarray, reference: np.ndarray) -> bool:
    """Whether two affines are one but for rounding: to a thousandth, and to a hundredth of a millimetre near zero."""
    return affine.shape == reference.shape and bool(np.allclose(affine, reference, rtol=1e-3, atol=1e-2))


def write_volume(path: str | os.PathLike[str], array: np.ndarray, affine: np.ndarray) -> None:
    """Write .nii.gz with a header that holds shape, type, affine, spacing and the unit mm, and no text.

    The same array gives the same bytes (no time stamp). Give label volumes as uint8.

    Raises:
        TskdError: the path does not end with .nii.gz.
    """
    if not str(path).endswith(".nii.gz"):
        raise TskdError(f"{path}: expected a path that ends with .nii.gz. Rename it.")
    image = nib.nifti1.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units(xyz="mm")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as packed:
        packed.write(image.to_bytes())


def as_label(array: np.ndarray, where: str | os.PathLike[str]) -> np.ndarray:
    """A label array as uint8.

    Raises:
        TskdError: values that are not whole numbers from 0 to 255; `where` names the file in the message.
    """
    label = np.rint(np.clip(array, 0, 255)).astype(np.uint8)
    if not np.array_equal(label, array):
        wrong = np.unique(array[label != array])[:5].tolist()
        raise TskdError(f"{where}: expected label values that are whole numbers from 0 to 255, found {wrong}.")
    return label
