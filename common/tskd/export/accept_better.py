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
        after = self._ship()
        print(f"validation Dice {self.best:.4f}, before {self.before:.4f}: models/model.pt is version {after}")

    def _ship(self) -> str:
        """Put the best weights in the place of the former ones and return the new version."""
        models, metadata_path, readme = (
            self.root / part for part in ("models", "configs/metadata.json", "docs/README.md")
        )
        metadata, before, after = self._next_metadata(metadata_path)
        weights, former = models / "model.pt", models / "former"
        kept = former / f"model_{before}.pt"
        former.mkdir(exist_ok=True)
        drafts = {path: path.with_name(f".{path.name}.draft") for path in (kept, weights, metadata_path, readme)}
        try:
            # What takes space comes first: a full disk, or a stop here, leaves the bundle as it was.
            shutil.copyfile(weights, drafts[kept])
            torch.save(self.weights, drafts[weights])
            drafts[metadata_path].write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")
            if readme.is_file():
                shutil.copyfile(readme, drafts[readme])
                self._tell(drafts[readme], before, after)
            # From here on files only change their names. The new weights come before all that says so: after a stop
            # the bundle has at worst the former version and Dice, which theirs is not below, and a SHA-256 that does
            # not fit. Exported files follow: an ONNX file that is still there is refused as made of other weights.
            os.replace(drafts[kept], kept)
            os.replace(drafts[weights], weights)
            for path in sorted(models.iterdir()):
                if path.is_file() and path != weights:
                    os.replace(path, former / f"{path.stem}_{before}{path.suffix}")
            os.replace(drafts[metadata_path], metadata_path)
            if readme.is_file():
                os.replace(drafts[readme], readme)
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)
        return after

    def _measure(self, engine: Engine) -> float:
        self.validator.run(engine.state.epoch + 1)
        self.network.train()
        return float(self.validator.state.metrics[self.validator.state.key_metric_name])

    def _next_metadata(self, path: Path) -> tuple[dict[str, Any], str, str]:
        """Return the metadata of the next version, the former version and the next one."""
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
        return metadata, before, after

    def _tell(self, readme: Path, before: str, after: str) -> None:
        """Let the README say which version its numbers are of, and where the former files are."""
        said = (
            f"Version {after} was trained further (see `changelog` in metadata.json), with a mean validation Dice of "
        )
        said += f"{self.best:.3f}. What follows, and the section on training, are of version {before}."
        replace_section(readme, ACCURACY, f"{said}\n\n{section(readme, ACCURACY)}")
        replace_section(readme, EXPORTED, f"None. Those of version {before}, if any, are in `models/former/`.")
