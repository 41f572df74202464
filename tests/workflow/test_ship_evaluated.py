"""A shipped README says how well the model does, where it fails and what it was made of; patients have codes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import load

from tests.bundles.standalone import BUNDLE, IMAGE_SIZE, ship, student, write_volumes
from tskd.cli import main
from tskd.data import write_volume
from tskd.data.io.identities import code_of
from tskd.evaluation.rows import MetricRow, write_rows
from tskd.evaluation.statistics import bootstrap_interval
from tskd.evaluation.writer import summarise
from tskd.files import sha256
from tskd.handlers.provenance import provenance
from tskd.workflow.export_run import export
from tskd.workflow.ship_evaluated import accuracy
from tskd.workflow.ship_evaluated import ship as ship_evaluated

pytestmark = pytest.mark.bundle
DICE = {"Doe John": (0.9, 0.8), "Roe_Jane": (0.7, 0.2), "p3": (0.95, 0.9), "p4": (0.6, 0.85), "p5": (0.9, 0.9)}


def _rows() -> list[MetricRow]:
    run = ("toy", "16", "mine", "0")
    rows = []
    for patient, values in DICE.items():
        for organ, value in zip(("liver", "spleen"), values, strict=True):
            rows.append(MetricRow(*run, patient, patient, organ, "dice", value))
        rows.append(MetricRow(*run, patient, patient, "all organs", "ece_foreground", 0.04))
    return rows


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was trained, with synthetic images, and evaluated."""
    ship(tmp_path, "nii.gz", provenance={"licence": "CC BY-NC-SA 4.0", "source": "a challenge"})
    folder, file = tmp_path / "run", tmp_path / "dataset.json"
    (folder / "models").mkdir(parents=True)
    (tmp_path / "weights.pt").rename(folder / "models/model.pt")
    data = json.loads(file.read_text())
    synthetic = {**data, "provenance": {"source": "synthetic: sampled"}, "test": [], "unlabelled": [
        {"image": f"s{k}.png", "group": "s", "case": f"s{k}"} for k in range(30)]}  # fmt: skip
    data["training"] = [
        {"image": f"i{k}.png", "label": f"l{k}.png", "group": f"t{k // 4}", "case": f"c{k}"} for k in range(20)
    ]
    file.write_text(json.dumps(data))
    (tmp_path / "synthetic.json").write_text(json.dumps(synthetic))
    settings = {"dataset_file": str(file), "num_labelled": 8, "vfm": "mobile_sam"}
    settings["transfer_files"] = [str(file), str(tmp_path / "synthetic.json")]
    made = {
        **provenance(settings), "settings": {"image_size": IMAGE_SIZE, "seed": 3}, "config": ["train.json"],
        "config_sha256": "c0ffee", "python": "3.11.7", "packages": {"torch": "2.13.0"}, "device": "cpu",
    }  # fmt: skip
    (folder / "versions.json").write_text(json.dumps(made))
    rows = _rows()
    write_rows(folder / "metrics.csv", rows)
    (folder / "summary.json").write_text(json.dumps(summarise(rows, DICE, {1: "liver", 2: "spleen"})))
    return folder


def test_the_readme_says_how_well_and_of_what(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = ship_evaluated(BUNDLE, run, tmp_path / "a_segmentation", tmp_path / "dataset.json")
    readme = (shipped / "docs/README.md").read_text()
    liver = bootstrap_interval([pair[0] for pair in DICE.values()])
    assert f"| liver | {liver.mean:.3f} | {liver.low:.3f} to {liver.high:.3f} | 5 | 0.600 |" in readme
    assert "expected" not in readme.split("Calibration, mean over patients: ")[1][:20]
    assert "Calibration, mean over patients: of the structures 0.040." in readme
    assert f"{code_of('Roe_Jane')} 0.450 (lowest spleen, 0.200)" in readme
    assert f"patient Roe_Jane, in the README {code_of('Roe_Jane')}" in capsys.readouterr().out
    assert "- Budget: 8 labelled images of 2 patients." in readme
    assert "- Beside them 12 unlabelled and 30 synthetic images (60% of all are synthetic)." in readme
    assert "- Teacher: mobile_sam. Configuration: `train.json`; seed 3." in readme
    assert "Python 3.11.7, torch 2.13.0, on cpu" in readme
    for file in (shipped / "models/model.pt", run / "models/model.pt", tmp_path / "dataset.json"):
        assert sha256(file) in readme
    assert "licence: CC BY-NC-SA 4.0" in readme
    for file in shipped.rglob("*"):
        if file.is_file():
            assert not [name for name in DICE if len(name) > 2 and name.encode() in file.read_bytes()], file
    metadata = json.loads((shipped / "configs/metadata.json").read_text())
    assert metadata["eval_metrics"] == {"mean_dice": 0.77}
    assert metadata["provenance"]["images"] == {
        "labelled": 8, "labelled_patients": 2, "unlabelled": 12, "synthetic": 30
    }  # fmt: skip
    assert metadata["provenance"]["data_licence"] == "CC BY-NC-SA 4.0"


ALONG_Y, PLAIN = "averaged over images mirrored along y", "without mirrored images"


@pytest.mark.parametrize(
    ("evaluated", "flips", "words"),
    [
        ([], ["y"], f"This was measured {PLAIN}; the bundle predicts {ALONG_Y}."),
        (["y"], [], f"This was measured {ALONG_Y}; the bundle predicts {PLAIN}."),
        (["y"], ["y"], None),
    ],
)
def test_it_says_if_the_evaluation_had_other_flips(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluated: list[str], flips: list[str], words: str
) -> None:
    (run / "evaluation").mkdir()
    (run / "evaluation/versions.json").write_text(json.dumps({"settings": {"flips": evaluated}}))
    command = ["ship", "--run", str(run), "--dataset-file", str(tmp_path / "dataset.json")]
    command += ["--output", str(tmp_path / "a_segmentation"), *(["--flips", *flips] if flips else [])]
    assert main(command) == 0
    assert ("warning: --flips y: images of MR are not mirrored" in capsys.readouterr().out) is bool(flips)
    readme = (tmp_path / "a_segmentation/docs/README.md").read_text()
    assert readme.count("This was measured ") == (2 if words else 0)
    if words:
        assert readme.count(words) == 2
    assert json.loads((tmp_path / "a_segmentation/configs/inference.json").read_text())["flips"] == flips


def test_a_training_that_starts_from_another_inherits_its_images(run: Path, tmp_path: Path) -> None:
    settings = {"dataset_file": str(tmp_path / "dataset.json"), "num_labelled": "1 patient"}
    after = provenance({**settings, "init_weights": str(run / "models/model.pt")})
    assert after["images"] == {"labelled": 4, "labelled_patients": 1, "unlabelled": 12, "synthetic": 30}
    assert provenance(settings)["images"]["synthetic"] == 0


def test_one_patient_gives_no_interval() -> None:
    lines = accuracy([row for row in _rows() if row.group == "p3" and row.metric == "dice"])
    assert "| all | 0.925 | - | 1 | 0.925 |" in lines
    assert "(one patient gives no interval)" in lines[-3]
    assert lines[-2] == "Its calibration was not measured."


def test_a_run_that_is_shipped_already_is_not_shipped_again(run: Path, tmp_path: Path) -> None:
    options = {"output": tmp_path / "label", "dataset_file": tmp_path / "dataset.json"}
    export(run, "label", **options)
    written = (run / "shipped_segmentation/configs/inference.json").stat().st_mtime_ns
    export(run, "label", **{**options, "output": tmp_path / "again"})
    assert (run / "shipped_segmentation/configs/inference.json").stat().st_mtime_ns == written


def test_further_formats_lie_beside_the_weights_and_are_named(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs onnx, an optional dependency")
    data = json.loads((tmp_path / "dataset.json").read_text())
    volume = write_volumes(tmp_path)[0]
    image = nib.load(volume)
    write_volume(tmp_path / "empty.nii.gz", np.zeros(image.shape, np.uint8), image.affine)
    data["validation"] = [{"image": volume.name, "label": "empty.nii.gz", "group": "v", "case": "v"}]
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    output = tmp_path / "b_segmentation"
    command = ["ship", "--run", str(run), "--dataset-file", str(tmp_path / "dataset.json"), "--output", str(output)]
    assert main([*command, "--force", "--to", "torchscript", "onnx"]) == 0
    names = {path.name for path in (output / "models").iterdir()}
    assert names == {"model.pt", "model.ts", "model.onnx", "exported_torchscript.csv", "exported_onnx.csv"}
    exported = json.loads((output / "configs/metadata.json").read_text())["exported"]
    assert {name: entry["sha256"] for name, entry in exported.items()} == {
        name: sha256(output / name) for name in ("models/model.ts", "models/model.onnx")
    }
    assert "- `models/model.ts` (torchscript)" in (output / "docs/README.md").read_text()
    network = load(output.name, bundle_dir=output.parent, load_ts_module=True)[0]
    x = torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        assert torch.allclose(network(x), student()(x), atol=1e-5)
