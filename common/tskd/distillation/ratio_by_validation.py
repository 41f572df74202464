"""Whether pseudo-labels ask the teacher at all: not where its validation Dice is far below the student's."""

from __future__ import annotations

import logging
from pathlib import Path

from tskd.train_log import FAR, model_dice

logger = logging.getLogger(__name__)


def ratio_by_validation(
    ratio: float | str, teacher_model: str | Path | None, init_weights: str | Path | None
) -> float | str:
    """Return the `ratio` of `SemiSupervisedBatch`; in place of "agreement" 1 (no teacher) if the teacher is far behind.

    The Dice of teacher and student on the validation list are those of their training logs, RUN/train_log.csv beside
    RUN/models; where one is unknown, as of a committee or of weights that were copied elsewhere, `ratio` stays.

    Args:
        ratio: a number, which stays, or "agreement".
        teacher_model: RUN/models/model.pt of the teacher, or None.
        init_weights: RUN/models/model.pt of the student that the training starts from, or None.
    """
    if ratio != "agreement" or teacher_model is None or init_weights is None:
        return ratio
    teacher, student = _dice(teacher_model), _dice(init_weights)
    if teacher is None or student is None or teacher > student - FAR:
        return ratio
    logger.warning(
        f"pseudo-labels: the teacher's validation Dice ({teacher:.3f}) is more than {FAR} below that of the student "
        f"that this training starts from ({student:.3f}); the student's average alone makes them. pseudo_ratio, a "
        "number, would ask the teacher"
    )
    return 1.0


def _dice(model: str | Path) -> float | None:
    folder = Path(model).parent
    return model_dice(folder.parent) if folder.name == "models" else None
