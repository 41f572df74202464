"""Soft labels that are read keep no file: of memory maps Linux allows a process 65,530."""

import hashlib
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tskd.data import check, datalist
from tskd.data.transforms import image_transforms
from tskd.distillation.soft_labels.read import add_soft_labels, read_soft_labels
from tskd.distillation.transfer_set import transfer_entries, transfer_identity
from tskd.errors import TskdError
from tskd.files import write_json

ARRAYS = {"logits": torch.randn(5, 64, 64).half(), "embedding": torch.randn(64, 8, 8).half()}


def maps(folder: Path) -> int:
    """Memory maps of this process on files of a folder."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def write(folder: Path, number: int) -> list[Path]:
    """Write files of soft labels."""
    paths = [folder / f"{k}.safetensors" for k in range(number)]
    for path in paths:
        save_file(ARRAYS, path)
    return paths


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory maps are counted in /proc/self/maps")
def test_what_is_read_holds_no_memory_map(tmp_path):
    paths = write(tmp_path, 20)
    mapped = [load_file(path) for path in paths]
    assert maps(tmp_path) >= 20  # the count sees them
    del mapped
    before = len(Path("/proc/self/maps").read_text().splitlines())
    kept = [read_soft_labels(path, ["logits", "embedding"]) for path in paths]
    assert maps(tmp_path) == 0
    assert len(Path("/proc/self/maps").read_text().splitlines()) - before < len(kept)
    assert all(torch.equal(one[key], ARRAYS[key]) for one in kept for key in ARRAYS)


def test_only_what_is_wanted_is_read(tmp_path):
    (path,) = write(tmp_path, 1)
    assert read_soft_labels(path, ["logits"]).keys() == {"logits"}
    with pytest.raises(TskdError, match=r"expected 'label', found \['embedding', 'logits'\]"):
        read_soft_labels(path, ["logits", "label"])


def test_a_picture_is_opened_once_to_check_it_and_once_to_load_it(tmp_path, monkeypatch):
    """Between them its checksum is asked for twice, to find its soft labels and to bind the checkpoint to it."""
    now = time.time
    monkeypatch.setattr("tskd.file_content.time.time", lambda: now() + 60)  # as if it had been written long ago
    for k in range(4):
        Image.fromarray(np.random.default_rng(k).integers(0, 250, (16, 16), np.uint8)).save(tmp_path / f"{k}.png")
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / f"l{k}.png")
    listed = [{"image": f"{k}.png", "label": f"l{k}.png", "group": f"g{k}", "case": f"g{k}"} for k in range(4)]
    header = {"name": "a", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "liver"}}
    lists = {"training": listed[:2], "validation": listed[2:3], "test": listed[3:]}
    datalist.write(tmp_path / "dataset.json", {**header, **lists, "intensity": {"percentiles": [0.5, 99.5]}})
    folder = tmp_path / "soft"
    cases = {f"g{k}": {"image": hashlib.sha256((tmp_path / f"{k}.png").read_bytes()).hexdigest()} for k in range(4)}
    for case in cases:
        write_json(folder / "manifest.json", {"teacher": "0", "preprocessing": {}, "cases": cases})
        save_file(ARRAYS, folder / f"{case}.safetensors")
    opens: Counter[str] = Counter()

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(tmp_path)):
            opens[Path(str(arguments[0])).name] += 1

    sys.addaudithook(count)  # for good, but it looks at this test's folder alone
    check(tmp_path / "dataset.json")
    entries = transfer_entries([tmp_path / "dataset.json"], tmp_path / "dataset.json")
    found = add_soft_labels(entries, folder)
    transfer_identity(found)
    for entry in found:
        image_transforms(["image"], 16)(entry)
    assert [opens[f"{k}.png"] for k in range(2)] == [2, 2]
