"""The benchmarks print what they promise, on a few small images."""

import json
import runpy
from pathlib import Path

import pytest
from diffusers import DDPMScheduler

from tskd.synthesis import export_model

pytestmark = pytest.mark.process  # whole programs, and students in processes of their own
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def benchmark(capsys: pytest.CaptureFixture):
    """Runs a script of `benchmarks/` and returns what it printed."""

    def run(name: str, *arguments: object) -> str:
        runpy.run_path(str(BENCHMARKS / name))["main"]([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("features", ["none", "random"])
def test_gate(benchmark, features):
    out = benchmark("gate.py", "--synthetic", 20, "--training", 60, "--size", 32, "--features", features)
    report = json.loads(out)
    assert (report["synthetic"]["images"], report["training_images"], report["training_groups"]) == (20, 60, 3)
    assert report["held_out"]["images"] == 40
    assert (report["features"] is None) == (features == "none")
    assert report["seconds"] > 0


def test_samplers(benchmark, cohort, network, tmp_path):
    pipeline = export_model(network, DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2"), tmp_path)
    rows = "ddim:4", "dpmsolver++:4", "ddpm:4"
    out = benchmark("samplers.py", pipeline, cohort, "--images", 6, "--reference", "ddim:4", "--rows", *rows)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert [line[0] for line in lines[2:]] == ["`ddim`", "`dpmsolver++`", "`ddpm`"]
    greys = {line[0]: float(line[-1]) for line in lines[2:]}
    assert greys["`ddim`"] == 0 < greys["`dpmsolver++`"] < greys["`ddpm`"]  # another solver, other images
    assert all(len(line) == len(lines[0]) for line in lines)


def test_students(benchmark):
    out = benchmark("students.py", "--size", 32, "--students", "lite_unet", "--rounds", 1, "--volume", 64, 6)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["lite_unet", name] for name in ("torch", "onnx", "onnx-int8")]
    sizes, peaks = ([float(row[column]) for row in rows] for column in (2, 8))
    assert sizes[2] < 0.5 * sizes[0]
    assert peaks[1] < 0.7 * peaks[0]  # neither torch nor MONAI in memory
    assert all(float(row[4]) > 0 for row in rows)
