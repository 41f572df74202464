"""The handler under MONAI's own evaluator: files on the input's grid, right spacing, and clear errors."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    LoadImaged,
    Orientationd,
    ScaleIntensityd,
)
from PIL import Image

from tskd.errors import TskdError
from tskd.evaluation import MetricsWriter, brier_score, case_metrics, patient_values, read_rows
from tskd.evaluation.calibration import REGIONS, SCALES, expected_calibration_error
from tskd.evaluation.reliability import read_bins
from tskd.evaluation.rows import COLUMNS

LABELS = {"0": "background", "1": "liver", "2": "spleen", "3": "left kidney"}
# oblique free, but flipped and anisotropic: an affine whose columns tell the axes apart
AFFINE = np.diag([-1.25, 1.5, 7.0, 1.0]) + np.array([[0, 0, 0, 40.0], [0, 0, 0, -30], [0, 0, 0, 5], [0, 0, 0, 0]])


class Levels(torch.nn.Module):
    """Logits of three classes from the brightness of the image: 0, 0.5 and 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-((x - level) ** 2) for level in (0.0, 0.5, 1.0, 9.0)], dim=1)


def evaluator(data: list[dict[str, Any]], writer: MetricsWriter, orient: bool) -> SupervisedEvaluator:
    keys = ("image", "label")
    steps: list[Any] = [LoadImaged(keys=keys), EnsureChannelFirstd(keys=keys)]
    steps += [Orientationd(keys="image", axcodes="LPS", labels=None)] if orient else []
    preprocessing = Compose([*steps, ScaleIntensityd(keys="image")])
    invert = [Invertd(keys="pred", transform=preprocessing, orig_keys="image", nearest_interp=True)] if orient else []
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data, preprocessing), batch_size=1),
        network=Levels(),
        postprocessing=Compose([*invert, AsDiscreted(keys="pred", argmax=True)]),
        val_handlers=[writer],
    )


def masks(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros(shape, np.uint8)
    truth[2:8, 3:9] = 1
    truth[10:14, 4:11] = 2
    pred = np.roll(truth, seed, axis=0)
    return truth, pred


@pytest.fixture
def volumes(tmp_path: Path) -> list[dict[str, Any]]:
    data = []
    for seed in (1, 2):
        truth, pred = masks((20, 16, 3), seed)
        for name, array in (("image", pred.astype(np.int16) * 100), ("label", truth)):
            nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"{seed}_{name}.nii.gz")
        files = {name: str(tmp_path / f"{seed}_{name}.nii.gz") for name in ("image", "label")}
        data.append({**files, "group": f"patient {seed}", "case": f"case_{seed}"})
    return data


def writer(folder: Path, **settings: Any) -> MetricsWriter:
    return MetricsWriter(folder, LABELS, "phantom", 10, "student", 0, **settings)


def test_volumes(volumes: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "eval"
    engine = evaluator(volumes, writer(out, save_predictions=True), orient=True)
    engine.run()

    rows = read_rows(out / "metrics.csv")
    assert (out / "metrics.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert {(r.dataset, r.budget, r.method, r.seed) for r in rows} == {("phantom", "10", "student", "0")}
    for entry, seed in zip(volumes, (1, 2), strict=True):
        truth, pred = masks((20, 16, 3), seed)
        scored = [(r.label, r.metric, r.value) for r in rows if r.case == entry["case"]]
        expected = case_metrics(pred, truth, LABELS, (1.25, 1.5, 7.0))
        assert [row[:2] for row in scored] == [row[:2] for row in expected]
        assert [row[2] for row in scored] == pytest.approx([row[2] for row in expected])
        saved = nib.load(out / "predictions" / f"{entry['case']}.nii.gz")
        assert np.array_equal(np.asarray(saved.dataobj), pred)
        assert np.allclose(saved.affine, AFFINE)
        assert saved.get_data_dtype() == np.uint8
        assert not saved.header.extensions
        assert not bytes(saved.header["descrip"]).strip(b"\0")

    cases = json.loads((out / "cases.json").read_text())
    assert cases["case_1"]["image"] == volumes[0]["image"]
    assert cases["case_1"]["label"] == volumes[0]["label"]
    assert cases["case_1"]["unit"] == "mm"
    assert cases["case_1"]["spacing"] == pytest.approx([1.25, 1.5, 7.0])
    assert Path(cases["case_2"]["prediction"]).is_file()

    summary = json.loads((out / "summary.json").read_text())
    dice = patient_values(rows, "dice")
    assert summary["mean_dice"] == engine.state.metrics["mean_dice"] == pytest.approx(np.mean(list(dice.values())))
    assert summary["labels"]["liver"]["dice"]["n"] == 2
    assert summary["labels"]["liver"]["absent_cases"] == 0
    assert summary["labels"]["left kidney"] == {"absent_cases": 2}


def test_png_images(tmp_path: Path) -> None:
    truth, pred = masks((20, 16), 1)
    Image.fromarray((pred * 100).T).save(tmp_path / "image.png")
    Image.fromarray(truth.T).save(tmp_path / "label.png")
    entry = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png"), "group": "1", "case": "1_0"}
    evaluator([entry], writer(tmp_path / "eval", save_predictions=True), orient=False).run()
    rows = read_rows(tmp_path / "eval" / "metrics.csv")
    assert [(r.label, r.metric, r.value) for r in rows] == case_metrics(pred, truth, LABELS, (1, 1))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "eval" / "predictions" / "1_0.png")), pred.T)
    assert json.loads((tmp_path / "eval" / "cases.json").read_text())["1_0"]["unit"] == "pixel"


def test_second_run_starts_afresh(volumes: list[dict[str, Any]], tmp_path: Path) -> None:
    engine = evaluator(volumes, writer(tmp_path / "eval"), orient=True)
    engine.run()
    first = (tmp_path / "eval" / "metrics.csv").read_bytes()
    engine.run()
    assert (tmp_path / "eval" / "metrics.csv").read_bytes() == first
    assert not (tmp_path / "eval" / "predictions").exists()
    assert not list((tmp_path / "eval").glob(".part*"))


def test_prediction_left_in_the_networks_orientation(volumes: list[dict[str, Any]], tmp_path: Path) -> None:
    engine = evaluator(volumes, writer(tmp_path), orient=True)
    truth, _ = masks((20, 16, 3), 1)
    nib.save(nib.Nifti1Image(truth, np.diag([1.25, 1.5, 7.0, 1.0])), volumes[0]["label"])
    with pytest.raises(TskdError, match="label is not on the grid of the image file"):
        engine.run()


def run(handler: MetricsWriter, items: list[dict[str, Any]]) -> Engine:
    engine = Engine(lambda _, batch: batch)
    handler.attach(engine)
    engine.run([[item] for item in items])
    return engine


def item(case: str, **more: Any) -> dict[str, Any]:
    truth, pred = masks((20, 16), 1)
    return {"pred": torch.as_tensor(pred)[None], "label": truth[None], "group": "1", "case": case, **more}


def test_calibration_is_that_of_the_probabilities(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = []
    for case in "ab":
        prob = np.moveaxis(rng.dirichlet([3, 1, 1, 0.3], size=(20, 16)), -1, 0)
        items.append(item(case, prob=torch.as_tensor(prob), pred=torch.as_tensor(prob.argmax(0))[None]))
    run(writer(tmp_path), items)
    rows, bins = read_rows(tmp_path / "metrics.csv"), read_bins(tmp_path / "calibration.csv")
    for it in items:
        values = {r.metric: r.value for r in rows if r.label == "all organs" and r.case == it["case"]}
        prob, truth = it["prob"].numpy(), it["label"][0]
        assert values["ece"] == pytest.approx(expected_calibration_error(prob, truth))
        assert values["brier"] == pytest.approx(brier_score(prob, truth))
        outside = (truth == 0) & (prob.argmax(0) == 0)
        foreground = np.where(outside, 255, truth)
        assert values["ece_foreground"] == pytest.approx(expected_calibration_error(prob, foreground))
        case_bins = [b for b in bins if b.case == it["case"]]
        counts = {
            key: sum(b.pixels for b in case_bins if (b.region, b.scale) == key) for key in product(REGIONS, SCALES)
        }
        inside = int((~outside).sum())
        assert list(counts.values()) == [320, 320, inside, inside]
    run(writer(tmp_path), [item("a")])  # without probabilities: nothing of the earlier evaluation is left
    assert not (tmp_path / "calibration.csv").exists()


def test_patient_mean_weighs_patients_alike(tmp_path: Path) -> None:
    truth, _ = masks((20, 16), 1)
    right = {"pred": truth[None], "label": truth[None], "group": "2"}
    items = [item("a"), item("b"), item("c"), {**right, "case": "d"}]
    engine = run(writer(tmp_path), items)
    rows = read_rows(tmp_path / "metrics.csv")
    one = patient_values(rows, "dice")["1"]
    assert one < 1
    assert engine.state.metrics["mean_dice"] == pytest.approx((one + 1) / 2)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([item("a"), item("a")], "evaluated twice"),
        ([{"pred": item("a")["pred"]}], "missing label, group, case"),
        ([item("a", pred=torch.zeros(4, 20, 16))], "one channel of class indices"),
        ([item("a", pred=torch.full((1, 20, 16), 0.5))], "found fractions"),
        ([item("a", pred=torch.zeros(1, 10, 8))], "(10, 8) and (20, 16)"),
        ([item("a", image=MetaTensor(torch.zeros(1, 40, 32), meta={"spatial_shape": [40, 32]}))], "Invertd"),
    ],
)
def test_errors_name_the_fault(items: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    with pytest.raises(TskdError) as error:
        run(writer(tmp_path), items)
    assert words in str(error.value)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("bundle", ["teacher_segmentation", "student_segmentation"])
@pytest.mark.parametrize("calibration", [True, False])
def test_config_keeps_the_probabilities_of_the_prediction(bundle: str, calibration: bool) -> None:
    configs = Path(__file__).resolve().parents[3] / "bundles" / bundle / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / f"{name}.json") for name in ("train", "evaluate")])
    parser["calibration"] = calibration
    parser["validate#preprocessing"] = Compose([EnsureTyped("image")])
    chain = parser.get_parsed_content("validate#postprocessing").transforms
    logits = torch.randn(5, 6, 7)
    processed = Compose([step for step in chain if not isinstance(step, Invertd)])({"pred": logits})
    assert ("prob" in processed) == calibration
    assert torch.equal(processed["pred"][0], logits.argmax(0))
    if calibration:
        assert torch.allclose(processed["prob"], logits.softmax(0))
