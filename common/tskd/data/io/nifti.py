"""Volumes: read NIfTI or DICOM, turn to LPS, scale to [0, 1], write a clean NIfTI.

An array is [X, Y, Z] and its affine maps (x, y, z, 1) to millimetres in nibabel's RAS+ world, whatever the source.
"""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from tskd.data.io.geometry import HALF, displacement, header_affine, orthogonal, same_position
from tskd.data.io.limits import VOLUME, max_bytes, refuse_larger
from tskd.errors import TskdError

NIFTI = (".nii", ".nii.gz")
_NIFTI2 = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # how a NIfTI-2 file begins
ROUNDING = 1e-3  # by which a label value may miss a whole number, as by a scale factor


def load_volume(path: str | os.PathLike[str], affine: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file or a folder with one DICOM series.

    Args:
        path: file or folder.
        affine: "sform" or "qform", to be believed where a NIfTI file's two forms disagree; None refuses such a file.

    Returns:
        Array [X, Y, Z], int16 if it holds whole numbers of that range as stored, else float32; affine 4 x 4 (RAS+, mm).

    Raises:
        TskdError: missing, damaged or cut file, not three-dimensional, geometry that contradicts itself (see
            `header_affine`), or a DICOM series that is not one regular volume.
    """
    if Path(path).is_dir():
        from tskd.data.io.dicom_series import read_series  # not with a shipped bundle, which reads files only

        array, matrix = read_series(path)
        return compact(array), matrix
    image = read_nifti(path)
    try:
        array = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel raises many kinds
        raise TskdError(f"{path}: expected a readable NIfTI file, found {error}. Copy the file again.") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise TskdError(
            f"{path}: expected a volume of 3 dimensions, found shape {array.shape}. Give one volume a file."
        )
    if array.dtype.kind not in "iubf":
        raise TskdError(f"{path}: expected one number a voxel, found {array.dtype} (colours?). Convert it to grey.")
    return compact(array), header_affine(image.header, array.shape, path, affine)


def read_nifti(path: str | os.PathLike[str]) -> nib.nifti1.Nifti1Image:
    """Return a NIfTI file, read to its last byte, so that the checksum of a packed one is verified.

    Raises:
        TskdError: no such file, another ending, a damaged file, one that unpacks to more than the limit, or bytes
            after the last voxel.
    """
    if not str(path).lower().endswith(NIFTI):
        raise TskdError(f"{path}: expected a NIfTI file (.nii, .nii.gz) or a folder with a DICOM series.")
    if not Path(path).is_file():
        raise TskdError(f"{path}: expected a NIfTI file, found no such file. Correct the path.")
    try:
        opened = gzip.open(path) if str(path).lower().endswith(".gz") else open(path, "rb")  # noqa: SIM115
        with opened as file:
            content = file.read(max_bytes(VOLUME) + 1)
        refuse_larger(len(content), VOLUME, path)
        kind = nib.nifti2.Nifti2Image if content[:4] in _NIFTI2 else nib.nifti1.Nifti1Image
        image = kind.from_bytes(content)
        offset = image.dataobj.offset  # type: ignore[attr-defined]
        end = offset + image.header.get_data_dtype().itemsize * int(np.prod(image.shape))
    except TskdError:
        raise
    except Exception as error:  # nibabel, gzip and zlib raise many kinds
        raise TskdError(f"{path}: expected a readable NIfTI file, found {error}. Copy the file again.") from error
    if content[end:].strip(b"\0"):
        raise TskdError(
            f"{path}: expected {image.shape} voxels and the end of the file, found {len(content) - end} bytes more. "
            "The header does not describe the whole file: write the volume again."
        )
    return image


def has_orientation(path: str | os.PathLike[str]) -> bool:
    """Return whether a volume says how it lies in the patient; a NIfTI file may not, and nibabel then takes LAS."""
    if Path(path).is_dir() or str(path).lower().endswith(".dcm"):
        return True
    try:
        opened = gzip.open(path) if str(path).lower().endswith(".gz") else open(path, "rb")  # noqa: SIM115
        with opened as file:
            content = file.read(540)
        nifti2 = content[:4] in _NIFTI2
        header = (nib.nifti2.Nifti2Header if nifti2 else nib.nifti1.Nifti1Header)(content[: 540 if nifti2 else 348])
    except Exception as error:  # nibabel, gzip and zlib raise many kinds
        raise TskdError(f"{path}: expected a readable NIfTI file, found {error}. Copy the file again.") from error
    return bool(header["sform_code"] or header["qform_code"])


def compact(array: np.ndarray) -> np.ndarray:
    """Return the array as int16 if its type is an integer and its values fit, else as float32."""
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
        Array and affine in the new order; each voxel keeps its position in the world.
    """
    now = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(now, orientations.axcodes2ornt(("L", "P", "S")))
    turned = np.ascontiguousarray(orientations.apply_orientation(array, turn))
    return turned, affine @ orientations.inv_ornt_aff(turn, array.shape)


def load_label(
    path: str | os.PathLike[str], shape: tuple[int, ...], affine: np.ndarray, form: str | None = None
) -> np.ndarray:
    """Read a label volume in the axis order of its image.

    Args:
        path: NIfTI file, whose axes may be in another order or direction than the image's, or a DICOM SEG.
        shape: of the image.
        affine: of the image.
        form: as `load_volume` takes it.

    Returns:
        uint8 array of the image's shape.

    Raises:
        TskdError: another size, another position (by half a voxel or half a millimetre), or values that are
            no class indices; an RTSTRUCT.
    """
    from tskd.data.io.dicom_segmentation import load_segmentation, segmentation_file  # needs pydicom

    if (segmentation := segmentation_file(path)) is not None:
        return load_segmentation(segmentation, shape, affine)
    label, label_affine = load_volume(path, form)
    turn = orientations.ornt_transform(orientations.io_orientation(label_affine), orientations.io_orientation(affine))
    label_affine = label_affine @ orientations.inv_ornt_aff(turn, label.shape)
    label = orientations.apply_orientation(label, turn)
    if label.shape != tuple(shape):
        raise TskdError(
            f"{path}: expected the size of its image {tuple(shape)}, found {label.shape}. Correct the pair."
        )
    if not same_position(label_affine, affine, label.shape):
        voxels = displacement(label_affine, affine, label.shape)
        distance = voxels * np.linalg.norm(affine[:3, :3], axis=0).min()
        raise TskdError(
            f"{path}: expected the place of its image, found a corner {_rounded(distance)} mm away from it "
            f"({voxels:.1f} voxels). Correct the pair, or resample the label to the image."
        )
    return as_label(label, path)


def _rounded(distance: float) -> str:
    return f"{distance:.1f}" if distance >= 0.1 else f"{distance:.2g}"


def write_volume(path: str | os.PathLike[str], array: np.ndarray, affine: np.ndarray) -> None:
    """Write .nii.gz with a header that holds shape, type, affine, spacing and the unit mm, and no text.

    The same array gives the same bytes (no time stamp). Give label volumes as uint8.

    Raises:
        TskdError: the path does not end with .nii.gz.
    """
    if not str(path).endswith(".nii.gz"):
        raise TskdError(f"{path}: expected a path that ends with .nii.gz. Rename it.")
    image = clean_image(array, affine)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as packed:
        packed.write(image.to_bytes())


def clean_image(array: np.ndarray, affine: np.ndarray) -> nib.nifti1.Nifti1Image:
    """Return a NIfTI image whose sform and qform are one geometry, with code 1 and the unit mm, and without any text.

    Raises:
        TskdError: axes that are off the right angle by more than half a voxel, which a qform cannot say.
    """
    straight = orthogonal(affine)
    if displacement(straight, affine, array.shape) > HALF:
        raise TskdError(f"affine: expected axes at right angles, found {affine.tolist()}. Resample the volume first.")
    image = nib.nifti1.Nifti1Image(array, straight)
    image.set_qform(straight, code=1)
    image.set_sform(straight, code=1)
    image.header.set_xyzt_units(xyz="mm")
    return image


def as_label(array: np.ndarray, where: str | os.PathLike[str]) -> np.ndarray:
    """Return a label array as uint8.

    Raises:
        TskdError: values that are not whole numbers from 0 to 255; `where` names the file in the message.
    """
    if array.dtype == np.uint8:
        return array.copy()
    label = np.rint(np.clip(array, 0, 255)).astype(np.uint8)
    off = ~(np.abs(label - array) <= ROUNDING)  # NaN is off, too
    if off.any():
        wrong = np.unique(array[off])[:5].tolist()
        factor = " A scale factor in the header (scl_slope, scl_inter) may be the cause: write the values unscaled."
        raise TskdError(
            f"{where}: expected label values that are whole numbers from 0 to 255, found {wrong}."
            + (factor if array.dtype.kind == "f" else "")
        )
    return label
