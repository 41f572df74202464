"""Say which flips at test time may hurt for a kind of image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tskd.data.datalist import read


def warn_of_flips(flips: Sequence[str], dataset_file: str | Path) -> None:
    """Print a line on axes that a training on this kind of image does not mirror, as left and right differ there.

    Args:
        flips: axes of which the logits of mirrored images are averaged.
        dataset_file: dataset.json with the modality.
    """
    if not flips:
        return
    from tskd.distillation.augmentation_presets import PRESETS, preset_of

    modality = read(dataset_file)["modality"]
    preset = PRESETS[preset_of(modality)]
    unseen = [axis for axis, key in (("x", "flip"), ("y", "flip_y")) if axis in flips and not preset.get(key)]
    if unseen:
        print(
            f"warning: --flips {' '.join(unseen)}: images of {modality} are not mirrored so in training, as their "
            "sides differ; compare on the validation list (tskd evaluate --section validation --flips ...)"
        )
