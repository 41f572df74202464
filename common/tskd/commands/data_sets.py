"""Commands on data sets and pretrained weights."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from tskd.commands.arguments import Flag

weights = App(name="weights", help="Pretrained weights.")


def check(dataset_file: Path, *, unlabelled: Flag = False) -> None:
    """Look for every problem in a dataset.json and its files.

    Args:
        dataset_file: dataset.json.
        unlabelled: the list may hold unlabelled images only.
    """
    from tskd import data

    data.check(dataset_file, labelled=not unlabelled)
    print(f"{dataset_file}: no problem found")


@weights.command
def get(name: str, *, cache: Path | None = None) -> None:
    """Download, check and cache the weights of a foundation model.

    Args:
        name: sam_vit_b, sam_vit_l, sam_vit_h, medsam_vit_b or lite_medsam.
        cache: folder; the user's cache folder by default.
    """
    from tskd.networks import get_weights

    print(get_weights(name, cache=cache))
