"""How much of the gradient each term of the loss makes: measured over a few steps, to set the weights by."""

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

from tskd import ranks
from tskd.distillation.distillation_loss import DistillationLoss

logger = logging.getLogger(__name__)
COLUMNS = ("steps", "term", "weight", "value", "norm", "share")


class GradientShares:
    """Writes each term's mean gradient over some steps of a training to a CSV and the log, and changes nothing in it.

    With g_i the gradient of a weighted term with respect to the student's weights, averaged over the steps, and g their
    sum, the columns are the mean weight, the term's mean unweighted value, |g_i|, and its share <g_i, g> / <g, g>.
    Shares add up to 1; one below 0 says that the term pulls against the rest. One step would not do: a small batch may
    hold no image that a term applies to. It costs one more backward a term, in these steps alone.

    Args:
        loss: the loss that is trained with.
        network: the student, without its projection.
        path: CSV file, written anew with every step measured, so that a training that ends earlier has it too.
        step: the first optimisation step to measure in (from 1); a resumed run that is past all leaves the file.
        count: how many steps.
    """

    def __init__(
        self, loss: DistillationLoss, network: nn.Module, path: str | Path, step: int, count: int = 10
    ) -> None:
        self.loss, self.network, self.path = loss, network, Path(path)
        self.steps = range(step, step + count)
        self.measured: list[int] = []
        self.sums: dict[str, dict[str, Tensor]] = {}

    def attach(self, engine: Engine) -> None:
        """Register between the loss and its backward, in the first process only."""
        if ranks.is_first():
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Measures and writes, if it is a step to do so."""
        if engine.state.iteration not in self.steps:
            return
        output: Any = engine.state.output
        for name, values in term_gradients(self.loss, output["pred"], output["label"], self.network).items():
            before = self.sums.get(name, {})
            self.sums[name] = {key: value + before.get(key, 0) for key, value in values.items()}
        self.measured.append(engine.state.iteration)
        steps = f"{self.measured[0]}-{self.measured[-1]}"
        rows = shares({
            name: {key: value / len(self.measured) for key, value in sums.items()} for name, sums in self.sums.items()
        })  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({"steps": steps, **row} for row in rows)
        if engine.state.iteration == self.steps[-1]:
            text = ", ".join(f"{row['term']} {float(row['share']):.0%}" for row in rows)
            logger.info("shares in the gradient at steps %s: %s", steps, text)


def term_gradients(
    loss: DistillationLoss, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], network: nn.Module
) -> dict[str, dict[str, Tensor]]:
    """Return `weight`, `value` (scalars) and weighted `gradient` (a vector) of each term, float32.

    The graph of `outputs` is kept for the training's backward.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    result = {}
    for name, value in loss.values(outputs, targets).items():
        weight = loss.terms[name].weight
        gradients = torch.autograd.grad(weight * value, parameters, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        gradient = torch.cat([part.reshape(-1).float() for part in parts])
        result[name] = {"weight": torch.tensor(float(weight)), "value": value.detach().float(), "gradient": gradient}
    return result


def shares(terms: Mapping[str, Mapping[str, Tensor]]) -> list[dict[str, str]]:
    """Return a row {term, weight, value, norm, share} for each of `term_gradients`, or their means over steps."""
    whole = torch.stack([term["gradient"] for term in terms.values()]).sum(0)
    square = (whole @ whole).clamp(min=torch.finfo(whole.dtype).tiny)
    return [
        {
            "term": name,
            "weight": f"{float(term['weight']):.6g}",
            "value": f"{float(term['value']):.6g}",
            "norm": f"{float(term['gradient'].norm()):.6g}",
            "share": f"{float(term['gradient'] @ whole / square):.6g}",
        }
        for name, term in terms.items()
    ]
