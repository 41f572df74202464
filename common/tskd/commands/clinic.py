"""Commands for those who have a shipped bundle: masks of their images, and the network in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tskd.commands.arguments import Flag


def predict(
    bundle: Path,
    inputs: list[Path],
    /,
    *,
    output: Path,
    mask_format: Annotated[Literal["nifti", "png", "dicom-seg", "same"] | None, Parameter("--format")] = None,
    backend: Literal["torch", "onnx", "onnx-int8"] = "torch",
    device: str | None = None,
    batch_size: int = 8,
    overlay: Flag = False,
    overwrite: Flag = False,
    codes: Path | None = None,
) -> int:
    """Segment files, folders and DICOM series with a shipped bundle.

    Args:
        bundle: folder that `tskd ship` wrote.
        inputs: files and folders, at any depth; each DICOM series found is a volume.
        output: folder for the masks and summary.csv.
        mask_format: format of the masks; by default NIfTI for volumes and PNG for pictures.
        backend: what computes: onnx starts in a second and needs neither torch nor MONAI.
        device: such as cuda or cpu.
        batch_size: slices of a volume in one step.
        overlay: write a picture of each mask over its image.
        overwrite: replace masks that are there.
        codes: JSON file with the codes of structures for DICOM SEG, name: [value, scheme, meaning].
    """
    from tskd.predict.predict_files import predict

    return predict(bundle, inputs, output, mask_format, backend, device, batch_size, overlay, overwrite, codes)


def export(
    bundle: Path,
    /,
    *,
    to: Literal["torchscript", "onnx", "onnx-int8", "openvino"],
    dataset_file: Path | None = None,
    tolerance: float | None = None,
    overwrite: Flag = False,
) -> None:
    """Write a shipped bundle's network in another format, and compare its masks with PyTorch's.

    Args:
        bundle: folder that `tskd ship` wrote; the file goes into its models/.
        to: format of the network.
        dataset_file: the training's dataset.json: masks are compared on its validation list; onnx-int8 needs it.
        tolerance: Dice that the worst organ may lose, averaged over patients; by default 0.001, for onnx-int8 0.01.
        overwrite: replace a file that is there.
    """
    from tskd.export.exporter import export_network

    print(export_network(bundle, to, dataset_file, tolerance, overwrite))
