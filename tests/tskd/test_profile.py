"""Size and speed: counts that can be computed by hand, memory that cannot be less than the weights."""

import json
import sys

import pytest
import torch
from torch import nn

from tests.bundles.conftest import BUNDLES
from tests.forked import run_module
from tskd.cli import main
from tskd.profile import profile_network, profile_table

pytestmark = pytest.mark.process

STUDENT = BUNDLES / "student_segmentation"


def test_counts_of_a_convolution():
    profile = profile_network(nn.Conv2d(3, 8, 3, padding=1), (3, 16, 32), repeats=4)
    assert profile["parameters"] == 3 * 8 * 9 + 8
    assert profile["gmac"] == pytest.approx(3 * 8 * 9 * 16 * 32 / 1e9)
    assert 0 < profile["ms_per_image"] <= profile["ms_p95"]
    assert (profile["device"], profile["shape"], profile["threads"]) == ("cpu", [3, 16, 32], torch.get_num_threads())


class Attention(nn.Module):
    """Of H x W tokens with one channel each."""

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)[:, None]
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


def test_counts_of_an_attention():
    """Scores and their use: two products of 64 x 1 x 64, on a CPU too."""
    assert profile_network(Attention(), (1, 8, 8), repeats=1)["gmac"] == pytest.approx(2 * 64 * 64 / 1e9)


def test_another_student_of_the_bundle(tmp_path, capsys):
    name = f"{STUDENT}:basic_unet@32"
    assert main(["profile", name, "--num_classes", "3", "--repeats", "2", "--output", str(tmp_path / "p.json")]) == 0
    profile = json.loads((tmp_path / "p.json").read_text())
    assert json.loads(capsys.readouterr().out) == profile
    assert (profile["network"], profile["shape"], profile["threads"]) == (
        "BasicUNet",
        [1, 32, 32],
        torch.get_num_threads(),
    )
    if sys.platform == "linux":  # four bytes a weight, and not the libraries' hundreds of megabytes
        assert profile["parameters"] * 4 / 2**20 < profile["peak_memory_mb"] < 100


def test_another_size_of_the_student():
    """In a fork of a process that has imported all, as in a study; the test above starts Python anew."""
    sizes = []
    for features in (8, 16):
        options = ["--image_size", "32", "--repeats", "1", "--set", f"network_def#feature_size={features}"]
        done = run_module(["tskd.cli", "profile", str(STUDENT), *options])
        assert done.returncode == 0, done.stderr
        sizes.append(json.loads(done.stdout)["parameters"])
    assert sizes[0] < sizes[1]


def test_table():
    common = {"gmac": 1.234, "ms_per_image": 5.67, "ms_p95": 8.9}
    small = {"network": "UNet", "parameters": 1_500_000, "shape": [1, 64, 64], "device": "cpu", "threads": 2}
    large = {"network": "sam", "parameters": 90_000_000, "shape": [1, 512, 512], "device": "NVIDIA H100", "threads": 8}
    table = profile_table([{**small, **common, "peak_memory_mb": None}, {**large, **common, "peak_memory_mb": 812.3}])
    deep = {**small, **common, "shape": [1, 64, 64, 8], "peak_memory_mb": None}
    assert "| UNet | 64 x 64 x 8 | cpu" in profile_table([deep])
    assert table.splitlines()[2:] == [
        "| UNet | 64 | cpu, 2 threads | 1.50 M | 1.23 | 5.7 | 8.9 |  |",
        "| sam | 512 | NVIDIA H100 | 90.00 M | 1.23 | 5.7 | 8.9 | 812 MB |",
    ]


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("nowhere", [], "expected a bundle's folder or FOLDER:OVERLAY@SIZE"),
        (f"{STUDENT}:unett", [], "unett.json"),
        (str(STUDENT), ["--vfm", "mobile_sam"], "inference.json has no key vfm"),
        pytest.param(
            str(STUDENT),
            ["--device", "cuda"],
            "expected a CUDA device that torch finds",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device"),
        ),
    ],
)
def test_what_is_not_there(name, more, message, capsys):
    assert main(["profile", name, *more]) == 2
    assert message in capsys.readouterr().err
