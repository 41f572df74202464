"""Nobody is named in any byte written from DICOM files: data, training, evaluation, report, MLflow, bundle, masks."""

import gzip
from pathlib import Path

import pydicom
import pytest

from tests.bundles.conftest import BUNDLES, run_configs
from tests.faults.stages import STUDENT
from tests.forked import run_module
from tests.tskd.data.kinds.studies import make, prepare
from tskd.evaluation.report.report import write_report
from tskd.export.ship import ship_student
from tskd.predict.predict_files import predict

pytestmark = pytest.mark.bundle

NAMES = ("Rumpelstiltskin", "19610412", "1961-04-12", "7714-SECRET", "St. Elsewhere", "2.25.4711")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six series in folders that are called by their patients, with the names planted in the headers."""
    folder = make(tmp_path / "archive", "dicom")
    for number, series in enumerate(sorted((folder / "images").iterdir())):
        for file in series.iterdir():
            data = pydicom.dcmread(file)
            data.PatientName, data.PatientBirthDate = f"{NAMES[0]}^{number}", NAMES[1]
            data.PatientID, data.InstitutionName = f"{NAMES[3]}-{number}", NAMES[4]
            data.StudyInstanceUID, data.SeriesInstanceUID = f"{NAMES[5]}.1", f"{NAMES[5]}.{number + 2}"
            data.SeriesDescription = f"T2 of {NAMES[0]}"
            data.save_as(file)
        name = f"{NAMES[0]}_{NAMES[2]}_{number}"
        series.rename(series.with_name(name))
        (folder / f"masks/p{number}.nii.gz").rename(folder / f"masks/{name}.nii.gz")
    return folder


def test_nobody_is_named_from_the_data_set_to_the_masks(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prepare(study, "dicom")
    written = data.parent.rename(tmp_path / "written")
    data = written / "dataset.json"
    run = written / "run"
    options = {**STUDENT, "max_epochs": 1, "num_classes": 2, "dataset_dir": str(written)}
    places = {"output_dir": str(run), "model_dir": str(run / "models")}
    configs = [str(BUNDLES / f"student_segmentation/configs/{name}.json") for name in ("train", "basic_unet")]
    settings = {"config_file": configs, **options, **places, "tracking": "mlflow"}
    texts = {key: "$None" if value is None else value for key, value in settings.items()}
    command = [f"--{key.replace('__', '#')}={text}" for key, text in texts.items()]
    done = run_module(["monai.bundle", "run", *command], env={"MLFLOW_DISABLE_TELEMETRY": "true"})
    assert done.returncode == 0, done.stderr[-3000:]
    run_configs("student_segmentation", "train", "basic_unet", "evaluate", **options, **places, method="a")
    write_report([run], written / "report.html", dataset=data)
    shipped = ship_student(
        BUNDLES / "student_segmentation", run / "models/model.pt", written / "a_segmentation", data, 32,
        "basic_unet.json", network_keys={
            key.replace("__", "#"): value for key, value in STUDENT.items() if key.startswith("network_def")
        },
    )  # fmt: skip
    assert predict(shipped, [study / "images"], written / "masks") == 0
    for end in ("checkpoints/last.pt", "metrics.csv", "versions.json", "mlruns.db"):
        assert (run / end).is_file()
    masks = list((written / "masks").glob("*_seg.nii.gz"))
    assert len(masks) == 6
    assert f"patient {NAMES[3]}-0" in capsys.readouterr().out  # the console says whose mask is which
    files = [path for path in written.rglob("*") if path.is_file()]
    assert len(files) > 30
    for file in files:
        content = file.read_bytes()
        content += gzip.decompress(content) if file.suffix == ".gz" else b""
        for name in NAMES:
            assert name.lower().encode() not in content.lower(), (file, name)
            assert name.lower() not in str(file.relative_to(written)).lower()
