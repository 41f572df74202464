"""Commands on data sets, studies of them and pretrained weights."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from tskd.commands.arguments import Flag, names

weights = App(name="weights", help="Download pretrained weights.", group="Train")


def init(
    images: Path,
    masks: Path | None = None,
    /,
    *,
    output: Path = Path("study.yaml"),
    labels: str | None = None,
    weights: Path | None = None,
    channel: int = 0,
    overwrite: Flag = False,
) -> None:
    """Look at a folder of images and masks, and write a commented STUDY.yaml that fits it.

    Args:
        images: folder of pictures, NIfTI volumes or DICOM series at any depth, in nnU-Net's, the Decathlon's or any
            other layout.
        masks: folder of the masks; without it the names of files and folders tell masks from images.
        output: file to write.
        labels: names of mask values 1, 2, ... with commas between them.
        weights: file with MobileSAM's weights.
        channel: which one to take where each case has several files, such as nnU-Net's _0000 and _0001.
        overwrite: replace files that are there.
    """
    from tskd.new_study.write_study import new_study

    print(new_study(images, masks, output, names(labels) if labels else (), weights, channel, overwrite))


def check(dataset_file: Path, *, unlabelled: Flag = False) -> None:
    """Look for every problem in a dataset.json and its files.

    Args:
        dataset_file: dataset.json.
        unlabelled: the list may hold unlabelled images only.
    """
    from tskd import data

    warned = data.check(dataset_file, labelled=not unlabelled)
    print(f"{dataset_file}: no {'other ' if warned else ''}problem found")


@weights.command
def get(name: str, *, cache: Path | None = None, record: Path | None = None) -> None:
    """Download, check and cache the weights of a foundation model.

    Args:
        name: mobile_sam, lite_medsam, sam_vit_b, sam_vit_l, sam_vit_h or medsam_vit_b; efficientnet_lite0 for the
            student's encoder.
        cache: folder; the user's cache folder by default.
        record: JSON file to write, with the place of the weights and their SHA-256.
    """
    from tskd.files import sha256, write_json
    from tskd.networks import get_weights

    path = get_weights(name, cache=cache)
    if record is not None:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        write_json(record, {"weights": str(path), "sha256": {file.name: sha256(file) for file in files}})
    print(path)
