"""Train a shipped bundle further without losing what it could: `tskd ship` copies this module into its `scripts/`.

It needs PyTorch and Ignite.
"""

import copy
import datetime
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from tskd.export.readme_section import ACCURACY, EXPORTED, replace_section, section


def class_indices(num_classes: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a check that a label holds class indices below `num_classes`.

    The check raises ValueError with the values that it found.
    """

    def check(label: torch.Tensor) -> torch.Tensor:
        if label.numel() and not 0 <= float(label.max()) < num_classes:
            values = [int(value) for value in torch.unique(label.as_subclass(torch.Tensor))[-8:]]
            raise ValueError(
                f"label: expected class indices 0 to {num_classes - 1}, found {values}. Correct the label."
            )
        return label

    return check


class AcceptBetter:
    """Ignite handler: measure before and during a training, and ship its best weights only if they are not worse.

    The former weights are kept in models/former/. With new ones the version in metadata.json counts up, and files made
    of the former weights (TorchScript, ONNX, OpenVINO) go to models/former/, too; the README and metadata.json say so.

    Args:
        bundle_root: folder of the bundle.
        network: the network in training, which has the former weights when the training starts.
        validator: evaluator whose key metric is better where it is higher.
        interval: epochs between two validations.
        images: how many images are trained on, for the changelog.
    """

    def __init__(
        self, bundle_root: str, network: torch.nn.Module, validator: Any, interval: int = 1, images: int = 0
    ) -> None:
        self.root, self.network, self.validator = Path(bundle_root), network, validator
        self.interval, self.images = interval, images
        self.before = self.best = float("nan")
        self.weights: dict[str, torch.Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Register on the start, the epochs and the end of the training."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.validate)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Measure the former weights."""
        self.before, self.weights = self._measure(engine), None

    def validate(self, engine: Engine) -> None:
        """Keep the weights if they are the best so far; of equal ones the later."""
        metric = self._measure(engine)
        if self.weights is None or metric >= self.best:
            self.best = metric
            self.weights = copy.deepcopy({k: v.detach().cpu() for k, v in self.network.state_dict().items()})

    def finish(self, engine: Engine) -> None:
        """Ship the best weights, or leave the former ones."""
        if self.weights is None or not self.best >= self.before:
            print(f"validation Dice {self.best:.4f}, before {self.before:.4f}: the former weights stay")
            return
        version = self._count_up()
        models = self.root / "models"
        former = models / "former"
        former.mkdir(exist_ok=True)
        shutil.copyfile(models / "model.pt", former / f"model_{version[0]}.pt")
        for path in sorted(models.iterdir()):
            if path.is_file() and path.name != "model.pt":
                os.replace(path, former / f"{path.stem}_{version[0]}{path.suffix}")
        draft = models / ".model.pt.draft"
        torch.save(self.weights, draft)
        os.replace(draft, models / "model.pt")
        self._tell(*version)
        print(f"validation Dice {self.best:.4f}, before {self.before:.4f}: models/model.pt is version {version[1]}")

    def _measure(self, engine: Engine) -> float:
        self.validator.run(engine.state.epoch + 1)
        self.network.train()
        return float(self.validator.state.metrics[self.validator.state.key_metric_name])

    def _count_up(self) -> tuple[str, str]:
        """Write the next version into metadata.json; return the former and the new one."""
        path = self.root / "configs" / "metadata.json"
        metadata = json.loads(path.read_text(encoding="utf-8"))
        before = str(metadata["version"])
        head, _, last = before.rpartition(".")
        after = f"{head}.{int(last) + 1}" if last.isdigit() else f"{before}.1"
        said = f"trained further on {self.images} images, {datetime.date.today()}; validation Dice {self.best:.4f}"
        metadata["version"] = after
        metadata["changelog"] = {after: f"{said}, before {self.before:.4f}", **metadata.get("changelog", {})}
        for key in ("eval_metrics", "exported"):  # of the former weights
            metadata.pop(key, None)
        metadata.get("provenance", {}).pop("weights_sha256", None)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")
        os.replace(draft, path)
        return before, after

    def _tell(self, before: str, after: str) -> None:
        """Let the README say which version its numbers are of, and where the former files are."""
        readme = self.root / "docs" / "README.md"
        said = (
            f"Version {after} was trained further (see `changelog` in metadata.json), with a mean validation Dice of "
        )
        said += f"{self.best:.3f}. What follows, and the section on training, are of version {before}."
        replace_section(readme, ACCURACY, f"{said}\n\n{section(readme, ACCURACY)}")
        replace_section(readme, EXPORTED, f"None. Those of version {before}, if any, are in `models/former/`.")
