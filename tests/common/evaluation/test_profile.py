"""Size and speed: counts that can be computed by hand, memory that cannot be less than the weights."""

import json
import sys

import pytest
import torch
from torch import nn

from common.cli import main
from common.evaluation.profile import profile_network, profile_table
from tests.bundles.conftest import BUNDLES

STUDENT = BUNDLES / "student_segmentation"


def test_counts_of_a_convolution():
    found = profile_network(nn.Conv2d(3, 8, 3, padding=1), (3, 16, 32), repeats=4)
    assert found["parameters"] == 3 * 8 * 9 + 8
    assert found["gmac"] == pytest.approx(3 * 8 * 9 * 16 * 32 / 1e9)
    assert 0 < found["ms_per_image"] <= found["ms_p95"]
    assert (found["device"], found["shape"], found["threads"]) == ("cpu", [3, 16, 32], torch.get_num_threads())


def test_a_student_beside_another(tmp_path, capsys):
    names = [f"{STUDENT}@64", f"{STUDENT}:basic_unet@32"]
    assert main(["profile", *names, "--num_classes", "3", "--repeats", "2", "--output", str(tmp_path / "p.json")]) == 0
    unetr, basic = json.loads((tmp_path / "p.json").read_text())
    assert (unetr["network"], basic["network"]) == ("UNETR", "BasicUNet")
    assert (unetr["shape"], basic["shape"]) == ([1, 64, 64], [1, 32, 32])
    if sys.platform == "linux":
        for one in (unetr, basic):  # four bytes a weight, and not the libraries' hundreds of megabytes
            assert one["parameters"] * 4 / 2**20 < one["peak_memory_mb"] < 300
    table = capsys.readouterr().out.strip()
    assert table == profile_table([unetr, basic])
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["UNETR", "BasicUNet"]


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("nowhere", [], "expected a bundle's folder or FOLDER:OVERLAY@SIZE"),
        (f"{STUDENT}:unett", [], "unett.json"),
        (str(STUDENT), ["--vfm", "mobile_sam"], "inference.json has no key vfm"),
    ],
)
def test_what_is_not_there(name, more, message, capsys):
    assert main(["profile", name, *more]) == 2
    assert message in capsys.readouterr().err
