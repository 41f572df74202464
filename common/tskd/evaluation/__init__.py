"""Per-case metrics, statistics over patients and the report.

Names load on first use, so that `import tskd.evaluation` stays light.
"""

from typing import TYPE_CHECKING

from tskd.lazy_names import lazy_names

if TYPE_CHECKING:
    from tskd.evaluation.calibration import brier_score, expected_calibration_error
    from tskd.evaluation.mean_dice import MeanDice
    from tskd.evaluation.metrics import case_metrics
    from tskd.evaluation.report.report import write_report
    from tskd.evaluation.rows import MetricRow, patient_values, read_rows, write_rows
    from tskd.evaluation.statistics import bootstrap_interval, holm, paired_test
    from tskd.evaluation.writer import MetricsWriter

_HOME = {
    "MeanDice": "mean_dice",
    "MetricRow": "rows",
    "MetricsWriter": "writer",
    "bootstrap_interval": "statistics",
    "brier_score": "calibration",
    "case_metrics": "metrics",
    "expected_calibration_error": "calibration",
    "holm": "statistics",
    "paired_test": "statistics",
    "patient_values": "rows",
    "read_rows": "rows",
    "write_report": "report.report",
    "write_rows": "rows",
}

__all__ = [
    "MeanDice",
    "MetricRow",
    "MetricsWriter",
    "bootstrap_interval",
    "brier_score",
    "case_metrics",
    "expected_calibration_error",
    "holm",
    "paired_test",
    "patient_values",
    "read_rows",
    "write_report",
    "write_rows",
]

__getattr__ = lazy_names(__name__, _HOME)
