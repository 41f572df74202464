"""Read a folder with one DICOM series as a volume."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tskd.data.io.identities import identity_words
from tskd.data.io.limits import PICTURE, refuse_larger
from tskd.data.io.multi_frame import split_frames
from tskd.errors import TskdError

_SAME = ("SeriesInstanceUID", "Rows", "Columns", "ImageOrientationPatient", "PixelSpacing")
_NEEDED = ("ImagePositionPatient", *_SAME)
_GAP_TOLERANCE = 0.01  # share of the slice distance
_ROUNDING = 0.11  # mm by which two positions with one decimal are further apart or nearer than they were


def read_series(folder: str | os.PathLike[str], files: Sequence[Path] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read one DICOM series as a volume.

    Slices are sorted by their position along the slice normal; the Modality LUT, or RescaleSlope and RescaleIntercept,
    are applied; window settings, which are for display, are not. Files in the folder that are not DICOM images are
    passed over (`unused_files` names them).

    Args:
        folder: folder with the files of exactly one series of single-channel images: a file a slice, or enhanced
            multi-frame files (CT, MR).
        files: the series' files where the folder has others, too; of one file, the slice's thickness is the third
            spacing.

    Returns:
        Array [X, Y, Z] (x along a row of the image, y down a column), int32, or float32 if a slope or an intercept is
        fractional; affine 4 x 4 from voxel to millimetres in RAS+ (nibabel's convention, x and y opposite to DICOM's).

    Raises:
        TskdError: no DICOM image, several series, frames or channels, differing size, spacing or orientation, missing
            tags, repeated, missing or unevenly spaced slices (by more than 1% and more than positions rounded to one
            decimal explain), tilted gantry, unreadable pixels.
    """
    with _readable_tags(folder):
        return _volume(folder, _slices(folder, files))


@contextmanager
def _readable_tags(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Raise what pydicom raises where it first looks at a damaged tag as an error of ours."""
    try:
        yield
    except TskdError:
        raise
    except Exception as error:  # it raises many kinds
        raise TskdError(
            f"{folder}: expected readable DICOM tags, found {error}. Copy or export the series again."
        ) from error


def _volume(
    folder: str | os.PathLike[str], slices: list[tuple[Path, pydicom.Dataset]]
) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine of the slices of a series."""
    first = slices[0][1]
    rows, columns = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(rows, columns)
    positions = np.array([data.ImagePositionPatient for _, data in slices], dtype=float)  # N x 3, mm, LPS
    if len(slices) > 1:
        step = _slice_step(folder, positions, normal, [path.name for path, _ in slices])
    else:
        step = normal * float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1)

    affine = np.eye(4)
    affine[:3, 0] = rows * float(first.PixelSpacing[1])
    affine[:3, 1] = columns * float(first.PixelSpacing[0])
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    volume = np.stack([_pixels(path, data).T for path, data in slices], axis=-1)
    return volume, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def series_files(folder: str | os.PathLike[str], files: Sequence[Path] | None = None) -> list[Path]:
    """Return the files of a series in the order of the slices of `read_series`, which raises the same errors."""
    with _readable_tags(folder):
        return [path for path, _ in _slices(folder, files)]


def unused_files(folder: str | os.PathLike[str]) -> list[str]:
    """Return names in a series' folder that are no image of it: other files, DICOM without pixels, folders."""
    used = {path.name for path, _ in _slices(folder, None)}
    return sorted(path.name for path in Path(folder).iterdir() if path.name not in used)


def patient_id(folder: str | os.PathLike[str]) -> str:
    """Return PatientID of a series, "" where there is none; for comparing in memory, never to be written."""
    with _readable_tags(folder):
        return str(_slices(folder, None)[0][1].get("PatientID") or "").strip()


def words_of(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the `identity_words` of a series: names, ids, dates, UIDs; to compare in memory, never to be written."""
    with _readable_tags(folder):
        return identity_words(_slices(folder, None)[0][1])


def _slices(folder: str | os.PathLike[str], files: Sequence[Path] | None) -> list[tuple[Path, pydicom.Dataset]]:
    """Files and data sets of a series, sorted along the slice normal."""
    candidates = sorted(Path(folder).iterdir() if files is None else files)
    images = [(path, data) for path in candidates if (data := _image(path)) is not None]
    slices = [(path, frame) for path, data in images for frame in split_frames(path, data)]
    if len(slices) < (2 if files is None else 1):
        raise TskdError(f"{folder}: expected a DICOM series of at least 2 slices, found {len(slices)} DICOM images.")
    _refuse_odd_images(slices)
    if len(patients := {str(data.get("PatientID") or "").strip() for _, data in slices}) > 1:
        raise TskdError(
            f"{folder}: expected the slices of one patient under one SeriesInstanceUID, found those of "
            f"{len(patients)}. Export the series again, or put the files of each patient into a folder of its own."
        )
    for tag in _SAME:
        _refuse_mixed(folder, tag, slices)
    normal = np.cross(*np.array(slices[0][1].ImageOrientationPatient, dtype=float).reshape(2, 3))
    return sorted(slices, key=lambda item: float(normal @ np.array(item[1].ImagePositionPatient, dtype=float)))


def _image(path: Path) -> pydicom.Dataset | None:
    """Return the data set of a DICOM image file; None if the file is something else."""
    if not path.is_file():
        return None
    try:
        data = pydicom.dcmread(path)
    except InvalidDicomError:
        return _bare(path)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise TskdError(f"{path}: expected a readable DICOM file, found {error}. Copy the file again.") from error
    return data if "PixelData" in data else None


def _bare(path: Path) -> pydicom.Dataset | None:
    """Return the data set of a DICOM image without preamble and meta header, as old archives have it; or None."""
    try:
        data = pydicom.dcmread(path, force=True)
    except Exception:  # whatever a file that is something else makes of the parser
        return None
    if "SOPClassUID" not in data or "PixelData" not in data:
        return None
    if "TransferSyntaxUID" not in data.file_meta:  # then it can only be the standard's default
        data.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian
        )
    return data


def _refuse_odd_images(slices: list[tuple[Path, pydicom.Dataset]]) -> None:
    for path, data in slices:
        missing = [tag for tag in _NEEDED if data.get(tag) in (None, "")]
        if missing:
            raise TskdError(f"{path}: expected the DICOM tags {', '.join(_NEEDED)}, found no {', '.join(missing)}.")
        if int(data.get("NumberOfFrames") or 1) != 1 or int(data.get("SamplesPerPixel", 1)) != 1:
            raise TskdError(
                f"{path}: expected one frame with one channel a file, found {data.get('NumberOfFrames') or 1} frames "
                f"and {data.get('SamplesPerPixel', 1)} channels. Convert the series to NIfTI (dcm2niix) first."
            )
        meaning = data.get("PhotometricInterpretation")
        if meaning != "MONOCHROME2":
            what = {"MONOCHROME1": " (inverted grey)", "PALETTE COLOR": " (numbers are places in a palette)"}
            raise TskdError(
                f"{path}: expected MONOCHROME2, found {meaning}{what.get(meaning, '')}. Convert the series first."
            )
        if data.get("VOILUTSequence") or data.get("PresentationLUTShape") == "INVERSE":
            raise TskdError(
                f"{path}: expected stored values that a viewer shows in their order, found a VOI LUT Sequence or an "
                "inverse presentation. Convert the series first (dcmj2pnm, gdcmconv), or export it without the table."
            )
        stored, high = data.get("BitsStored"), data.get("HighBit")
        if stored is not None and high is not None and int(high) != int(stored) - 1:
            raise TskdError(
                f"{path}: expected the value in the lowest {stored} bits, found HighBit {high}. Convert it first."
            )
        axes = np.array(data.ImageOrientationPatient, dtype=float).reshape(2, 3)
        if not np.allclose(axes @ axes.T, np.eye(2), atol=5e-3):
            raise TskdError(
                f"{path}: expected ImageOrientationPatient with two unit vectors at right angles, found "
                f"{axes.ravel().tolist()}. Export the series again."
            )
        if not all(float(side) > 0 for side in data.PixelSpacing):
            raise TskdError(f"{path}: expected a PixelSpacing above 0 mm, found {list(data.PixelSpacing)}.")


def _refuse_mixed(folder: str | os.PathLike[str], tag: str, slices: list[tuple[Path, pydicom.Dataset]]) -> None:
    path, reference = slices[0][0], slices[0][1][tag].value
    for file, data in slices[1:]:
        if not _equal(reference, data[tag].value):
            raise TskdError(
                f"{folder}: expected one series with the same {tag} in every file, found {reference} in {path.name} "
                f"and {data[tag].value} in {file.name}. Put each series into a folder of its own."
            )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, str | int):
        return bool(first == second)
    return len(first) == len(second) and bool(np.allclose(np.array(first, float), np.array(second, float), atol=1e-4))


def _slice_step(
    folder: str | os.PathLike[str], positions: np.ndarray, normal: np.ndarray, names: list[str]
) -> np.ndarray:
    """Return the vector from one slice to the next; refuse one that differs, or that is not along the normal."""
    gaps = np.diff(positions @ normal)
    typical = float(np.median(gaps))
    allowed = max(_GAP_TOLERANCE * typical, min(_ROUNDING, typical / 4))
    worst = int(np.argmax(np.abs(gaps - typical)))
    if typical <= 0 or abs(gaps[worst] - typical) > allowed:
        raise TskdError(
            f"{folder}: expected slices an even distance apart (here {typical:.3f} mm, within {allowed:.3f}), found "
            f"{gaps[worst]:.3f} mm between {names[worst]} and {names[worst + 1]}. A slice is "
            "missing, repeated or from another series: complete the series or remove the extra file."
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    aside = float(np.linalg.norm(step - normal * (normal @ step)))
    if aside > _GAP_TOLERANCE * typical:
        raise TskdError(
            f"{folder}: expected slices stacked along their normal, found each {aside:.3f} mm aside of the one before "
            "(tilted gantry). Resample the series to a straight volume first."
        )
    return np.asarray(step)


def _pixels(path: Path, data: pydicom.Dataset) -> np.ndarray:
    """Pixels [row, column] after rescaling."""
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
    size = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8 * frames * samples
    refuse_larger(size, PICTURE, path)
    try:
        pixels = data.pixel_array
    except Exception as error:  # pydicom's decoders raise many kinds
        raise TskdError(
            f"{path}: expected readable pixels, found {error} (transfer syntax "
            f"{data.file_meta.get('TransferSyntaxUID')}). Decompress the series (gdcmconv --raw) or copy it again."
        ) from error
    if pixels.shape != (int(data.Rows), int(data.Columns)) or _excess(data):
        raise TskdError(
            f"{path}: expected the pixels of one frame, found more (shape {pixels.shape}, {len(data.PixelData)} "
            "bytes). Convert the series to NIfTI (dcm2niix) first."
        )
    pixels = _stored_bits(pixels, data)
    if data.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(pixels, data)).astype(np.int32)
    slope, intercept = (_number(data, *key) for key in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise TskdError(f"{path}: expected a RescaleSlope that is not 0, found {slope} and the intercept {intercept}.")
    if slope == 1 and intercept.is_integer():
        return np.asarray(pixels.astype(np.int32) + int(intercept))
    return np.asarray(pixels.astype(np.float32) * slope + intercept).astype(np.float32)


def _number(data: pydicom.Dataset, tag: str, default: float) -> float:
    value = data.get(tag)
    return default if value in (None, "") else float(value)


def _excess(data: pydicom.Dataset) -> bool:
    """Whether uncompressed pixel data is longer than its one frame (and the byte that makes it even)."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax.is_compressed:
        return False
    wanted = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8
    return len(data.PixelData) > wanted + 1


def _stored_bits(pixels: np.ndarray, data: pydicom.Dataset) -> np.ndarray:
    """Pixels without what lies above BitsStored, such as the overlays of old files."""
    unused = int(data.BitsAllocated) - int(data.get("BitsStored", data.BitsAllocated))
    if unused <= 0 or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize * 8 != int(data.BitsAllocated):
        return pixels
    return (pixels << unused) >> unused  # an arithmetic shift for signed pixels
