"""Score the predictions of an evaluation run and write them per patient: an Ignite handler."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from tskd.errors import TskdError
from tskd.evaluation.calibration import Calibration, calibration_error, calibration_sums
from tskd.evaluation.metrics import Labels, case_metrics
from tskd.evaluation.predictions import geometry, index_mask, save_mask, source
from tskd.evaluation.reliability import BinRow, bin_rows, write_bins
from tskd.evaluation.rows import OVERALL, MetricRow, organs, patient_values, write_rows
from tskd.files import atomic
from tskd.progress_file import FollowedBar

NEEDED = ("pred", "label", "group", "case")


class MetricsWriter:
    """Score each case, then write `metrics.csv`, `summary.json` and `cases.json` into `output_dir`.

    Reads, from each item of `engine.state.output` (or, for keys that are not there, of `engine.state.batch`):
    `pred` and `label`, index masks [1, X, Y] or [1, X, Y, Z] on the grid of the image file; `group`, the patient;
    `case`, a name that no other case has; `image`, for its metadata; and, if present, `prob` [C, X, Y(, Z)], softmax
    probabilities, for the calibration (`calibration.csv`). Sets `engine.state.metrics["mean_dice"]` when the run
    completes.

    Args:
        output_dir: folder of the run's results.
        labels: class index -> organ name, as in dataset.json.
        dataset: name of the dataset, a column of metrics.csv.
        budget: number of labelled training images, a column of metrics.csv.
        method: name of the method, a column of metrics.csv.
        seed: seed of the training, a column of metrics.csv.
        save_predictions: also write `predictions/<case>.nii.gz` (volumes) or `.png` (images).
        ignore_index: pixels with this truth are not scored.
        tolerance_mm: tolerance of the surface Dice, in mm, or in pixels where a file has no spacing.
    """

    def __init__(
        self,
        output_dir: str | Path,
        labels: Labels,
        dataset: str,
        budget: int | str,
        method: str,
        seed: int | str,
        save_predictions: bool = False,
        ignore_index: int = 255,
        tolerance_mm: float = 2.0,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.labels = {int(index): str(name) for index, name in labels.items()}
        self.run = (str(dataset), str(budget), str(method), str(seed))
        self.save_predictions = save_predictions
        self.ignore_index = ignore_index
        self.tolerance_mm = tolerance_mm
        self.logger = logging.getLogger(__name__)
        self._bar: FollowedBar | None = None
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator: one call a batch, files when it completes."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def __call__(self, engine: Engine) -> None:
        """Score the cases of one batch."""
        outputs, batch = engine.state.output, engine.state.batch
        if not isinstance(outputs, list):
            raise TskdError(
                f"MetricsWriter: expected engine.state.output to be a list of dicts, one a case; found "
                f"{type(outputs).__name__}. Leave `decollate` of the evaluator at true."
            )
        batches = batch if isinstance(batch, list) and len(batch) == len(outputs) else [{}] * len(outputs)
        for output, inputs in zip(outputs, batches, strict=True):
            self._score({**inputs, **output})
        if self._bar is not None:
            self._bar.update(1)

    def _begin(self, engine: Engine) -> None:
        self._reset()
        if idist.get_rank() == 0:
            self._bar = FollowedBar(total=engine.state.epoch_length, desc="evaluation", unit="batch", mininterval=1.0)

    def finish(self, engine: Engine) -> None:
        """Gather the cases of all processes, write the files and log one line an organ."""
        if self._bar is not None:
            self._bar.close()
        cases, rows, bins = self._gather()
        if not cases:
            raise TskdError("MetricsWriter: no case was evaluated; expected at least one. Check the evaluation list.")
        summary = summarise(rows, cases, self.labels)
        if summary["mean_dice"] is None:
            self.logger.warning("no organ of %s is in any case: there is no mean Dice", sorted(self.labels.values()))
        else:
            engine.state.metrics["mean_dice"] = summary["mean_dice"]
        if idist.get_rank() > 0:
            return
        write_rows(self.output_dir / "metrics.csv", rows)
        if bins:
            write_bins(self.output_dir / "calibration.csv", bins)
        else:
            (self.output_dir / "calibration.csv").unlink(missing_ok=True)  # of an earlier evaluation
        run_columns = dict(zip(("dataset", "budget", "method", "seed"), self.run, strict=True))
        self._write_json("summary.json", {**run_columns, "tolerance_mm": self.tolerance_mm, **summary})
        self._write_json("cases.json", cases)
        for organ, values in ((name, v) for name, v in summary["labels"].items() if name != OVERALL):
            self.logger.info(
                "%s: %s (%d patients, absent in %d of %d cases)",
                organ,
                ", ".join(f"{name} {values[name]['mean']:.4g}" for name in ("dice", "hd95") if name in values) or "-",
                values.get("dice", {}).get("n", 0),
                values["absent_cases"],
                len(cases),
            )
        self.logger.info("mean Dice %s -> %s", summary["mean_dice"], self.output_dir / "metrics.csv")

    def _reset(self) -> None:
        self.rows: list[MetricRow] = []
        self.bins: list[BinRow] = []
        self.cases: dict[str, dict[str, Any]] = {}

    def _score(self, item: Mapping[str, Any]) -> None:
        missing = [key for key in NEEDED if key not in item]
        if missing:
            raise TskdError(
                f"MetricsWriter: expected the keys {', '.join(NEEDED)} in each case; missing {', '.join(missing)}, "
                f"found {', '.join(map(str, item))}. `group` and `case` come from dataset.json."
            )
        group, case = str(item["group"]), str(item["case"])
        if case in self.cases:
            raise TskdError(f"case {case!r} was evaluated twice; expected each `case` of dataset.json once.")
        pred, label = index_mask(item, "pred"), index_mask(item, "label")
        affine, spacing, unit = geometry(item)
        values = case_metrics(pred, label, self.labels, spacing, self.ignore_index, self.tolerance_mm)
        if item.get("prob") is not None:
            calibration = calibration_sums(np.asarray(item["prob"].detach().cpu()), label, self.ignore_index)
            values += _calibration_rows(calibration)
            self.bins += bin_rows((*self.run, group, case), calibration)
        self.rows += [MetricRow(*self.run, group, case, *value) for value in values]
        self.cases[case] = {
            "image": source(item, "image"),
            "label": source(item, "label"),
            "prediction": "",
            "group": group,
            "spacing": spacing,
            "unit": unit,
        }
        if self.save_predictions:
            name = case.replace("/", "_")
            path = save_mask(pred, affine, self.output_dir / "predictions" / name)
            self.cases[case]["prediction"] = str(path.resolve())

    def _gather(self) -> tuple[dict[str, dict[str, Any]], list[MetricRow], list[BinRow]]:
        """Gather cases, rows and bins of all processes; a sampler may have given one case to two of them."""
        parts = [(self.cases, self.rows, self.bins)]
        if idist.get_world_size() > 1:
            parts = idist.all_gather(parts[0])  # type: ignore[assignment,arg-type]
        cases: dict[str, dict[str, Any]] = {}
        rows: list[MetricRow] = []
        bins: list[BinRow] = []
        for part_cases, part_rows, part_bins in parts:
            rows += [row for row in part_rows if row.case not in cases]
            bins += [row for row in part_bins if row.case not in cases]
            cases.update(part_cases)
        return cases, rows, bins

    def _write_json(self, name: str, content: object) -> None:
        with atomic(self.output_dir / name) as draft:
            draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _calibration_rows(case: Calibration) -> list[tuple[str, str, float]]:
    """Return rows for the label `all organs`; none where no pixel counts, no `ece_foreground` where no organ is."""
    values = {
        "ece": calibration_error(case.bins["all pixels", "confidence"]),
        "ece_foreground": calibration_error(case.bins["foreground", "confidence"]),
        "brier": case.squared_error / case.pixels if case.pixels else None,
    }
    return [(OVERALL, metric, value) for metric, value in values.items() if value is not None]


def summarise(rows: list[MetricRow], cases: Mapping[str, object], labels: Mapping[int, str]) -> dict[str, Any]:
    """Return the mean of each metric over patients, for each organ, and the mean Dice over organs and patients.

    Args:
        rows: rows of one run.
        cases: the cases evaluated, also those without an organ.
        labels: class index -> organ name.

    Returns:
        {"mean_dice", "cases", "labels": {organ: {metric: {"mean", "n"}, "absent_cases"}}}; `n` counts patients, and
        `absent_cases` the cases with the organ in neither mask. `mean_dice` is None where no organ is in any case.
    """
    result: dict[str, Any] = {}
    names = [name for index, name in sorted(labels.items()) if index]
    for organ in [*names, *sorted({row.label for row in rows} - set(names))]:
        organ_rows = [row for row in rows if row.label == organ]
        values: dict[str, Any] = {}
        for metric in dict.fromkeys(row.metric for row in organ_rows):
            patients = patient_values(organ_rows, metric, organ)
            values[metric] = {"mean": float(np.mean(list(patients.values()))), "n": len(patients)}
        values["absent_cases"] = len(cases) - len({row.case for row in organ_rows})
        result[organ] = values
    dice = patient_values(rows, "dice") if organs(rows) else {}
    mean = float(np.mean(list(dice.values()))) if dice else None
    return {"mean_dice": mean, "cases": len(cases), "patients": len(dice), "labels": result}
