"""Where a volume lies: sform, qform, spacing and unit of a NIfTI header, compared before one of them is believed."""

import os

import numpy as np
from nibabel.nifti1 import Nifti1Header

from tskd.errors import TskdError

AFFINES = ("sform", "qform")
HALF = 0.5  # of a voxel: what lies nearer counts as the same position
_SAME = 0.1  # of a voxel: what rounding in a header explains
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units -> millimetres; 0 is unknown and taken as mm


def header_affine(
    header: Nifti1Header, shape: tuple[int, ...], where: str | os.PathLike[str], choice: str | None = None
) -> np.ndarray:
    """Return the affine of a NIfTI header in millimetres, RAS+, 4 x 4.

    Args:
        header: of NIfTI-1 or NIfTI-2.
        shape: of the volume; differences are measured at its corners, in voxels.
        where: file for the message.
        choice: "sform" or "qform" where the two disagree; None refuses them then. Another
            form that is alone is taken, if pixdim agrees.

    Raises:
        TskdError: no three axes, forms or spacing that disagree by more than half a voxel, an unknown unit, or axes
            that are not at right angles.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MM:
        raise TskdError(f"{where}: expected the unit m, mm or micron, found code {unit}. Correct xyzt_units.")
    forms = {"sform": header.get_sform(coded=True)[0], "qform": _qform(header, where)}
    affines = {name: np.asarray(form, np.float64) for name, form in forms.items() if form is not None}
    for name, form in affines.items():
        _refuse_flat(form, where, name)
    if choice in affines:
        affine = affines[choice]
    elif affines:
        affine = next(iter(affines.values()))
        _refuse_disagreement(header, affines, shape, where)
    else:
        affine = np.asarray(header.get_base_affine(), np.float64)
        _refuse_flat(affine, where, "pixdim")
    affine = np.diag([*[_MM[unit]] * 3, 1.0]) @ affine
    if displacement(affine, orthogonal(affine), shape) > HALF:
        raise TskdError(
            f"{where}: expected axes at right angles, found them {skew(affine):.1f} degrees off (sheared, as by a "
            "tilted gantry). Resample the volume to a straight one first."
        )
    return affine


def displacement(affine: np.ndarray, reference: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance of a volume's corner under two affines, in smallest voxel sides of the reference."""
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    corners[:, :3] *= np.array(shape[:3])
    moved = np.linalg.norm((corners @ (affine - reference).T)[:, :3], axis=1)
    return float(moved.max() / np.linalg.norm(reference[:3, :3], axis=0).min())


def same_position(affine: np.ndarray, reference: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return whether two affines agree: no corner further away than half a voxel or half a millimetre."""
    moved = displacement(affine, reference, shape)
    return moved <= HALF and moved * np.linalg.norm(reference[:3, :3], axis=0).min() <= HALF


def same_grid(affine: np.ndarray, reference: np.ndarray, shape: tuple[int, ...] = (1, 1, 1)) -> bool:
    """Return whether two affines differ by rounding alone: no corner of a volume moves by over a tenth of a voxel."""
    if affine.shape != reference.shape:
        return False
    if affine.shape != (4, 4):
        return bool(np.allclose(affine, reference, rtol=1e-3, atol=1e-2))
    return displacement(affine, reference, tuple([*shape, 1, 1][:3])) <= _SAME


def orthogonal(affine: np.ndarray) -> np.ndarray:
    """Return the nearest affine with axes at right angles and the same spacing, as a qform can say it."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    straight = affine.copy()
    straight[:3, :3] = left @ right * spacing
    return straight


def skew(affine: np.ndarray) -> float:
    """Return by how many degrees the worst pair of axes misses the right angle."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(axes.T @ axes - np.eye(3)).max()
    return float(np.degrees(np.arcsin(min(cosines, 1.0))))


def _qform(header: Nifti1Header, where: str | os.PathLike[str]) -> np.ndarray | None:
    try:
        return header.get_qform(coded=True)[0]
    except Exception as error:  # quaternions longer than 1
        raise TskdError(f"{where}: expected a qform that turns, found {error}. Correct the file's qform.") from error


def _refuse_flat(affine: np.ndarray, where: str | os.PathLike[str], name: str) -> None:
    sides = np.linalg.norm(affine[:3, :3], axis=0) if np.isfinite(affine).all() else np.zeros(3)
    if not sides.all() or abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-3:
        raise TskdError(
            f"{where}: expected an affine with three axes, found {affine.tolist()} ({name}). Correct the file's sform "
            "or qform."
        )


def _refuse_disagreement(
    header: Nifti1Header, affines: dict[str, np.ndarray], shape: tuple[int, ...], where: str | os.PathLike[str]
) -> None:
    """Compare the sform with the qform; a form alone with the spacing of pixdim."""
    if len(affines) == 2:
        moved = displacement(affines["qform"], affines["sform"], shape)
        if moved > HALF:
            raise TskdError(
                f"{where}: expected a sform and a qform that agree, found a corner {moved:.1f} voxels apart. Which one "
                "the annotator saw cannot be known: correct the file, or say it to a command that asks "
                "(--affine sform, or --affine qform)."
            )
        return
    sides = np.linalg.norm(affines[next(iter(affines))][:3, :3], axis=0)
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], float))
    off = (np.abs(pixdim - sides) * np.array(shape[:3]) / sides).max()
    if not off <= HALF:  # NaN too
        raise TskdError(
            f"{where}: expected the spacing of its {next(iter(affines))}, {sides.round(4).tolist()}, found "
            f"{pixdim.round(4).tolist()} in pixdim. Correct the file, or say to a command that asks that the form "
            f"is right (--affine {next(iter(affines))})."
        )
