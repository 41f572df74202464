"""`tskd export`: a shipped bundle, or a run that is shipped first, in the form of another program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.workflow.evaluate_run import find_dataset

SHIPPED = "shipped_segmentation"  # in a run's folder


def export(
    source: Path,
    to: str,
    output: Path | None = None,
    dataset_file: Path | None = None,
    tolerance: float | None = None,
    codes: Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    limit: int | None = None,
) -> str:
    """Write a trained student in another form.

    Args:
        source: shipped bundle, a run's output_dir, or for nnunet a dataset.json.
        to: torchscript, onnx, onnx-int8, openvino, nnunet, deploy, label or huggingface.
        output: folder to write; see `tskd export --help`.
        dataset_file: the training's dataset.json; a run's is found.
        tolerance: Dice that the worst organ may lose.
        codes: table of codes for deploy.
        overwrite: replace a file that is there.
        force: as of `tskd ship`.
        limit: images of the validation list that a network's file is compared on; None for all.

    Returns:
        What was written, in a line.

    Raises:
        TskdError: neither bundle nor run, options that are missing, or as the writers.
    """
    from tskd.export.exporter import NETWORKS, export_network

    run = source if (source / "versions.json").is_file() else None
    if run is not None and dataset_file is None:
        dataset_file = find_dataset(run)
    if to == "nnunet":
        return _nnunet(source, run, dataset_file, _required(output, to))
    if to in NETWORKS:
        if run is None and output is not None:
            raise TskdError(f"--to {to}: expected no --output, as the file goes into the bundle's models/, found one.")
        return export_network(
            _shipped(source, run, output, dataset_file, force), to, dataset_file, tolerance, overwrite, limit
        )
    from tskd.export.deploy_folder import write_deploy
    from tskd.export.shared_folders import write_huggingface, write_label
    from tskd.predict.shipped_bundle import read_bundle

    folder = _required(output, to)
    bundle = read_bundle(_shipped(source, run, None, dataset_file, force))
    if to == "deploy":
        written = write_deploy(bundle, folder, codes)
        return f"{written}: python app.py --input DICOM_FOLDER --output masks --model model/model.ts"
    if to == "label":
        return f"{write_label(bundle, folder)}: sh start.sh STUDIES"
    written = write_huggingface(bundle, folder).resolve()
    return (
        f"{written}: python -m monai.bundle push_to_hf_hub --repo NAME/{written.name} --name {written.name} "
        f"--bundle_dir {written.parent}"
    )


def _required(output: Path | None, to: str) -> Path:
    if output is None:
        raise TskdError(f"--to {to}: expected the folder to write, found none. Name it: --output FOLDER")
    return output


def _shipped(source: Path, run: Path | None, output: Path | None, dataset_file: Path | None, force: bool) -> Path:
    """Return the bundle itself, or of a run the bundle it was shipped as; an older one of other weights is replaced."""
    if run is None:
        return source
    from tskd.export.shipped_record import shipped_from
    from tskd.workflow.ship_evaluated import ship

    folder, model = output or run / SHIPPED, run / "models" / "model.pt"
    if shipped_from(folder, model):
        return folder
    if output is None and (folder / "models" / "model.pt").is_file():  # of an earlier training
        shutil.rmtree(folder)
    assert dataset_file is not None
    return ship(None, run, folder, dataset_file, force=force)


def _nnunet(source: Path, run: Path | None, dataset_file: Path | None, output: Path) -> str:
    from tskd.export.nnunet_folder import write_nnunet

    settings: dict[str, Any] = {}
    if run is not None:
        settings = json.loads((run / "versions.json").read_text(encoding="utf-8")).get("settings", {})
    data = dataset_file or (source / "dataset.json" if source.is_dir() else source)
    if not data.is_file():
        raise TskdError(
            f"{source}: expected a run, a dataset.json or --dataset-file for --to nnunet, found none of them."
        )
    folder = write_nnunet(data, output, settings.get("num_labelled"))
    count = len(list((folder / "labelsTr").iterdir()))
    return f"{folder}: {count} labelled slices; copy splits_final.json to nnUNet_preprocessed/{folder.name}/"
