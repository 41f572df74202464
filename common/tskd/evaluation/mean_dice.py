"""The mean Dice of a validation, by the rule of the evaluation: what chooses a model is what is reported of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ignite.engine import Engine
from ignite.metrics import Metric

from tskd import ranks
from tskd.evaluation.metrics import overlap
from tskd.evaluation.predictions import index_mask
from tskd.evaluation.rows import MetricRow, patient_values


class MeanDice(Metric):
    """Mean Dice over patients, as `summary.json` of an evaluation has it.

    Of each case every structure that truth or prediction shows is scored: a false positive where the truth lacks it
    is 0, one in neither is left out. A patient's cases are averaged by structure, then its structures, then the
    patients. MONAI's `DiceMetric` leaves out false positives by default, and averages over cases.

    Reads `pred` and `label`, index masks [1, X, Y(, Z)], from each item of `engine.state.output`, and `group` and
    `case` from it or from `engine.state.batch`; items without them are patients of their own.

    Args:
        num_classes: of the network, the background included.
        ignore_index: pixels with this truth are not scored.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        super().__init__()

    def reset(self) -> None:
        """Forget all cases."""
        self.rows: list[MetricRow] = []
        self.count = 0

    def iteration_completed(self, engine: Engine) -> None:
        """Score the cases of one batch."""
        outputs, batch = engine.state.output, engine.state.batch
        assert isinstance(outputs, list), "decollate of the evaluator has to be true"
        batches = batch if isinstance(batch, list) and len(batch) == len(outputs) else [{}] * len(outputs)
        for output, inputs in zip(outputs, batches, strict=True):
            self.update({**inputs, **output})

    def update(self, output: Mapping[str, Any]) -> None:
        """Score one case."""
        pred, label = index_mask(output, "pred"), index_mask(output, "label")
        known = label != self.ignore_index
        self.count += 1
        case = str(output.get("case", f"{ranks.rank()}.{self.count}"))
        group = str(output.get("group", case))
        for index in range(1, self.num_classes):
            truth, guess = label == index, (pred == index) & known
            n_pred, n_truth, n_both = (int(np.count_nonzero(mask)) for mask in (guess, truth, guess & truth))
            if n_pred or n_truth:
                score = overlap(n_pred, n_truth, n_both)["dice"]
                self.rows.append(MetricRow("", "", "", "", group, case, str(index), "dice", score))

    def compute(self) -> float:
        """Return the mean over the cases of all processes; 0 where no case shows a structure, true or predicted."""
        rows = {(row.case, row.label): row for part in ranks.gather(self.rows) for row in part}
        values = patient_values(rows.values(), "dice")
        return float(np.mean(list(values.values()))) if values else 0.0
