"""Read a data set in nnU-Net's layout: imagesTr, labelsTr, dataset.json and, if there is one, splits_final.json."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tskd.data.datalist import IGNORE
from tskd.data.io.image_files import SUFFIXES, stored_mask
from tskd.data.io.nifti import NIFTI, as_label, load_volume, write_volume
from tskd.data.prepare.images import prepare_images_masks
from tskd.data.prepare.patients import group_in_name
from tskd.data.prepare.volumes import prepare_volumes_masks
from tskd.data.split import FEWER_LISTS, share_out
from tskd.errors import TskdError

SPLITS = "splits_final.json"
MR_WORDS = ("mr", "mri", "t1", "t2", "flair", "t1w", "t2w", "t1gd", "t1ce", "adc", "dwi", "pd", "mrt", "cine-mri")


@dataclass(frozen=True)
class NnunetFolder:
    """What an nnU-Net dataset.json says.

    Args:
        root: folder with imagesTr and labelsTr.
        structures: names of mask values 1, 2, ...
        ignore: mask value of pixels that are not annotated, None where there is none.
        channels: names of the channels.
        ending: of image files, such as ".nii.gz".
        groups: case -> patient, which `tskd export --to nnunet` writes; empty elsewhere.
    """

    root: Path
    structures: Sequence[str]
    ignore: int | None
    channels: Sequence[str]
    ending: str
    groups: Mapping[str, str]

    @property
    def volumes(self) -> bool:
        """Whether images are NIfTI volumes."""
        return self.ending in NIFTI

    def image(self, case: str, channel: int = 0, section: str = "Tr") -> Path:
        """Return a case's image file; section is "Tr" or "Ts"."""
        return self.root / f"images{section}" / f"{case}_{channel:04d}{self.ending}"

    def label(self, case: str, section: str = "Tr") -> Path:
        """Return a case's label file."""
        return self.root / f"labels{section}" / f"{case}{self.ending}"

    def cases(self, section: str = "Tr") -> list[str]:
        """Return the cases that have a label."""
        folder = self.root / f"labels{section}"
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return [name.removesuffix(self.ending) for name in names if name.endswith(self.ending) and name[0] != "."]


def read_nnunet(folder: str | os.PathLike[str]) -> NnunetFolder:
    """Read the dataset.json of nnU-Net, version 2 or 1.

    Raises:
        TskdError: no such file, regions of several labels, values with gaps, or files of a kind that is not read.
    """
    file = Path(folder) / "dataset.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        labels = _by_value(content["labels"], file)
        names = content.get("channel_names") or content["modality"]
        ending = str(content.get("file_ending", ".nii.gz"))
    except FileNotFoundError as error:
        raise TskdError(f"{file}: expected nnU-Net's dataset.json, found no such file. Correct the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TskdError(
            f"{file}: expected nnU-Net's dataset.json with labels and channel_names, found {error!r}."
        ) from error
    if ending not in (*NIFTI, *SUFFIXES):
        raise TskdError(
            f"{file}: expected a file_ending among {', '.join((*NIFTI, *SUFFIXES))}, found {ending}. Convert the files."
        )
    ignore = next((value for value, name in labels.items() if name.lower() == "ignore"), None)
    values = sorted(value for value in labels if value not in (0, ignore))
    if values != list(range(1, len(values) + 1)) or not values:
        raise TskdError(f"{file}: expected labels 1, 2, ... without gaps, found {values}. Renumber them.")
    return NnunetFolder(
        Path(folder),
        [labels[value] for value in values],
        ignore,
        [str(names[key]) for key in sorted(names, key=int)],
        ending,
        content.get("tskd", {}).get("groups", {}),
    )


def read_fold(file: Path, fold: int) -> tuple[list[str], list[str]]:
    """Read cases for training and validation of a fold of splits_final.json.

    Raises:
        TskdError: not such a file, or no such fold.
    """
    try:
        folds = json.loads(file.read_text(encoding="utf-8"))
        chosen = folds[fold]
        return [str(case) for case in chosen["train"]], [str(case) for case in chosen["val"]]
    except IndexError as error:
        raise TskdError(f"{file}: expected a fold among 0 to {len(folds) - 1}, found --fold {fold}.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TskdError(f'{file}: expected a list of {{"train": [...], "val": [...]}}, found {error!r}.') from error


def prepare_nnunet(
    output: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    fold: int = 0,
    splits: str | os.PathLike[str] | None = None,
    channel: int = 0,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    group_pattern: str | None = None,
    name: str | None = None,
    modality: str | None = None,
    intensity: Literal["percentiles", "body"] = "percentiles",
    window: tuple[float, float] | None = None,
) -> Path:
    """Prepare a data set in nnU-Net's layout.

    Names of labels and channels and the file ending are those of its dataset.json. Where splits_final.json is, the
    fold's `val` cases are the test list, or the validation list if labelsTs has test cases. Images without labels are
    not used.

    Args:
        output: new folder for the data set.
        folder: nnU-Net's folder with dataset.json, imagesTr and labelsTr, as below nnUNet_raw.
        fold: of splits_final.json.
        splits: that file where it is not in `folder`; nnU-Net has it in nnUNet_preprocessed.
        channel: which one to take of several.
        test: share of the patients for the test list where nothing says which.
        validation: share of the training patients for the validation list where nothing says which.
        seed: of the draw and of the order of the training list.
        group_pattern: regular expression that finds the patient in a case's name; else each case is a patient.
        name: of the data set; the folder's by default.
        modality: by default what the channel's name says.
        intensity: how volumes are scaled: percentiles or body.
        window: intensities that become 0 and 1 instead, such as Hounsfield units of CT.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: as `read_nnunet` and `read_fold`, files missing, or as the preparers of images and volumes.
    """
    source = read_nnunet(folder)
    split_file = Path(splits) if splits is not None else source.root / SPLITS
    sections = _sections(source, split_file if splits is not None or split_file.is_file() else None, fold)
    groups = {
        case: source.groups.get(case) or (group_in_name(case, group_pattern, case) if group_pattern else case)
        for case in sections
    }
    sections = _complete(sections, groups, test, validation, seed)
    _refuse_missing(source, sections, channel)
    names = list(source.structures)
    common: dict[str, Any] = {
        "seed": seed,
        "name": name or source.root.resolve().name,
        "modality": modality or _modality(source.channels, channel),
    }
    with tempfile.TemporaryDirectory(prefix="tskd_") as draft:
        table = Path(draft) / "table.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "label", "group", "split"])
            for case, section in sections.items():
                part = "Ts" if section == "test" and not source.label(case).is_file() else "Tr"
                label = _label(source, source.label(case, part), Path(draft))
                if label is not None or section == "training":
                    mask = "" if label is None else str(label.resolve())
                    rows.writerow([source.image(case, channel, part).resolve(), mask, groups[case], section])
        if source.volumes:
            return prepare_volumes_masks(output, names, table=table, intensity=intensity, window=window, **common)
        return prepare_images_masks(output, names, table=table, **common)


def _by_value(labels: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Value -> name, from {"liver": 1} of version 2 or {"1": "liver"} of version 1."""
    if regions := [name for name, value in labels.items() if isinstance(value, list)]:
        raise TskdError(
            f"{file}: expected one value a label, found regions of several ({', '.join(regions)}), which overlap. "
            "Name the values themselves."
        )
    if all(str(key).isdigit() for key in labels):
        return {int(key): str(name) for key, name in labels.items()}
    return {int(value): name for name, value in labels.items()}


def _sections(source: NnunetFolder, split_file: Path | None, fold: int) -> dict[str, str]:
    """Case -> training, validation or test; "" where it is to be drawn."""
    cases, test = source.cases(), source.cases("Ts")
    if both := sorted(set(cases) & set(test)):
        raise TskdError(f"{source.root}: expected a case in labelsTr or labelsTs, found {', '.join(both[:5])} in both.")
    sections = dict.fromkeys(cases, "training" if test else "") | dict.fromkeys(test, "test")
    if split_file is None:
        return sections
    train, held_out = read_fold(split_file, fold)
    if unknown := sorted({*train, *held_out} - set(cases)):
        raise TskdError(f"{split_file}: expected cases of {source.root}, found {', '.join(unknown[:5])} too.")
    chosen = dict.fromkeys(train, "training") | dict.fromkeys(held_out, "validation" if test else "test")
    return chosen | dict.fromkeys(test, "test")


def _complete(
    sections: Mapping[str, str], groups: Mapping[str, str], test: float, validation: float, seed: int
) -> dict[str, str]:
    """Draw, by patient, the lists that nothing says."""
    complete = dict(sections)
    for wanted, among, shares in (("test", ("",), (test, 0)), ("validation", ("", "training"), (0, validation))):
        if wanted in complete.values() or not any(shares):
            continue
        patients = {case: groups[case] for case, section in complete.items() if section in among}
        drawn = share_out(patients.values(), shares[0], shares[1], seed, FEWER_LISTS)[wanted]
        complete |= {case: wanted for case, group in patients.items() if group in drawn}
    return {case: section or "training" for case, section in complete.items()}


def _refuse_missing(source: NnunetFolder, sections: Mapping[str, str], channel: int) -> None:
    if not 0 <= channel < len(source.channels):
        raise TskdError(
            f"{source.root}: expected a channel below {len(source.channels)} ({', '.join(source.channels)}), found "
            f"--channel {channel}."
        )
    there = {case: any(source.image(case, channel, part).is_file() for part in ("Tr", "Ts")) for case in sections}
    if missing := [case for case, channel_image in there.items() if not channel_image]:
        raise TskdError(
            f"{source.root}: expected an image {source.image(missing[0], channel).name} for each label, found none of "
            f"{len(missing)} ({', '.join(missing[:5])})."
        )


def _label(source: NnunetFolder, path: Path, draft: Path) -> Path | None:
    """Return a label with 255 for what is not annotated: the file itself, or a copy in `draft`.

    None for a picture without a structure of which only a part is annotated: 0 and 255 alone would read as black and
    white.
    """
    if source.ignore is None:
        return path
    copy = draft / path.with_suffix("").name.replace(".nii", "")
    if source.volumes:
        stored, affine = load_volume(path)
        values = as_label(stored, path)
        copy = copy.with_name(f"{copy.name}.nii.gz")
        write_volume(copy, np.where(values == source.ignore, IGNORE, values).astype(np.uint8), affine)
    else:
        values = stored_mask(path).values
        if set(np.unique(values)) <= {0, source.ignore} and source.ignore in values:
            return None
        copy = copy.with_name(f"{copy.name}.png")
        Image.fromarray(np.where(values == source.ignore, IGNORE, values).astype(np.uint8)).save(copy)
    return copy


def _modality(channels: Sequence[str], channel: int) -> str:
    words = channels[channel].lower().replace("_", " ").split() if channel < len(channels) else []
    if "ct" in words:
        return "CT"
    return (
        "MR" if set(words) & set(MR_WORDS) else (channels[channel] if len(words) and len(channels) == 1 else "unknown")
    )
