"""Build each network of a study as its training does, and time a few steps of it.

`python -m tskd.workflow.measure TRAININGS.json RESULT.json` reads a list of {"configs": files, "overrides": keys,
"channels": of an image} and writes for each {"step": seconds of a training step, "forward": seconds an image} or
{"problem": why it cannot be built: weights that are missing or do not fit, an image size the network does not take}.
"""

from __future__ import annotations

import ast
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tskd.errors import user_message
from tskd.files import write_json
from tskd.options import check_hashes

TIMED = 2  # steps that are timed, after one that is not


def measure(training: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one training; see the module."""
    import torch
    from monai.bundle import ConfigParser

    try:
        check_hashes(training["overrides"])
        parser = ConfigParser()
        parser.read_config(training["configs"])
        parser.update({key: _value(value) for key, value in training["overrides"].items()})
        device = torch.device(parser.get_parsed_content("device"))
        network = parser.get_parsed_content("network").train()
        optimizer = parser.get_parsed_content("optimizer")
        inferer = parser.get_parsed_content("train#inferer")
        batch, size = int(parser["batch_size"]), int(parser["image_size"])
        generator = "scheduler" in parser  # a DDPM predicts the noise of an image at a time
        images = torch.rand(batch, training["channels"], size, size, device=device)
        times = torch.zeros(batch, dtype=torch.long, device=device)

        def forward(x: torch.Tensor) -> torch.Tensor:
            result = network(x, timesteps=times[: len(x)]) if generator else inferer(x, network)
            return _tensor(result)

        steps = []
        for _ in range(1 + TIMED):
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            forward(images).float().square().mean().backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            steps.append(time.perf_counter() - began)
        network.eval()
        with torch.no_grad():
            forward(images)
            began = time.perf_counter()
            forward(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = time.perf_counter() - began
    except Exception as error:  # whatever stops it here would stop the training
        return {"problem": user_message(error) or _root(error)}
    return {"step": sum(steps[1:]) / TIMED, "forward": spent / batch}


def _tensor(result: Any) -> Any:
    """Return the largest tensor that a network returns: alone, or one of several, features among them."""
    if hasattr(result, "sample"):  # diffusers
        return result.sample
    parts = list(result.values()) if isinstance(result, dict) else result
    return max(map(_tensor, parts), key=lambda part: part.numel()) if isinstance(parts, list | tuple) else result


def _value(value: Any) -> Any:
    if isinstance(value, str):
        with suppress(ValueError, SyntaxError):
            return ast.literal_eval(value)
    return value


def _root(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    write_json(sys.argv[2], [measure(training) for training in json.loads(Path(sys.argv[1]).read_text())])
