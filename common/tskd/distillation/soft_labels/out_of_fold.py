"""Teachers that were trained without a fold of the labelled patients (`fold.json`), each in its place."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from tskd.data.budget import Budget
from tskd.errors import TskdError

logger = logging.getLogger(__name__)


def fold_teachers(models: Sequence[str | Path], num_labelled: Budget = None) -> list[str | Path]:
    """Return the weights files as they are, after a look at the trainings that wrote them.

    A model in another fold's place would teach the very cases that it was trained on.

    Args:
        models: RUN/models/model.pt of each fold, in the order of the folds; RUN/versions.json says which it is. A model
            without that file is let through with a warning.
        num_labelled: labelled budget, which has to be the trainings': the folds depend on it.

    Raises:
        TskdError: naming the first model that is of another fold, number of folds or budget.
    """
    for position, model in enumerate(models):
        record = Path(model).parent.parent / "versions.json"
        if not record.is_file():
            logger.warning(
                "%s: no %s beside it, so nobody can tell whether this teacher has seen fold %d.",
                model, record.name, position,
            )  # fmt: skip
            continue
        settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
        wanted = {"fold": position, "folds": len(models), "num_labelled": num_labelled}
        if wrong := [
            f"{key} {value} (found {settings.get(key)})" for key, value in wanted.items() if settings.get(key) != value
        ]:
            raise TskdError(
                f"fold_models[{position}]: expected a training with {', '.join(wrong)}; {record} says otherwise. List "
                "one model a fold of fold.json, in the order of the folds, with the num_labelled of their trainings: "
                "another one would teach the cases that it was trained on."
            )
    return list(models)
