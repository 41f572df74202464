"""Several processes write one folder together; a killed one is made good by the next run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.forked import run
from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.distillation import add_soft_labels, write_soft_labels
from tskd.networks import build_sam
from tskd.state import load_weights, save_weights


def write_share(options: dict[str, Any]) -> None:
    """Write this process's share of the soft labels."""
    network = load_weights(build_sam("mobile_sam", 3, 64), options["teacher"])
    place = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    write_soft_labels(network, preprocessing=PREPROCESSING, batch_size=1, **place, **options)


def same(first: Path, second: Path) -> bool:
    """Whether two folders hold the same soft labels, and list them alike."""
    listed = [json.loads((folder / "manifest.json").read_text()) for folder in (first, second)]
    files = [sorted(path.name for path in folder.iterdir()) for folder in (first, second)]
    if listed[0] != listed[1] or files[0] != files[1]:
        return False
    for name in files[0]:
        if name.endswith(".safetensors"):
            torch.testing.assert_close(load_file(first / name), load_file(second / name), atol=4e-3, rtol=4e-3)
    return True


@pytest.mark.process
def test_two_processes_write_one_folder(write, teacher, entries, description, tmp_path):
    save_weights(teacher, tmp_path / "model.pt")
    options = {
        "entries": entries, "output_dir": str(tmp_path / "soft"), "teacher": str(tmp_path / "model.pt"),
        "description": description,
    }  # fmt: skip
    done = run(write_share, options, processes=2)
    assert done.returncode == 0, done.stderr
    assert write(output_dir=tmp_path / "whole", teacher=tmp_path / "model.pt") == 5
    assert same(tmp_path / "soft", tmp_path / "whole")


def test_each_rank_does_its_share_and_the_last_one_joins_the_parts(write, entries, tmp_path):
    assert write(rank=1, world_size=2) == 2
    assert not (tmp_path / "soft" / "manifest.json").exists()
    assert write(rank=0, world_size=2) == 3
    write(output_dir=tmp_path / "whole")
    assert same(tmp_path / "soft", tmp_path / "whole")
    assert len(add_soft_labels(entries, tmp_path / "soft")) == 5


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_what_killed_processes_left_counts(world_size, write, tmp_path):
    """However many processes the next run has."""
    for rank in range(2):
        with pytest.raises(KeyboardInterrupt):
            write(rank=rank, world_size=2, batch_size=1, limit=1)
    assert sum(write(rank=rank, world_size=world_size) for rank in range(world_size)) == 3
    write(output_dir=tmp_path / "whole")
    assert same(tmp_path / "soft", tmp_path / "whole")


def test_a_rank_that_is_killed_again_keeps_what_it_had(write, tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write(rank=0, world_size=2, batch_size=1, limit=1)
    assert write(rank=0, world_size=2) == 1


def test_changed_images_are_written_again_by_their_rank_only(write, entries, tmp_path):
    from tests.tskd.distillation.soft_labels.test_write import change

    write()
    change(entries[1]["image"])
    assert write(rank=0, world_size=2) == 0
    assert write(rank=1, world_size=2) == 1
    assert len(add_soft_labels(entries, tmp_path / "soft")) == 5
    assert not list((tmp_path / "soft").glob("manifest.*.json"))
