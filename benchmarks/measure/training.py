"""CPU milliseconds an image of a training, and where they go, in this tree or an older one (`--root`).

    OMP_NUM_THREADS=1 python benchmarks/measure/training.py --root . --configs distill.json lite_unet.json -- KEY=VALUE

Runs the bundle's own trainer for two epochs, and counts the second. Prints one line of JSON: `ms` an image, `outside`
(share of what is not forward, loss, backward or optimizer), `start` (CPU seconds of the process until the first step),
and the parts in ms an image. With `--live-teacher mobile_sam --live-size 512` the teacher answers in each step,
as where soft labels are not stored; `teacher` is its part, and `live` the time of such a step over one without it.
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
    parser.add_argument("--live-teacher", help="mobile_sam or sam_vit_b with random weights: answers in each step")
    parser.add_argument("--live-size", type=int, default=512, help="side of the images that it sees")
    parser.add_argument("overrides", nargs="*", metavar="KEY=JSON")
    options = parser.parse_args()
    sys.path.insert(
        0, str(options.root if (options.root / "common/__init__.py").is_file() else options.root / "common")
    )
    sys.argv = sys.argv[:1]
    overrides = dict(pair.split("=", 1) for pair in options.overrides)
    live = (options.live_teacher, options.live_size) if options.live_teacher else None
    print(json.dumps(measure(options.root, options.configs, overrides, live)))


def measure(
    root: Path, configs: list[str], overrides: dict[str, str], live: tuple[str, int] | None = None
) -> dict[str, float]:
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
    if live:
        trainer.inferer = _answered(trainer.inferer, timed("teacher", _teacher(root, *live)), live[1])
    began, started = [0.0], [0.0]

    def start(engine: Any) -> None:
        started[0] = started[0] or clock()
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
    if live:
        result["live"] = round(whole / (whole - parts["teacher"]), 2)
    about = {"outside": round(1 - inside / whole, 4), "start": round(started[0], 2)}
    return {"ms": round(1000 * whole / images, 2), **about, **result}


def _teacher(root: Path, vfm: str, size: int) -> Callable[..., Any]:
    """Return the teacher's network, as its bundle builds it, with random weights."""
    import torch
    from monai.bundle import ConfigParser

    bundle = root / "bundles/teacher_segmentation"
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs/train.json"))
    parser.update({"bundle_root": str(bundle), "vfm": vfm, "image_size": size})
    network = parser.get_parsed_content("network_def").eval()
    return torch.inference_mode()(network)


def _answered(inferer: Callable[..., Any], teacher: Callable[..., Any], size: int) -> Callable[..., Any]:
    """Return an inferer that asks the teacher first, for the batch at its own size."""
    import torch

    def call(inputs: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
        teacher(torch.nn.functional.interpolate(inputs, (size, size), mode="bilinear"))
        return inferer(inputs, network, *args, **kwargs)

    return call


if __name__ == "__main__":
    main()
