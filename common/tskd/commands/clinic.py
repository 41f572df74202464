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
    backend: Literal["auto", "torch", "onnx", "onnx-int8"] = "auto",
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
        backend: what computes: onnx starts in a second and needs neither torch nor MONAI; auto takes it where the
            bundle has models/model.onnx and no GPU is there or asked for, else torch.
        device: such as cuda or cpu.
        batch_size: slices of a volume in one step.
        overlay: write a picture of each mask over its image.
        overwrite: replace masks that are there.
        codes: JSON file with the codes of structures for DICOM SEG, name: [value, scheme, meaning].
    """
    from tskd.predict.predict_files import predict

    return predict(bundle, inputs, output, mask_format, backend, device, batch_size, overlay, overwrite, codes)


def export(
    source: Path,
    /,
    *,
    to: Literal["torchscript", "onnx", "onnx-int8", "openvino", "nnunet", "deploy", "label", "huggingface"],
    output: Path | None = None,
    dataset_file: Path | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    codes: Path | None = None,
    overwrite: Flag = False,
    force: Flag = False,
) -> None:
    """Write a trained student in the form that another program takes.

    torchscript, onnx, onnx-int8 and openvino are files in the bundle's models/, whose masks are compared with those of
    PyTorch. nnunet is the data set of the training in nnU-Net's layout. deploy (MONAI Deploy), label (MONAI Label)
    and huggingface are folders around the bundle.

    Args:
        source: bundle that `tskd ship` wrote, or output_dir of a student's training, which is shipped first; for nnunet
            also a dataset.json.
        to: form to write.
        output: new folder, of the form; for the first four, where a run is shipped to (RUN/shipped_segmentation).
        dataset_file: the training's dataset.json: masks are compared on its validation list; onnx-int8 needs it. Of a
            run it is found.
        tolerance: Dice that the worst organ may lose, averaged over patients; by default 0.001, for onnx-int8 0.01.
        limit: images of the validation list that are compared, spread over it; all by default.
        codes: for deploy, JSON file with the codes of structures, name: [value, scheme, meaning].
        overwrite: replace a file that is there.
        force: ship a run that was never evaluated, or whose Dice is near 0.
    """
    from tskd.workflow.export_run import export

    print(export(source, to, output, dataset_file, tolerance, codes, overwrite, force, limit))
