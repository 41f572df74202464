"""CPU milliseconds an image of a training, and where they go, in this tree or an older one (`--root`).

    OMP_NUM_THREADS=1 python benchmarks/measure/training.py --root . --configs distill.json lite_unet.json -- KEY=VALUE

Runs the bundle's own trainer for two epochs, and counts the second. Prints one line of JSON: `ms` an image, `outside`
(share of what is not forward, loss, backward or optimizer), and the parts in ms an image.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the training and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="of the tree whose code is measured")
    parser.add_argument("--configs", nargs="*", default=[], help="overlays on train.json")
    parser.add_argument("overrides", nargs="*", metavar="KEY=JSON")
    options = parser.parse_args()
    sys.path.insert(
        0, str(options.root if (options.root / "common/__init__.py").is_file() else options.root / "common")
    )
    sys.argv = sys.argv[:1]
    print(json.dumps(measure(options.root, options.configs, dict(pair.split("=", 1) for pair in options.overrides))))


def measure(root: Path, configs: list[str], overrides: dict[str, str]) -> dict[str, float]:
    """Return CPU milliseconds an image of the training's second epoch, in all and by part."""
    warnings.simplefilter("ignore")
    import torch
    from ignite.engine import Events
    from monai.bundle import ConfigParser

    torch.set_num_threads(1)
    bundle = root / "bundles/student_segmentation"
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / name) for name in ("train.json", *configs)])
    parser["bundle_root"] = str(bundle)
    for key, value in overrides.items():
        try:
            parser[key] = json.loads(value)
        except ValueError:
            parser[key] = value
    torch.manual_seed(0)
    for action in parser.get_parsed_content("initialize"):
        del action
    trainer = parser.get_parsed_content("train#trainer")
    parts: dict[str, float] = defaultdict(float)
    clock = time.process_time

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            result = function(*args, **kwargs)
            parts[name] += clock() - began
            return result

        return call

    trainer.inferer = timed("forward", trainer.inferer)
    trainer.loss_function = timed("loss", trainer.loss_function)
    trainer.optimizer.step = timed("optimizer", trainer.optimizer.step)
    trainer.optimizer.zero_grad = timed("optimizer", trainer.optimizer.zero_grad)
    torch.Tensor.backward = timed("backward", torch.Tensor.backward)  # type: ignore[method-assign]
    trainer.prepare_batch = timed("augmentation", trainer.prepare_batch)
    began = [0.0]

    def start(engine: Any) -> None:
        if engine.state.epoch == 2:
            parts.clear()
            began[0] = clock()

    handlers = trainer._event_handlers[Events.EPOCH_STARTED]
    trainer.add_event_handler(Events.EPOCH_STARTED, start)
    handlers.insert(0, handlers.pop())
    end: list[float] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: end.append(clock()))
    handlers = trainer._event_handlers[Events.EPOCH_COMPLETED]
    handlers.insert(0, handlers.pop())  # before batch norm and validation, which are measured by themselves
    trainer.run()
    whole = end[1] - began[0]
    images = parser.get_parsed_content("iterations_per_epoch") * parser.get_parsed_content("batch_size")
    inside = sum(parts[name] for name in ("forward", "loss", "backward", "optimizer"))
    result = {name: round(1000 * seconds / images, 2) for name, seconds in sorted(parts.items())}
    return {"ms": round(1000 * whole / images, 2), "outside": round(1 - inside / whole, 4), **result}


if __name__ == "__main__":
    main()
