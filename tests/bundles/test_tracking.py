"""`--tracking mlflow` and TensorBoard: the losses and metrics of a training arrive there, as they are in its CSV."""

import csv
import json
import math
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from monai.bundle import ConfigWorkflow
from monai.utils import path_to_sqlite_uri
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.bundles.conftest import BUNDLES
from tests.forked import run_module

ITERATIONS = 12  # TensorBoard gets every tenth
TOY = {
    "max_epochs": 1, "iterations_per_epoch": ITERATIONS, "batch_size": 2, "warmup_steps": 4, "val_interval": 1,
    "experiment_name": "toy",
}  # fmt: skip
OPTIONS: dict[str, dict[str, object]] = {
    "teacher_segmentation": {
        "image_size": 64, "vfm": "mobile_sam", "pretrained": "@network_def", "fine_tuning#blocks": 1,
    },
    "student_segmentation": {"image_size": 32},
    "ddpm_synthesis": {
        "image_size": 16, "val_images": 4,
        "network_def#unet#block_out_channels": [16, 32],
        "network_def#unet#down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "network_def#unet#up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "network_def#unet#layers_per_block": 1,
    },
}  # fmt: skip
METRIC = {
    "teacher_segmentation": "val_mean_dice",
    "student_segmentation": "val_mean_dice",
    "ddpm_synthesis": "denoising_error",
}
Series = list[tuple[int, float]]


class Training(NamedTuple):
    """A finished training: its bundle, its output_dir, and the files that it left in the folder it was started in."""

    bundle: str
    output: Path
    stray: list[Path]


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=list(OPTIONS))
def training(request: pytest.FixtureRequest, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    bundle = request.param
    folder = tmp_path_factory.mktemp(bundle)
    start, output = folder / "start", folder / "run"
    start.mkdir()
    options = {
        **TOY, **OPTIONS[bundle], "bundle_root": BUNDLES / bundle, "dataset_dir": cohort, "output_dir": output,
        "model_dir": output / "models", "tracking": "mlflow", "save_execute_config": output / "config.json",
    }  # fmt: skip
    command = ["monai.bundle", "run"]
    for key, value in {"config_file": BUNDLES / bundle / "configs/train.json", **options}.items():
        command += [f"--{key}", str(value)]
    before = files(BUNDLES / bundle) | files(cohort)
    environment = {key: None for key in os.environ if key.startswith("MLFLOW_")}
    done = run_module(command, cwd=start, env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    after = files(BUNDLES / bundle) | files(cohort) | files(start)
    return Training(bundle, output, sorted(after - before))


def logged(output: Path, name: str) -> float:
    """The only value of that name in the run's CSV: the mean of the epoch, with six digits."""
    with (output / "train_log.csv").open(newline="") as file:
        (value,) = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]
    return value


class Store(NamedTuple):
    client: MlflowClient
    run: str

    def series(self, name: str) -> Series:
        return [(point.step, point.value) for point in self.client.get_metric_history(self.run, name)]


def store(output: Path) -> Store:
    """The MLflow database of a training, and its only run, which is in the only experiment that has one."""
    client = MlflowClient(path_to_sqlite_uri(output / "mlruns.db"))
    experiments = {item.name: item.experiment_id for item in client.search_experiments()}
    runs = {name: client.search_runs([number]) for name, number in experiments.items()}
    assert [name for name, found in runs.items() if found] == ["toy"]
    (run,) = runs["toy"]
    assert run.info.status == "FINISHED"
    return Store(client, run.info.run_id)


def tensorboard(output: Path, name: str) -> Series:
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    assert name in events.Tags()["scalars"]
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_mlflow_has_every_loss(training: Training) -> None:
    losses = store(training.output).series("train_loss")
    assert [step for step, _ in losses] == list(range(1, ITERATIONS + 1))
    assert all(math.isfinite(loss) and loss > 0 for _, loss in losses)
    mean = sum(loss for _, loss in losses) / ITERATIONS
    assert mean == pytest.approx(logged(training.output, "loss"), rel=1e-4)


def test_mlflow_has_the_validation_and_the_learning_rate(training: Training) -> None:
    found, name = store(training.output), METRIC[training.bundle]
    ((epoch, value),) = found.series(name)
    assert epoch == 1
    assert value == pytest.approx(logged(training.output, f"validation_{name}"), rel=1e-4)
    rates = [rate for _, rate in found.series("lr_group_0")]
    assert len(rates) == ITERATIONS
    assert rates[0] < max(rates) > rates[-1]  # warm-up, then the cosine


def test_mlflow_has_the_config_with_the_overrides(training: Training, tmp_path: Path) -> None:
    found = store(training.output)
    assert [item.path for item in found.client.list_artifacts(found.run)] == ["config.json"]
    config = json.loads(Path(found.client.download_artifacts(found.run, "config.json", str(tmp_path))).read_text())
    expected = {**TOY, **OPTIONS[training.bundle], "output_dir": str(training.output)}
    top = {key: value for key, value in expected.items() if "#" not in key}
    assert {key: config[key] for key in top} == top
    assert config["train"]["handlers"][-1]["_target_"] == "MLFlowHandler"


def test_tensorboard_has_the_losses_and_the_validation(training: Training) -> None:
    ((step, loss),) = tensorboard(training.output, "train_loss")
    assert step == 10
    assert math.isfinite(loss)
    assert loss == pytest.approx(dict(store(training.output).series("train_loss"))[step], rel=1e-6)
    name = METRIC[training.bundle]
    ((epoch, value),) = tensorboard(training.output, name)
    assert epoch == 1
    assert value == pytest.approx(logged(training.output, f"validation_{name}"), rel=1e-4)


def test_everything_is_in_the_output_folder(training: Training) -> None:
    assert training.stray == []
    found = store(training.output)
    artifacts = Path(unquote(urlsplit(found.client.get_run(found.run).info.artifact_uri).path))
    assert artifacts.is_relative_to(training.output / "mlruns")
    assert (artifacts / "config.json").is_file()


@pytest.mark.parametrize("bundle", list(OPTIONS))
def test_which_overrides_give_mlflow_the_config(bundle: str, tmp_path: Path) -> None:
    """MONAI appends to the text of `output_dir`: with a plain path the config is in the folder, but not in the run."""

    def config(place: Path, **overrides: str) -> Path:
        """The file that the handler is told to log; MONAI writes the config to `place` whatever it tells."""
        workflow = ConfigWorkflow(
            config_file=str(BUNDLES / bundle / "configs/train.json"), workflow_type="train", logging_file=False,
            bundle_root=str(tmp_path), tracking="mlflow", **overrides,
        )  # fmt: skip
        (written,) = place.glob("config*.json")
        assert json.loads(written.read_text())["bundle_root"] == str(tmp_path)
        handler = workflow.parser["train#handlers"][-1]
        assert (handler["_target_"], handler["artifacts"]) == ("MLFlowHandler", "@save_execute_config")
        return Path(workflow.parser.get_parsed_content("save_execute_config"))

    default, expression, named, plain = (tmp_path / name for name in ("eval", "expression", "named", "plain"))
    assert config(default).is_file()
    assert config(expression, output_dir=f"$'{expression}'").is_file()
    assert config(named, output_dir=str(named), save_execute_config=str(named / "config.json")).is_file()
    assert not config(plain, output_dir=str(plain)).exists()
