"""Write a mask as NIfTI, PNG, DICOM SEG, or the format of its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tskd.data.io.nifti import write_volume
from tskd.errors import TskdError
from tskd.files import atomic
from tskd.predict.find_cases import Case, file_kind
from tskd.predict.read_case import LoadedImage

FORMATS = ("nifti", "png", "dicom-seg", "same")


def mask_path(output: Path, case: Case, requested: str | None) -> Path:
    """Return the path of a case's mask.

    Args:
        output: folder of the masks.
        case: the image.
        requested: one of `FORMATS`; None is NIfTI for volumes and PNG for pictures.

    Raises:
        TskdError: the image cannot have a mask of that format.
    """
    native = {"picture": "png", "nifti": "nifti", "dicom": "dicom-seg", "itk": "itk"}[case.kind]
    chosen = native if requested == "same" else requested or ("png" if case.kind == "picture" else "nifti")
    volume = case.kind != "picture"
    if (chosen == "png") == volume or (chosen == "dicom-seg" and case.kind != "dicom"):
        allowed = {"picture": "png", "dicom": "nifti or dicom-seg"}.get(case.kind, "nifti")
        raise TskdError(
            f"{case.display_name}: expected --format {allowed} or same for this kind of image, found {requested}."
        )
    ending = {"png": ".png", "nifti": ".nii.gz", "dicom-seg": ".dcm", "itk": file_kind(case.files[0])[1]}[chosen]
    return output / f"{case.stem}_seg{'.nrrd' if ending == '.nhdr' else '.mha' if ending == '.mhd' else ending}"


def write_mask(path: Path, mask: np.ndarray, image: LoadedImage) -> None:
    """Write class indices as NIfTI, PNG, NRRD or MetaImage, by the ending, on the grid of the image.

    Args:
        path: new file.
        mask: uint8 [X, Y, Z] or [rows, columns].
        image: that the mask is of.
    """
    with atomic(path) as draft:
        if image.affine is None:
            from PIL import Image

            Image.fromarray(mask).save(draft, format="PNG")
        elif path.name.endswith(".nii.gz"):
            write_volume(draft, mask, image.affine)
        else:
            _write_itk(draft, mask, image.affine)


def _write_itk(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    import SimpleITK

    to_world = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(mask.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_world[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_world[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
