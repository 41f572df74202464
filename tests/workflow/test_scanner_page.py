"""The commands of docs/how-to/scanner_to_viewer.md do what the page says, on a toy run and a generated series."""

import json
import re
import shlex
from pathlib import Path

import highdicom
import numpy as np
import pytest

from tests.bundles.standalone import IMAGE_SIZE, ship
from tskd.cli import main
from tskd.data import virtual_patient, write_volume
from tskd.data.phantom.dicom_writer import write_series
from tskd.evaluation.rows import MetricRow, write_rows
from tskd.evaluation.writer import summarise
from tskd.handlers.provenance import provenance

pytestmark = pytest.mark.bundle
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/scanner_to_viewer.md"
BLOCK = re.compile(r"^ +```(bash|text)\n(.*?)^ +```$", re.MULTILINE | re.DOTALL)


def _masked(text: str) -> list[str]:
    """Lines with the numbers, codes, patients and structures that differ from data to data left open."""
    text = re.sub(r"(?<![0-9a-z])[0-9a-f]{8}(?![0-9a-z])", "CODE", text)
    text = re.sub(r"\b(patient) [\w-]+,", r"\1 NAME,", text)
    text = re.sub(r"worst organ [a-z ]+ loses", "worst organ NAME loses", text)
    text = re.sub(r"-?\d+(\.\d+)?(e[-+]\d+)?", "N", text)
    return [line.strip() for line in text.strip().splitlines() if not re.search(r"\.dcm: no .* found", line)]


def _run(folder: Path) -> None:
    """A run as the quickstart leaves one, of an untrained network, evaluated."""
    data = folder / "dataset"
    data.mkdir(parents=True)
    ship(data, "nii.gz")  # for its dataset.json
    image, label, affine = virtual_patient(seed=5, number=0, image_size=IMAGE_SIZE, num_slices=3)
    write_volume(data / "a.nii.gz", image, affine)
    write_volume(data / "a_label.nii.gz", label, affine)
    (folder / "models").mkdir()
    (data / "weights.pt").rename(folder / "models/model.pt")
    settings = {"image_size": IMAGE_SIZE, "dataset_file": str(data / "dataset.json")}
    (folder / "versions.json").write_text(json.dumps({**provenance(settings), "settings": settings}))
    cases = ["phantom_1", "phantom_2", "phantom_3"]
    rows = [MetricRow("toy", "16", "mine", "0", case, case, "liver", "dice", 0.8) for case in cases]
    write_rows(folder / "metrics.csv", rows)
    (folder / "summary.json").write_text(json.dumps(summarise(rows, cases, {1: "liver"})))


def test_each_command_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text())
    assert [kind for kind, _ in blocks] == ["bash", "text"] * 2
    series, variables = Path("quickstart/results/phantom/split/dataset/raw/phantom_002"), {}
    image, _, affine = virtual_patient(seed=5, number=1, image_size=40, num_slices=4)
    write_series(series, image.astype(np.int16), affine, "PHANTOM-002", "one", file_order=[2, 0, 3, 1])
    for (_, commands), (_, printed) in zip(blocks[::2], blocks[1::2], strict=True):
        for line in commands.strip().splitlines():
            name, assigned, value = line.strip().partition("=")
            if assigned and name.isupper():
                variables[name] = value
                _run(tmp_path / value)
                continue
            program, *arguments = shlex.split(line)
            assert program == "tskd"
            capsys.readouterr()
            assert main([variables.get(word.removeprefix("$"), word) for word in arguments]) == 0
            assert _masked(capsys.readouterr().out) == _masked(printed)
    masks = Path("masks")
    assert {path.suffix for path in masks.iterdir()} == {".dcm", ".png", ".csv"}
    segmentation = highdicom.seg.segread(next(masks.glob("*.dcm")))
    assert {item.SegmentLabel for item in segmentation.SegmentSequence} == {"liver", "right kidney", "left kidney"}
