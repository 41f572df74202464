"""Write the measures of fidelity to files and to MLflow."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.files import write_json, write_text

COLUMNS = ("modality", "features", "pair", "measure", "value")


def write_report(report: Mapping[str, Any], path: Path, mlflow_uri: str | None, experiment: str) -> None:
    """Write the report of `fidelity.measure` as JSON and as a table, and send it to MLflow if asked to.

    Args:
        report: {modality, features, fid_features, pairs: {pair: {measure: number or None}}}.
        path: JSON file; the table has the suffix .csv and one line a number.
        mlflow_uri: tracking store, such as "sqlite:////runs/ddpm/mlruns.db"; None for none.
        experiment: the run's experiment there; metrics are named `pair/measure`.

    Raises:
        TskdError: mlflow is asked for and not installed.
    """
    write_json(path, report)
    values = {(pair, name): value for pair, values in report["pairs"].items() for name, value in values.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for (pair, name), value in values.items():
        writer.writerow([report["modality"], report["features"], pair, name, "" if value is None else f"{value:.6g}"])
    write_text(path.with_suffix(".csv"), text.getvalue())
    if mlflow_uri is not None:
        metrics = {f"{pair}/{name}": value for (pair, name), value in values.items() if value is not None}
        _to_mlflow(
            metrics, {key: report[key] for key in ("modality", "features", "fid_features")}, mlflow_uri, experiment
        )


def _to_mlflow(metrics: Mapping[str, float], parameters: Mapping[str, str], uri: str, experiment: str) -> None:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise TskdError("mlflow_uri: expected the package mlflow, found none. pip install 'tskd[mlflow]'") from error
    client = MlflowClient(uri)
    known = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if known is None else known.experiment_id
    run = client.create_run(number, run_name="fidelity").info.run_id
    for name, text in parameters.items():
        client.log_param(run, name, text)
    for name, value in metrics.items():
        client.log_metric(run, name, value)
    client.set_terminated(run)
