"""nnU-Net itself takes the folder that is written for it, learns from it, and its masks are scored as a method.

Needs an interpreter with nnU-Net 2.8.1: `make peers` makes one in .venv-peers and runs this file; TSKD_PEERS_PYTHON
names another.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tskd.cli import main
from tskd.data import entries
from tskd.evaluation.rows import read_rows

pytestmark = pytest.mark.bundle
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def peers_python() -> Path:
    """Interpreter with nnU-Net."""
    named = os.environ.get("TSKD_PEERS_PYTHON")
    python = Path(named).absolute() if named else ROOT / ".venv-peers/bin/python"
    if not python.exists():
        assert not named, f"TSKD_PEERS_PYTHON={named}: no such file"
        pytest.skip(f"needs nnU-Net: no {python}. `make peers` installs it, or set TSKD_PEERS_PYTHON")
    return python


def test_nnunet_learns_from_the_folder_and_its_masks_are_scored(peers_python: Path, tmp_path: Path) -> None:
    """Bright squares left and dark ones right, in noise: labels that were turned or mirrored could not be learnt."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    draw = np.random.default_rng(0)
    for number in range(12):
        image, mask = draw.integers(100, 130, (64, 64)).astype(np.uint8), np.zeros((64, 64), np.uint8)
        row = int(draw.integers(5, 40))
        image[row : row + 18, 6:26], mask[row : row + 18, 6:26] = 220, 1
        image[row : row + 18, 38:58], mask[row : row + 18, 38:58] = 20, 2
        Image.fromarray(image).save(tmp_path / f"images/p{number:02d}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/p{number:02d}.png")
    folders = ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks"), "--labels", "bright,dark"]
    assert main(["prepare", "images-masks", *folders, "--output", str(tmp_path / "data")]) == 0
    dataset_file, raw = tmp_path / "data/dataset.json", tmp_path / "raw/Dataset101_squares"
    assert main(["export", str(dataset_file), "--to", "nnunet", "--output", str(raw)]) == 0
    command = [peers_python, "-W", "ignore", ROOT / "tests/peers/nnunet.py", raw, tmp_path / "work"]
    done = subprocess.run(
        [*map(str, command), "--images", "800", "--batch-size", "4"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    scored = ["--predictions", str(tmp_path / "work/masks"), "--method", "nnunet", "--output", str(tmp_path / "scored")]
    assert main(["score", str(dataset_file), *scored]) == 0
    dice = [row.value for row in read_rows(tmp_path / "scored/metrics.csv") if row.metric == "dice"]
    assert len(dice) == 2 * len(entries(dataset_file, "test"))
    assert min(dice) > 0.9, dice
