"""What a finished study says: the verdict, the table, the report, and the bundle that was shipped."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tskd.files import sha256
from tskd.workflow import warm
from tskd.workflow.choose_student import choose_student
from tskd.workflow.step import explain
from tskd.workflow.study import Study


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
    with numbers.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "dice"]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    labels = [*labels[1:], labels[0]] if len(labels) > 2 else labels[-1:]  # the mean last; one structure has none
    width = max(len(row["method"]) for row in rows) + 2
    patients = max(int(row["patients"]) for row in rows)
    yield f"  mean Dice over {patients} test patient{'s' * (patients > 1)}"
    heads = [f"{label[:13]:>14}" for label in labels]
    yield f"  {'method':<{width}}{'labels':>8}{''.join(heads)}{'parameters':>12}{'GMAC':>8}{'ms/image':>10}"
    for method, budget in dict.fromkeys((row["method"], row["budget"]) for row in rows):
        means = {r["label"]: float(r["mean"]) for r in rows if (r["method"], r["budget"]) == (method, budget)}
        cells = "".join(f"{means[label]:14.3f}" if label in means else f"{'–':>14}" for label in labels)
        yield f"  {method:<{width}}{budget:>8}{cells}{_size(study, dataset, method)}"


def _size(study: Study, dataset: str, method: str) -> str:
    file = Path(study.profile(dataset, method).path + ".json") if method in study.config["methods"] else Path("none")
    if not file.is_file():
        return f"{'–':>12}{'–':>8}{'–':>10}"
    size = json.loads(file.read_text(encoding="utf-8"))
    return f"{size['parameters'] / 1e6:10.2f} M{size['gmac']:8.2f}{size['ms_per_image']:10.1f}"


def _ship(study: Study, dataset: str, environment: Mapping[str, str]) -> Iterator[str]:
    step, line = choose_student(study, dataset)
    if step is None or step.folder is None:
        return
    if line:
        yield line
    model, bundle = Path(step.folder, "models", "model.pt"), Path(study.output, dataset, f"{dataset}_segmentation")
    shipped = bundle / "models" / "model.pt"
    if not (shipped.is_file() and sha256(shipped) == sha256(model)):
        if (bundle / "configs" / "metadata.json").is_file():  # of an earlier training
            shutil.rmtree(bundle)
        command = ["tskd.cli", "ship", "--run", step.folder, "--output", str(bundle)]
        command += ["--force"] if "limit" in study.config else []
        with tempfile.TemporaryFile("w+") as log:
            status = warm.start(command, log, {**os.environ, **environment, "PYTHONWARNINGS": "ignore"}).wait()
            log.seek(0)
            cause = explain(status, log.read())
        if status != 0:
            yield f"no bundle was shipped: {cause}"
            return
    yield f"bundle: {bundle} (the student {step.folder.removeprefix(study.output + '/')})"
    yield f"  use it: tskd predict {bundle} IMAGE ... --output masks"
