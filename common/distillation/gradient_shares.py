"""How much of the gradient each term of the loss makes: measured once, to set the weights by."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from torch import Tensor, nn

from common import ranks
from common.distillation.loss import DistillationLoss

logger = logging.getLogger(__name__)
COLUMNS = ("step", "term", "weight", "value", "norm", "share")


class GradientShares:
    """Writes each term's gradient to a CSV and the log at one step of a training, and changes nothing in it.

    With g_i the gradient of a weighted term with respect to the student's weights and g their sum, the columns are
    the weight, the term's unweighted value, |g_i|, and its share <g_i, g> / <g, g>. Shares add up to 1; one below 0
    says that the term pulls against the rest. It costs one more backward a term, in that step alone.

    Args:
        loss: the loss that is trained with.
        network: the student, without its projection.
        path: CSV file to write.
        step: the optimisation step to measure in (from 1); a resumed run that is past it leaves the file.
    """

    def __init__(self, loss: DistillationLoss, network: nn.Module, path: str | Path, step: int) -> None:
        self.loss, self.network, self.path, self.step = loss, network, Path(path), step

    def attach(self, engine: Engine) -> None:
        """Registers between the loss and its backward, in the first process only."""
        if ranks.is_first():
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Measures and writes, if it is the step to do so."""
        if engine.state.iteration != self.step:
            return
        output: Any = engine.state.output
        rows = gradient_shares(self.loss, output["pred"], output["label"], self.network)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({"step": engine.state.iteration, **row} for row in rows)
        shares = ", ".join(f"{row['term']} {float(row['share']):.0%}" for row in rows)
        logger.info("shares in the gradient at step %d: %s", engine.state.iteration, shares)


def gradient_shares(
    loss: DistillationLoss, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], network: nn.Module
) -> list[dict[str, str]]:
    """One row {term, weight, value, norm, share} a term; the graph of `outputs` is kept for the training's backward."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    values, gradients = loss.values(outputs, targets), {}
    for name, value in values.items():
        weighted = loss.terms[name].weight * value
        found = torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
        gradients[name] = torch.cat([part.reshape(-1).float() for part in parts])
    whole = torch.stack(list(gradients.values())).sum(0)
    square = (whole @ whole).clamp(min=torch.finfo(whole.dtype).tiny)
    return [
        {
            "term": name,
            "weight": f"{loss.terms[name].weight:.6g}",
            "value": f"{float(values[name].detach()):.6g}",
            "norm": f"{float(gradient.norm()):.6g}",
            "share": f"{float(gradient @ whole / square):.6g}",
        }
        for name, gradient in gradients.items()
    ]
