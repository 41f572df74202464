"""Soft labels that are read keep no file: of memory maps Linux allows a process 65,530."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tskd.distillation.soft_labels.read import read_soft_labels
from tskd.errors import TskdError

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
