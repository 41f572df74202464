"""A shipped bundle is trained further where nothing of this project can be imported, and never gets worse by it."""

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow
from PIL import Image

from tests.bundles.standalone import NEIGHBOURS, PATCHES, run_alone, ship
from tskd.data import virtual_patient, write_volume
from tskd.export.accept_better import AcceptBetter, class_indices


def write_pairs(folder: Path, kind: str) -> None:
    """Three labelled volumes, or six labelled pictures."""
    for number in range(3):
        image, label, affine = virtual_patient(seed=5, number=number, image_size=40, num_slices=4)
        label = np.minimum(label, 3).astype(np.uint8)
        if kind == "nii.gz":
            write_volume(folder / f"images/p{number}.nii.gz", image, affine)
            write_volume(folder / f"labels/p{number}.nii.gz", label, affine)
            continue
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for k in (1, 2):
            grey = np.clip(image[:, :, k] / image.max() * 255, 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / f"images/p{number}_{k}.png")
            Image.fromarray(label[:, :, k]).save(folder / f"labels/p{number}_{k}.png")


def training(bundle: Path, data: Path, *options: str) -> list[str]:
    """Command line of a bundle's train.json."""
    return [
        "monai.bundle", "run", "--config_file", str(bundle / "configs/train.json"), "--bundle_root", str(bundle),
        "--dataset_dir", str(data), "--max_epochs", "2", "--iterations_per_epoch", "2", "--batch_size", "2", *options,
    ]  # fmt: skip


KINDS = ["volumes", "pictures", "lite", "neighbours", "patches"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of `KINDS`, each with a bundle trained further, and wrong with a label out of range."""
    root = tmp_path_factory.mktemp("further")
    for kind in ("nii.gz", "png"):
        write_pairs(root / kind, kind)
    bundles = {
        "volumes": (ship(root / "volumes", "nii.gz"), root / "nii.gz"),
        "pictures": (ship(root / "pictures", "png"), root / "png"),
        "lite": (ship(root / "lite", "nii.gz", lite=True), root / "nii.gz"),
        "neighbours": (ship(root / "neighbours", "nii.gz", several=NEIGHBOURS), root / "nii.gz"),
        "patches": (ship(root / "patches", "nii.gz", several=PATCHES), root / "nii.gz"),
    }
    write_pairs(root / "bad", "png")
    Image.fromarray(np.full((40, 40), 4, np.uint8)).save(root / "bad/labels/p2_2.png")
    commands = [training(*paths) for paths in bundles.values()]
    *done, wrong = run_alone(*commands, training(ship(root / "wrong", "png"), root / "bad"), cwd=root)
    for run in done:
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
        assert "validation Dice" in run.stdout
    assert wrong.returncode != 0
    assert "expected class indices 0 to 3, found [4]" in wrong.stderr
    return root


@pytest.mark.parametrize("name", KINDS)
def test_the_network_is_trained_from_its_weights_and_the_former_are_kept(trained: Path, name: str) -> None:
    bundle, shipped = trained / name / "student_segmentation", trained / name / "weights.pt"
    before, after = (torch.load(path, weights_only=True) for path in (shipped, bundle / "models/model.pt"))
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    assert before.keys() >= after.keys()
    before = {key: before[key] for key in after}  # without what no mask depends on
    if metadata["version"] == "0.1.0":  # the validation was worse
        assert all(torch.equal(before[key], after[key]) for key in before)
        return
    assert metadata["version"] == "0.1.1"
    assert "validation Dice" in metadata["changelog"]["0.1.1"]
    former = torch.load(bundle / "models/former/model_0.1.0.pt", weights_only=True)
    assert all(torch.equal(before[key], former[key]) for key in before)
    moved = [float((after[key] - before[key]).abs().max()) for key in before if before[key].is_floating_point()]
    assert 0 < max(moved[:2]) < 0.1  # a fine-tuning's steps
    assert [path.name for path in (bundle / "models").glob("*.pt")] == ["model.pt"]  # MONAI Label offers each


@pytest.mark.parametrize("name", KINDS)
def test_no_config_names_the_project_and_monai_finds_its_properties(
    trained: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = trained / name / "student_segmentation"
    for path in (bundle / "configs").glob("*.json"):
        text = path.read_text()
        assert "tskd" not in text.replace("The tskd authors", "").replace("the tskd authors", ""), path
    monkeypatch.syspath_prepend(bundle)
    for module in [module for module in sys.modules if module.partition(".")[0] == "scripts"]:
        monkeypatch.delitem(sys.modules, module)
    data = trained / ("png" if name == "pictures" else "nii.gz")
    workflow = ConfigWorkflow(
        str(bundle / "configs/train.json"), logging_file=str(bundle / "configs/logging.conf"), workflow_type="train",
        bundle_root=str(bundle), dataset_dir=str(data), batch_size=2,
    )  # fmt: skip
    workflow.initialize()
    assert not workflow.check_properties()
    item = workflow.parser.get_parsed_content("train#dataset")[0]
    slices = [item] if name == "pictures" else item
    shape = {"neighbours": (3, 32, 32), "patches": (1, 32, 32, 8)}.get(name, (1, 32, 32))
    assert [tuple(each["image"].shape) for each in slices] == [shape] * (1 if name in ("pictures", "patches") else 4)
    for each in slices:
        assert set(each["label"].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    for module in [module for module in sys.modules if module.partition(".")[0] == "scripts"]:
        del sys.modules[module]


README = "# A\n\n## Other formats\n\n- `models/model.onnx`\n\n## Accuracy\n\nDice 0.9\n\n## Training\n\nonce\n"


def _handler(root: Path, metrics: list[float]) -> tuple[AcceptBetter, torch.nn.Linear]:
    """The handler of a network whose weight is the number of validations, with these results one after the other."""
    network, results = torch.nn.Linear(1, 1), iter(metrics)
    state: Any = SimpleNamespace(metrics={}, key_metric_name="dice")

    def run(epoch: int) -> None:
        state.metrics["dice"] = next(results)

    with torch.no_grad():
        network.weight.fill_(0)
    (root / "models").mkdir(parents=True)
    (root / "configs").mkdir()
    torch.save(network.state_dict(), root / "models/model.pt")
    (root / "models/model.onnx").write_text("of the former weights")
    (root / "docs").mkdir()
    metadata = {"version": "1.0.9", "changelog": {"1.0.9": "first"}, "exported": {"models/model.onnx": {}}}
    (root / "configs/metadata.json").write_text(json.dumps(metadata))
    (root / "docs/README.md").write_text(README)
    return AcceptBetter(str(root), network, SimpleNamespace(run=run, state=state)), network


def _run(handler: AcceptBetter, network: torch.nn.Linear, epochs: int) -> None:
    def step(engine: Engine, batch: Any) -> None:
        with torch.no_grad():
            network.weight += 1

    engine = Engine(step)
    handler.attach(engine)
    engine.run([0], max_epochs=epochs)


@pytest.mark.parametrize(
    ("metrics", "shipped"),
    [
        ([0.5, 0.6, 0.8, 0.7], 2.0),  # before, then after each epoch
        ([0.5, 0.5, 0.4, 0.5], 3.0),  # not worse: the last of the best
        ([0.5, 0.49, 0.1, 0.2], 0.0),
        ([0.5, float("nan"), float("nan"), float("nan")], 0.0),
    ],
)
def test_new_weights_are_taken_only_if_validation_is_not_worse(
    tmp_path: Path, metrics: list[float], shipped: float
) -> None:
    handler, network = _handler(tmp_path, metrics)
    _run(handler, network, 3)
    metadata = json.loads((tmp_path / "configs/metadata.json").read_text())
    assert torch.load(tmp_path / "models/model.pt", weights_only=True)["weight"].item() == shipped
    assert metadata["version"] == ("1.0.10" if shipped else "1.0.9")
    assert (tmp_path / "models/model.onnx").exists() is (not shipped)
    if shipped:
        assert (tmp_path / "models/former/model_1.0.9.onnx").is_file()
        assert torch.load(tmp_path / "models/former/model_1.0.9.pt", weights_only=True)["weight"].item() == 0
        assert list(metadata["changelog"]) == ["1.0.10", "1.0.9"]
    readme = (tmp_path / "docs/README.md").read_text()
    assert ("exported" in metadata) is (not shipped)
    if not shipped:
        assert readme == README
        return
    assert "models/model.onnx" not in readme
    assert "## Accuracy\n\nVersion 1.0.10 was trained further" in readme
    assert "and the section on training, are of version 1.0.9.\n\nDice 0.9\n\n## Training\n\nonce\n" in readme


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("writer", [(torch, "save"), (shutil, "copyfile"), (Path, "write_text")], ids=lambda w: w[1])
def test_a_full_disk_leaves_the_bundle_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: tuple[Any, str]
) -> None:
    handler, network = _handler(tmp_path, [0.5, 0.6])
    before = _files(tmp_path)

    def full(*arguments: Any, **options: Any) -> None:
        target = next(value for value in reversed(arguments) if isinstance(value, Path))
        target.write_bytes(b"cut")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*writer, full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        _run(handler, network, 1)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("renamed", range(6))
def test_a_stop_between_two_steps_claims_no_more_than_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    handler, network = _handler(tmp_path, [0.5, 0.6])
    before, rename = _files(tmp_path), os.replace
    done: list[Path] = []

    def stop(source: Path, target: Path) -> None:
        if len(done) == renamed:
            raise KeyboardInterrupt
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with contextlib.suppress(KeyboardInterrupt):
        _run(handler, network, 1)
    after = _files(tmp_path)
    assert len(done) == min(renamed, 5)
    assert not [name for name in after if name.endswith(".draft")]
    steps = {
        "former copy": after.get("models/former/model_1.0.9.pt") == before["models/model.pt"],
        "weights": torch.load(tmp_path / "models/model.pt", weights_only=True)["weight"].item() == 1,
        "exported file": after.get("models/former/model_1.0.9.onnx") == before["models/model.onnx"],
        "metadata": after["configs/metadata.json"] != before["configs/metadata.json"],
        "readme": after["docs/README.md"] != before["docs/README.md"],
    }
    assert list(steps.values()) == [number < renamed for number in range(5)], steps
    assert ("models/model.onnx" in after) is not steps["exported file"]


def test_labels_out_of_range_are_named() -> None:
    check: Callable[[torch.Tensor], torch.Tensor] = class_indices(3)
    label = torch.tensor([0, 1, 2])
    assert check(label) is label
    with pytest.raises(ValueError, match=r"0 to 2, found \[0, 5\]"):
        check(torch.tensor([0, 5]))
