"""What a finished study says: the verdict, the table, the report, and the bundle that was shipped."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from tskd.errors import TskdError
from tskd.predict.shipped_bundle import read_bundle
from tskd.workflow import warm
from tskd.workflow.choose_student import choose_student
from tskd.workflow.evaluate_run import find_dataset
from tskd.workflow.step import explain
from tskd.workflow.study import Study

COMPARED = {"pictures": 32, "volumes": 3}  # of the validation list, whose masks by ONNX are compared: seconds


def ending(study: Study, environment: Mapping[str, str]) -> Iterator[str]:
    """Return lines to print, for each data set; ship the student that is best on its validation list."""
    for dataset in study.config["datasets"]:
        report = Path(str(study.report(dataset).folder))
        words = json.loads((report / "verdict.json").read_text(encoding="utf-8"))["verdict"]
        yield f"\n{dataset}"
        yield from (f"  {line}" for line in words)
        yield from table(study, dataset, report / "numbers.csv")
        yield f"report: {report / 'report.html'}"
        yield from _ship(study, dataset, environment)


def table(study: Study, dataset: str, numbers: Path) -> Iterator[str]:
    """Return mean Dice of each structure and method, and where it was measured the size and speed of the network."""
    rows = pd.read_csv(numbers, dtype={"budget": str}, keep_default_na=False, na_values={"mean": [""]})
    rows = rows[rows["metric"] == "dice"]
    labels = list(rows["label"].unique())
    labels = [*labels[1:], labels[0]] if len(labels) > 2 else labels[-1:]  # the mean last; one structure has none
    means = rows.pivot(index=["method", "budget"], columns="label", values="mean")[labels]
    means = means.reindex(rows[["method", "budget"]].drop_duplicates())
    width = int(rows["method"].str.len().max()) + 2
    patients = int(rows["patients"].max())
    yield f"  mean Dice over {patients} test patient{'s' * (patients > 1)}"
    heads = [f"{label[:13]:>14}" for label in labels]
    yield f"  {'method':<{width}}{'labels':>8}{''.join(heads)}{'parameters':>12}{'GMAC':>8}{'ms/image':>10}"
    for (method, budget), values in means.iterrows():
        cells = "".join(f"{'–':>14}" if pd.isna(mean) else f"{mean:14.3f}" for mean in values)
        yield f"  {method:<{width}}{budget:>8}{cells}{_size(study, dataset, method)}"


def _size(study: Study, dataset: str, method: str) -> str:
    file = Path(study.profile(dataset, method).path + ".json") if method in study.config["methods"] else Path("none")
    if not file.is_file():
        return f"{'–':>12}{'–':>8}{'–':>10}"
    size = json.loads(file.read_text(encoding="utf-8"))
    return f"{size['parameters'] / 1e6:10.2f} M{size['gmac']:8.2f}{size['ms_per_image']:10.1f}"


def _ship(study: Study, dataset: str, environment: Mapping[str, str]) -> Iterator[str]:
    from tskd.export.shipped_record import shipped_from

    step, line = choose_student(study, dataset)
    if step is None or step.folder is None:
        return
    if line:
        yield line
    model, bundle = Path(step.folder, "models", "model.pt"), Path(study.output, dataset, f"{dataset}_segmentation")
    if not shipped_from(bundle, model):
        if (bundle / "configs" / "metadata.json").is_file():  # of an earlier training
            shutil.rmtree(bundle)
        command = ["tskd.cli", "ship", "--run", step.folder, "--output", str(bundle)]
        command += ["--data-name", study.data_name(dataset)]
        command += ["--force", "--trial"] if "limit" in study.config else []
        if cause := _failure(command, environment):
            yield f"no bundle was shipped: {cause}"
            return
    if cause := _write_onnx(bundle, Path(step.folder), environment):
        yield f"the bundle has no models/model.onnx, with which predictions start sooner: {cause}"
    yield f"bundle: {bundle} (the student {step.folder.removeprefix(study.output + '/')})"
    yield f"  use it: tskd predict {bundle} IMAGE ... --output masks"


def _write_onnx(bundle: Path, run: Path, environment: Mapping[str, str]) -> str:
    """Write a bundle's network as ONNX, too, where it has none; return why that cannot be, in a line, else ""."""
    if (bundle / "models" / "model.onnx").is_file():
        return ""
    if missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
        return f"pip install {' '.join(missing)}, and run this again"
    try:
        count = COMPARED["pictures" if read_bundle(bundle).pictures else "volumes"]
        command = ["tskd.cli", "export", str(bundle), "--to", "onnx", "--limit", str(count)]
        command += ["--dataset-file", str(find_dataset(run))]
    except TskdError as error:
        return str(error)
    return _failure(command, environment).partition("\n")[0]


def _failure(command: list[str], environment: Mapping[str, str]) -> str:
    """Run a command; return why it failed, "" where it did not."""
    with tempfile.TemporaryFile("w+") as log:
        status = warm.start(command, log, {**os.environ, **environment, "PYTHONWARNINGS": "ignore"}).wait()
        log.seek(0)
        return explain(status, log.read()) if status else ""
