"""Write the folder of a synthetic dataset: numbered images, their settings, dataset.json, a contact sheet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine, Events

import tskd
from tskd.data.datalist import read, write
from tskd.errors import TskdError
from tskd.files import lock_folder, write_json
from tskd.progress_file import FollowedBar
from tskd.synthesis.contact_sheet import contact_sheet, read_image, save, write_image, write_labels
from tskd.synthesis.label_maps import WarpedLabels

GROUP = "synthetic"
PUBLISHED = ("dataset.json", "contact_sheet.png", "memorisation.csv", "memorisation.json", "memorisation.png")


class SyntheticFolder:
    """Output folder of numbered images; continues after a stop, in one process or in several.

    path/
        sampling.json       what the images were made with; other settings in the same folder are refused
        images/000000.png   8 bit, 1 or 3 channels; a file that is there is complete
        labels/000000.png   the label map that the image was drawn to, for a model that takes one
        dataset.json        entries under `unlabelled`, or `training` with labels; the memorisation gate writes it
        contact_sheet.png   the first 64 that are listed

    A new image takes an older list, and what else the gate wrote, away: a list never stands beside images that it does
    not know.

    Attached to a MONAI evaluator whose batches are image numbers, it writes what the evaluator predicts and shows the
    progress in images per second.

    Args:
        path: the folder; made if needed.
        num_images: images 0 .. num_images - 1 are wanted.
        settings: what the images depend on (model hash, sampler, steps, seed).
        rank: this process does the numbers k with k % world_size == rank.
        world_size: number of processes.
        labels: label map of each number, for a model that draws to one.

    Raises:
        TskdError: the folder was begun with other settings, another process has this rank, or rank and world_size do
            not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        num_images: int,
        settings: Mapping[str, Any],
        rank: int = 0,
        world_size: int = 1,
        labels: WarpedLabels | None = None,
    ) -> None:
        if num_images < 1:
            raise TskdError(f"num_images: expected 1 or more, found {num_images}")
        if not 0 <= rank < world_size:
            raise TskdError(f"rank: expected 0 to {world_size - 1} (world_size {world_size}), found {rank}")
        self.path, self.num_images, self.settings = Path(path), num_images, dict(settings)
        self.rank, self.world_size = rank, world_size
        self.labels = labels
        self._bar: FollowedBar | None = None
        self._claim()
        self._written_before = self._list_written()

    def image_path(self, number: int) -> Path:
        """Return where image `number` is or will be."""
        return self.path / "images" / f"{number:06d}.png"

    def pending(self) -> list[int]:
        """Return the numbers that this process still has to make."""
        return [k for k in range(self.rank, self.num_images, self.world_size) if not self.image_path(k).exists()]

    def write(self, numbers: Iterable[int], images: torch.Tensor) -> None:
        """Write images B x C x X x Y in [0, 1] under their numbers; a list of earlier images is removed first."""
        unpublish(self.path)
        for number, image in zip(numbers, images, strict=True):
            if self.labels is not None:  # first: an image that is there is finished
                write_labels(_labels_path(self.path, number), self.labels(number))
            write_image(self.image_path(number), image)

    def attach(self, engine: Engine) -> None:
        """Register on the start, each iteration and the end of an evaluator (`decollate=False`)."""
        engine.add_event_handler(Events.STARTED, self._open_bar)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._close_bar)

    def __call__(self, engine: Engine) -> None:
        """Write the iteration's images."""
        output: Any = engine.state.output
        numbers = output["image"].flatten().tolist()
        self.write(numbers, output["pred"])
        self.advance(len(numbers))

    def advance(self, count: int) -> None:
        """Move the progress bar."""
        if self._bar is not None:
            self._bar.update(count)

    def complete(self) -> bool:
        """Return whether every image of every process is there."""
        return all(self.image_path(k).exists() for k in range(self.num_images))

    def judge(self, gate: Callable[[], Any]) -> bool:
        """Run the memorisation gate once every image is there, in one of the processes that share the work.

        A file lock says which: it ends with the process, however that ends, and the next start gates again.

        Args:
            gate: writes dataset.json.

        Returns:
            Whether this process ran it.
        """
        if not self.complete():
            return False
        try:
            with FileLock(self.path / ".gate.lock", blocking=False):
                if self._list_written() not in (None, self._written_before):  # another process was faster
                    return False
                gate()
        except Timeout:  # another process is at it
            return False
        return True

    def _list_written(self) -> int | None:
        """Return when dataset.json was written, by the clock of its file system; None if there is none."""
        path = self.path / "dataset.json"
        return path.stat().st_mtime_ns if path.exists() else None

    def _claim(self) -> None:
        lock_folder(self.path, f".{self.rank}")
        path = self.path / "sampling.json"
        if path.exists():
            existing = json.loads(path.read_text(encoding="utf-8"))
            differing = [
                f"{key}: the folder has {existing.get(key)!r}, this run {self.settings.get(key)!r}"
                for key in sorted({*existing, *self.settings})
                if existing.get(key) != self.settings.get(key)
            ]
            if differing:
                raise TskdError(
                    f"{self.path} holds images that were made with other settings; {'; '.join(differing)}. "
                    "Choose another output folder, or remove this one."
                )
            return
        write_json(path, self.settings)

    def _open_bar(self) -> None:
        self._bar = FollowedBar(total=len(self.pending()), unit="image", desc="sampling", dynamic_ncols=True)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def unpublish(folder: str | os.PathLike[str]) -> None:
    """Remove the list of a folder's images and what the memorisation gate wrote beside it."""
    for name in PUBLISHED:
        Path(folder, name).unlink(missing_ok=True)


def publish(
    folder: str | os.PathLike[str],
    dataset_file: str | os.PathLike[str],
    numbers: Sequence[int],
    memorisation: Any,
    trained_on: Iterable[str] = (),
) -> None:
    """Write the contact sheet of the first 64 images `numbers`, and last of all their dataset.json.

    Arguments are those of `write_dataset`.
    """
    if first_images := [read_image(Path(folder, "images", f"{k:06d}.png")) for k in numbers[:64]]:
        save(contact_sheet(first_images), Path(folder, "contact_sheet.png"))
    write_dataset(folder, dataset_file, numbers, memorisation, trained_on)


def write_dataset(
    folder: str | os.PathLike[str],
    dataset_file: str | os.PathLike[str],
    numbers: Iterable[int],
    memorisation: Any,
    trained_on: Iterable[str] = (),
) -> None:
    """Write the dataset.json of synthetic images: those with a label map under `training`, others under `unlabelled`.

    Args:
        folder: folder with images/ and sampling.json.
        dataset_file: dataset.json of the training images.
        numbers: images to list.
        memorisation: what the memorisation gate found.
        trained_on: content hashes of the images that the diffusion model has seen, so that whoever learns from the
            list can tell whether a patient that is held out was among them.
    """
    real = read(dataset_file)
    settings = json.loads(Path(folder, "sampling.json").read_text(encoding="utf-8"))
    labelled, unlabelled = [], []
    for k in numbers:
        entry = {"image": f"images/{k:06d}.png", "group": GROUP, "case": f"{GROUP}_{k:06d}", "index": k}
        path = _labels_path(folder, k)
        if path.exists():
            labelled.append({**entry, "label": path.relative_to(folder).as_posix()})
        else:
            unlabelled.append(entry)
    write(
        Path(folder, "dataset.json"),
        {
            "name": f"{real['name']}_synthetic",
            "modality": real["modality"],
            "channels": real["channels"],
            "labels": real["labels"],
            "training": labelled,
            "unlabelled": unlabelled,
            "validation": [],
            "test": [],
            "provenance": {
                "source": f"synthetic: sampled from a diffusion model trained on {real['name']}",
                "licence": real["provenance"].get("licence", "that of the training images"),
                "tool": f"tskd {tskd.__version__}",
                **settings,
                "memorisation": memorisation,
                "trained_on": sorted(trained_on),
            },
        },
    )


def image_numbers(folder: str | os.PathLike[str], num_images: int | None = None) -> list[int]:
    """Return the numbers of the images that are in the folder, in order.

    Args:
        folder: folder with images/.
        num_images: only those below it, which must all be there; None for all.

    Raises:
        TskdError: there is none, or one of the first `num_images` is missing.
    """
    numbers = sorted(int(path.stem) for path in Path(folder, "images").glob("*.png") if re.fullmatch(r"\d+", path.stem))
    if not numbers:
        raise TskdError(f"{Path(folder, 'images')}: expected images 000000.png, ..., found none. Run inference first.")
    if num_images is None:
        return numbers
    if missing := sorted(set(range(num_images)) - set(numbers)):
        raise TskdError(
            f"{Path(folder, 'images')}: expected images 000000.png to {num_images - 1:06d}.png, found "
            f"{len(missing)} of them missing, such as {missing[0]:06d}.png. Run inference again: it makes these only."
        )
    return list(range(num_images))


def _labels_path(folder: str | os.PathLike[str], number: int) -> Path:
    return Path(folder, "labels", f"{number:06d}.png")
