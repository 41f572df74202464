#!/usr/bin/env bash
# pytorch-ignite 0.5.5: the run after one that raised an error processes nothing, and says nothing.
#
# Expected: `run` on other data processes them, as it did before the error, or refuses.
# Seen: that call returns at once, with no iteration made; the one after it works. So a loop that catches the error of one file
#   loses the next file, too: its result is that of before, or none. MONAI's evaluators and trainers are such engines.
# Why: the engine is a generator since 0.5, to be interrupted and gone on with. An error ends the generator, but the engine keeps it,
#   and the next run goes on with the ended one.
# Source: ignite/engine/engine.py (_internal_run, run). Setting state.max_epochs to None before the next run starts it anew, but
#   MONAI's Evaluator.run sets it again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 pytorch-ignite==0.5.5 monai==1.6.1 numpy==2.2.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON' 2> /dev/null
import sys

import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator


def attempts(run):
    """Files whose run ended well, of five of which the second cannot be read."""
    ended = []
    for name in ("a", "unreadable", "b", "c", "d"):
        try:
            run(name)
            ended.append(name)
        except Exception:
            pass
    return ended


def step(engine, name):
    if name == "unreadable":
        raise ValueError(name)
    processed.append(name)


processed, engine = [], Engine(step)
ended = attempts(lambda name: engine.run([name], max_epochs=1))
print(f"ignite: ended without an error {ended}, processed {processed}")
ignite = (ended, list(processed))


class Network(torch.nn.Module):
    def forward(self, x):
        step(None, names[int(x)])
        return x


names = {i: name for i, name in enumerate(("a", "unreadable", "b", "c", "d"))}
numbers = {name: i for i, name in names.items()}
processed.clear()
evaluator = SupervisedEvaluator(torch.device("cpu"), [], Network(), epoch_length=1)


def evaluate(name):
    evaluator.data_loader = [{"image": torch.tensor([[float(numbers[name])]])}]
    evaluator.run()


ended = attempts(evaluate)
print(f"MONAI: ended without an error {ended}, processed {processed}")
if not ignite == (ended, processed) == (["a", "b", "c", "d"], ["a", "c", "d"]):
    sys.exit("this has changed")
PYTHON
