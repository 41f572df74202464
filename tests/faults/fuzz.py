"""Mutate sound files, and read them as the commands do: what comes is the content or a line of ours, within seconds.

python -m tests.faults.fuzz --inputs 2000
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine
from safetensors.torch import save_file

from tests.tskd.data.kinds.studies import make, prepare
from tskd.data import checks, datalist
from tskd.data.io.dicom_series import read_series
from tskd.data.io.image_files import read_image, stored_mask
from tskd.data.io.nifti import load_volume
from tskd.data.prepare.table import read_table
from tskd.distillation.soft_labels.read import add_soft_labels
from tskd.errors import TskdError
from tskd.evaluation.rows import MetricRow, read_rows, write_rows
from tskd.handlers import Checkpointing
from tskd.networks.weights import read_checkpoint
from tskd.predict.shipped_bundle import read_bundle
from tskd.state import load_weights, read_tensors, save_tensors
from tskd.workflow import check_study, read_yaml
from tskd.workflow.schema import WORKFLOW

SECONDS = 10.0  # that one input may take
Read = Callable[[Path], object]


def fuzz(folder: Path, inputs: int, seed: int = 0, first: int = 0) -> list[str]:
    """A line for each mutated input that ended in another error than ours, or took too long."""
    sound = _sound(folder / "sound")
    found = []
    for number in range(first, first + inputs):
        rng = random.Random(f"{seed} {number}")
        name = rng.choice(sorted(sound))
        source, read = sound[name]
        path = folder / "mutated" / source.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_mutated(source.read_bytes(), rng))
        try:
            with _limit(SECONDS):
                read(path)
        except TskdError:
            pass
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            found.append(f"seed {seed}, input {number}, {name}: {type(error).__name__}: {error}")
        if left := [str(file) for file in folder.rglob(".draft-*")]:
            found.append(f"seed {seed}, input {number}, {name}: left {', '.join(left)}")
    return found


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Interrupt the block after so many seconds, wherever it hangs in Python."""

    def late(*_: object) -> None:
        raise _Late(f"{seconds:.0f} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.monotonic() - began > seconds:  # it hung in another language, and then came back
        raise _Late(f"{time.monotonic() - began:.0f} s")


class _Late(BaseException):
    """An input that takes too long."""


def _mutated(content: bytes, rng: random.Random) -> bytes:
    """Cut, with bits flipped, bytes set, a part twice or gone, or a number of a text replaced."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 64))
        how = rng.randrange(6)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at : at + size] = bytes([rng.choice((0, 255, 0x7F, 48, 34))]) * len(data[at : at + size])
        elif how == 2:
            del data[at : at + size]
        elif how == 3:
            data[at:at] = data[max(at - size, 0) : at]
        elif how == 4:
            del data[at:]
        else:
            for word, other in ((b"0", b"-7"), (b"png", b"p\xff"), (b'"', b"null"), (b"[", b"{"), (b":", b": 1e999")):
                if word in data and rng.random() < 0.3:
                    data = data.replace(word, other, 1)
    return bytes(data)


def _sound(folder: Path) -> dict[str, tuple[Path, Read]]:
    """Kind of input -> a sound file of it, and what reads it."""
    pictures, volumes, series = (make(folder / kind, kind) for kind in ("pictures", "volumes", "dicom"))
    listed = prepare(pictures, "pictures")
    listed_volumes = prepare(volumes, "volumes")
    (folder / "table.csv").write_text("image,label,patient,split\na.png,a.png,1,train\nb.png,,2,test\n")
    save_tensors({"weight": torch.arange(12.0).reshape(3, 4)}, folder / "model.pt")
    manifest = {"teacher": "a", "preprocessing": {"in_channels": 1}, "cases": {"a": {"image": "b", "file": "c"}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "bundle/configs").mkdir(parents=True)
    formats = {
        "inputs": {"image": {"num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "a"}}},
    }
    (folder / "bundle/configs/metadata.json").write_text(json.dumps({"network_data_format": formats, "name": "a"}))
    config = folder / "bundle/configs/inference.json"
    config.write_text(json.dumps({"image_size": 32, "preprocessing": {"transforms": [{"_target_": "LoadImaged"}]}}))
    mask = np.array(stored_mask(pictures / "masks/p0.png").values)
    assert mask.any()

    def in_series(path: Path) -> object:
        place = folder / "series"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(series / "images/p1", place)
        shutil.copy(path, place / "IM0001.dcm")
        return read_series(place)

    def in_list(of: Path) -> Read:
        def read(path: Path) -> object:
            place = of.with_name("mutated.json")
            shutil.copy(path, place)
            checks.check(place)
            return datalist.entries(place, "labelled")

        return read

    def in_manifest(path: Path) -> object:
        return add_soft_labels([{"image": str(pictures / "images/p1.png"), "case": "a"}], path.parent)

    def in_bundle(path: Path) -> object:
        place = folder / "other"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "bundle", place)
        shutil.copy(path, place / "configs/inference.json")
        return read_bundle(place).transforms("preprocessing")

    def in_study(kind: str, place: str) -> Read:
        """Prepare a study of which one file is mutated; where it is refused, nothing may be written."""
        whole = folder / "studies" / kind
        if not whole.is_dir():
            make(whole, kind)

        def read(path: Path) -> object:
            study = folder / "study"
            shutil.rmtree(study, ignore_errors=True)
            shutil.copytree(whole, study)
            shutil.copy(path, study / place)
            try:
                return prepare(study, kind)
            except TskdError:
                written = {file.relative_to(study / "data") for file in (study / "data").rglob("*") if file.is_file()}
                # preparation.json says of what an interrupted preparation is; it tells nobody that there is a data set
                whole_set = Path("dataset.json") in written
                assert whole_set or written <= {Path("preparation.json")}, f"half a data set: {written}"
                raise

        return read

    def in_run(path: Path) -> object:
        place = folder / "run/checkpoints/last.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        network = torch.nn.Linear(4, 3)
        optimizer = torch.optim.AdamW(network.parameters())
        engine = Engine(lambda *_: None)
        engine.state.max_epochs = 3
        Checkpointing(folder / "run", {"network": network, "optimizer": optimizer}).load(engine)
        return engine

    network = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(1, 4)).sum().backward()
    optimizer.step()
    checkpoint = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": {"epoch": 2, "iteration": 6},
        "identity": {},
        "identity_version": 2,
    }
    save_tensors(checkpoint, folder / "last.pt")
    save_file(network.state_dict(), folder / "model.safetensors")
    shutil.copy(WORKFLOW / "quickstart.yaml", folder / "study.yaml")
    write_rows(folder / "metrics.csv", [MetricRow("a", "8", "b", "0", "p1", "c1", "liver", "dice", 0.5)] * 3)
    (folder / "teacher.pth").write_bytes((folder / "model.pt").read_bytes())

    return {
        "study of pictures": (pictures / "images/p1.png", in_study("pictures", "images/p1.png")),
        "study's mask": (pictures / "masks/p1.png", in_study("pictures", "masks/p1.png")),
        "study of volumes": (volumes / "images/p1.nii.gz", in_study("volumes", "images/p1.nii.gz")),
        "study of DICOM": (series / "images/p1/IM0001.dcm", in_study("dicom", "images/p1/IM0001.dcm")),
        "checkpoint": (folder / "last.pt", in_run),
        "pretrained weights": (folder / "teacher.pth", read_checkpoint),
        "safetensors": (folder / "model.safetensors", read_checkpoint),
        "student's weights": (folder / "model.pt", lambda path: load_weights(torch.nn.Linear(4, 3), path)),
        "study file": (folder / "study.yaml", lambda path: check_study(read_yaml(path), path.name)),
        "metrics": (folder / "metrics.csv", read_rows),
        "picture": (pictures / "images/p1.png", lambda path: read_image(path, 1)),
        "mask": (pictures / "masks/p1.png", stored_mask),
        "packed volume": (volumes / "images/p1.nii.gz", load_volume),
        "volume": (_unpacked(volumes / "images/p1.nii.gz"), load_volume),
        "DICOM": (series / "images/p1/IM0001.dcm", in_series),
        "dataset.json": (listed, in_list(listed)),
        "dataset.json of volumes": (listed_volumes, in_list(listed_volumes)),
        "table": (folder / "table.csv", read_table),
        "weights": (folder / "model.pt", read_tensors),
        "manifest": (folder / "manifest.json", in_manifest),
        "config": (config, in_bundle),
    }


def _unpacked(path: Path) -> Path:
    plain = path.with_name("plain.nii")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    return plain


def main() -> None:
    """Print what was found; exit status 1 if anything was."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Path(folder), options.inputs, options.seed)
    print("\n".join([*found, f"{options.inputs} inputs, {len(found)} found"]))
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
