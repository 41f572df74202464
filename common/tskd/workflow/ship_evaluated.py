"""Ship a run together with what its evaluation says: Dice with intervals, calibration, known failures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tskd.data.io.identities import code_of
from tskd.errors import TskdError
from tskd.evaluation.rows import MetricRow, organs, patient_values, read_rows
from tskd.evaluation.statistics import bootstrap_interval
from tskd.export.exporter import export_network
from tskd.export.ship import ship_run
from tskd.workflow.commands import BUNDLES, DDPM, STUDENT
from tskd.workflow.harmless_flips import warn_of_flips

_CALIBRATION = {"ece": "expected calibration error", "ece_foreground": "of the structures", "brier": "Brier score"}
WORST = 3  # patients named among the known failures


def ship(
    bundle: str | Path | None,
    run: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    model: str | Path | None = None,
    force: bool = False,
    formats: Sequence[str] = (),
    flips: Sequence[str] = (),
    data_name: str = "",
    trial: bool = False,
) -> Path:
    """Ship a run as `ship_run` does, its evaluation in the README; print which patients its codes stand for.

    Args:
        bundle: folder that is copied; by default this project's student, for a diffusion model ddpm_synthesis.
        run: output_dir of a training.
        output: new folder; "segmentation" in its name, but of a diffusion model.
        dataset_file: the training's dataset.json, on whose validation list the files in other formats are compared.
        model: weights where they are not the run's models/model.pt.
        force: ship in spite of what the evaluation says.
        formats: further files of the network beside model.pt, such as torchscript and onnx.
        flips: axes of which the bundle averages the logits of mirrored images.
        data_name: of the data set, for the README; by default the one in its dataset.json.
        trial: the training was one of toy length.

    Returns:
        The output folder.

    Raises:
        TskdError: as `ship_run`, `ship_diffusion` and `export_network`; the folder is complete but for what the last
            of these refuses.
    """
    file = Path(run) / "versions.json"
    if file.is_file() and "prediction_type" in json.loads(file.read_text(encoding="utf-8")).get("settings", {}):
        from tskd.workflow.ship_diffusion import ship_diffusion

        if formats or flips or model is not None:
            raise TskdError(
                f"{run}: expected none of --to, --model and --flips for a diffusion model, found one. Leave it out."
            )
        return ship_diffusion(bundle or BUNDLES / DDPM, run, output, dataset_file, force)
    warn_of_flips(flips, dataset_file)
    metrics = Path(run) / "metrics.csv"
    rows = read_rows(metrics) if metrics.is_file() else []
    lines = accuracy(rows) if organs(rows) else ()
    written = ship_run(
        bundle or BUNDLES / STUDENT, run, output, dataset_file, model, force, lines, flips, data_name, trial
    )
    for patient in worst_patients(rows):
        print(f"among the worst: patient {patient}, in the README {code_of(patient)}")
    for kind in dict.fromkeys(formats):
        print(export_network(written, kind, dataset_file))
    return written


def worst_patients(rows: Sequence[MetricRow]) -> list[str]:
    """Return the patients of the lowest mean Dice, the lowest first."""
    dice = patient_values(rows, "dice") if organs(rows) else {}
    return sorted(dice, key=dice.__getitem__)[:WORST]


def accuracy(rows: Sequence[MetricRow]) -> list[str]:
    """Return lines of Markdown on an evaluation; patients are named by codes.

    Args:
        rows: of one run's metrics.csv, with a Dice.
    """
    lines = ["| structure | mean Dice | 95% interval | patients | lowest |", "| --- | ---: | --- | ---: | ---: |"]
    everything = {"all": patient_values(rows, "dice")}
    note = ""
    for name, values in {
        **everything,
        **{organ: patient_values(rows, "dice", organ) for organ in organs(rows)},
    }.items():
        interval = bootstrap_interval(list(values.values()))
        given = "-" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
        note = note or interval.note
        lines.append(f"| {name} | {interval.mean:.3f} | {given} | {interval.n} | {min(values.values()):.3f} |")
    method = f"Intervals are bootstrap intervals (BCa) over the patients{f' ({note})' if note else ''}."
    return [*lines, "", method, _calibration(rows), _failures(rows)]


def _calibration(rows: Sequence[MetricRow]) -> str:
    values = {metric: patient_values(rows, metric) for metric in _CALIBRATION}
    known = [f"{_CALIBRATION[key]} {sum(cases.values()) / len(cases):.3f}" for key, cases in values.items() if cases]
    return f"Calibration, mean over patients: {', '.join(known)}." if known else "Its calibration was not measured."


def _failures(rows: Sequence[MetricRow]) -> str:
    dice, said = patient_values(rows, "dice"), []
    for patient in worst_patients(rows):
        of_patient = {organ: patient_values(rows, "dice", organ) for organ in organs(rows)}
        organ, value = min(
            ((organ, values[patient]) for organ, values in of_patient.items() if patient in values),
            key=lambda pair: pair[1],
        )
        said.append(f"{code_of(patient)} {dice[patient]:.3f} (lowest {organ}, {value:.3f})")
    return f"Known failures: the patients of the lowest Dice, by code: {', '.join(said)}."
