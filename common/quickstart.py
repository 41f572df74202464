"""The whole chain on a virtual cohort, with the commands of the README and small numbers."""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch

from common.errors import TskdError

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
METHODS = ("teacher", "scratch", "tskd")
SIZE = 128


@dataclass(frozen=True)
class Step:
    """One line of the quickstart: a name and the command behind it (without the interpreter)."""

    name: str
    command: tuple[str, ...]

    def outputs(self) -> list[Path]:
        """Folders that a training or a writing step makes for itself (evaluations add to their training's folder)."""
        if any(part.endswith("evaluate.json']") for part in self.command):
            return []
        keys = {"--output_dir", "--synthetic_dir"} | (
            {"--soft_labels"} if "soft_labels.json" in str(self.command) else set()
        )
        return [Path(value) for key, value in zip(self.command, self.command[1:], strict=False) if key in keys]


def bundle(name: str, configs: str, **overrides: object) -> tuple[str, ...]:
    """Command line of `monai.bundle run` for a bundle's configs, with `#` in keys written as `__`."""
    files = [str(BUNDLES / name / "configs" / f"{config}.json") for config in configs.split(",")]
    command = ["monai.bundle", "run", "--config_file", str(files), "--bundle_root", str(BUNDLES / name)]
    for key, value in overrides.items():
        command += [f"--{key.replace('__', '#')}", str(value)]
    return tuple(command)


def bfloat16_on_cpu() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere float32 is quicker (on CUDA it is the default)."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and bool(supported())


def steps(root: Path, seed: int) -> list[Step]:
    """The chain's commands, in order; every path below `root`."""
    data, runs, labelled = root / "dataset", root / "runs", 48
    every = {"dataset_dir": data, "seed": seed, **({"amp_dtype": "bfloat16"} if bfloat16_on_cpu() else {})}
    common = {**every, "num_labelled": labelled, "image_size": SIZE}
    teacher = {**common, "vfm": "lite_medsam", "model_dir": runs / "teacher/models"}
    adapt = {"max_epochs": 2, "iterations_per_epoch": 60, "batch_size": 4, "learning_rate": 0.002, "warmup_steps": 10}
    late = {"fine_tuning__blocks": 4, "fine_tuning__train_neck": "true"}
    student = {**common, "batch_size": 8, "learning_rate": 0.003, "warmup_steps": 20}
    synthetic = {**every, "model_dir": runs / "ddpm/models"}
    small = {
        "image_size": 64,
        "network_def__unet__block_out_channels": [32, 64, 64],
        "network_def__unet__down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        "network_def__unet__up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        "network_def__unet__layers_per_block": 1,
        "learning_rate": 0.002,
        "warmup_steps": 20,
        "ema_decay": 0.98,
    }
    diffuse = {"max_epochs": 2, "iterations_per_epoch": 50, "batch_size": 8, "val_interval": 2, "preview_interval": 2}
    chain = [
        Step("weights of the foundation model", ("common.cli", "weights", "get", "lite_medsam")),
        Step("virtual patients", ("common.cli", "prepare", "phantom", "--output", str(data), "--seed", str(seed))),
        Step("teacher: LoRA fine-tuning", bundle("teacher_segmentation", "train", **teacher, **adapt,
             **late, val_interval=1, output_dir=runs / "teacher")),
        Step("DDPM: training", bundle("ddpm_synthesis", "train", **synthetic, **small, **diffuse,
             output_dir=runs / "ddpm")),
        Step("DDPM: synthetic images", bundle("ddpm_synthesis", "inference", **synthetic, num_images=48, steps=20,
             synthetic_dir=root / "synthetic", output_dir=runs / "synthesis")),
        Step("teacher: soft labels", bundle("teacher_segmentation", "train,soft_labels", **teacher,
             dataset_files=[str(data / "dataset.json"), str(root / "synthetic/dataset.json")],
             soft_labels=root / "soft_labels", output_dir=runs / "soft_labels")),
        Step("student: distillation", bundle("student_segmentation", "train,distill", **student, max_epochs=5,
             transfer_files=[str(data / "dataset.json"), str(root / "synthetic/dataset.json")],
             soft_labels=root / "soft_labels", teacher_model=runs / "teacher/models/model.pt", val_interval=5,
             output_dir=runs / "distilled")),
        Step("student: fine-tuning", bundle("student_segmentation", "train", **{**student, "learning_rate": 0.002},
             max_epochs=3, val_interval=3, init_weights=runs / "distilled/models/model.pt",
             model_dir=runs / "tskd/models", output_dir=runs / "tskd")),
        Step("student without distillation", bundle("student_segmentation", "train", **student, max_epochs=8,
             val_interval=4, model_dir=runs / "scratch/models", output_dir=runs / "scratch")),
    ]  # fmt: skip
    for method in METHODS:
        name, options = ("teacher", {"vfm": "lite_medsam"}) if method == "teacher" else ("student", {})
        evaluate = bundle(
            f"{name}_segmentation", "train,evaluate", **common, **options, method=method,
            model_dir=runs / method / "models", output_dir=runs / method,
        )  # fmt: skip
        profile = ("common.cli", "profile", str(BUNDLES / f"{name}_segmentation"), "--image_size", str(SIZE))
        vfm = ("--vfm", "lite_medsam") if method == "teacher" else ()
        chain.append(Step(f"evaluation: {method}", evaluate))
        chain.append(
            Step(f"size and speed: {method}", (*profile, *vfm, "--output", str(runs / method / "profile.json")))
        )
    report = [str(runs / method) for method in METHODS]
    chain.append(
        Step("report", ("common.cli", "report", *report, "--output", str(root / "report"), "--reference", "tskd",
             "--dataset-file", str(data / "dataset.json"), "--synthetic", str(root / "synthetic")))
    )  # fmt: skip
    return chain


def quickstart(output: Path, seed: int = 0) -> None:
    """Runs every step, prints one line each with its time, then the table of what was measured.

    Args:
        output: folder for data, runs, logs and the report; finished steps of an earlier call are not repeated.
        seed: seed of the cohort and of all trainings.

    Raises:
        TskdError: when a step fails, with the end of its log.
    """
    if not BUNDLES.is_dir():
        raise TskdError(
            f"{BUNDLES}: expected the bundles beside the package; run the quickstart in a clone of the project"
        )
    root = output.resolve()
    (root / "logs").mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    chain = steps(root, seed)
    again = False
    for number, step in enumerate(chain, 1):
        again |= run_step(step, f"[{number:2d}/{len(chain)}]", root / "logs" / f"{number:02d}.log", again)
    print(table(root / "runs"))
    print(f"\nreport: {root / 'report' / 'report.html'}\nall steps: {(time.monotonic() - began) / 60:.1f} minutes")


def run_step(step: Step, position: str, log: Path, again: bool = False) -> bool:
    """Runs one command and returns whether it ran; output goes to `log`, progress bars to the terminal.

    A step that an earlier call has finished is skipped unless `again`, because a step before it has run anew. A step
    that was stopped continues; with another command, or `again`, it starts in empty output folders.
    """
    command = [sys.executable, "-m", *step.command]
    done = log.with_suffix(".done")
    if not again and done.is_file() and done.read_text() == json.dumps(command):
        print(f"{position} {step.name}: done before", flush=True)
        return False
    done.unlink(missing_ok=True)
    started = log.with_suffix(".started")
    if again or not started.is_file() or started.read_text() != json.dumps(command):
        for folder in step.outputs():
            shutil.rmtree(folder, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    started.write_text(json.dumps(command))
    began = time.monotonic()
    print(f"{position} {step.name} ...", flush=True)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        file.write(" ".join(command) + "\n")
        file.flush()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, env=environment)
        _pass_on_bars(process, file)
    if process.wait() != 0:
        raise TskdError(f"{step.name} failed; the end of {log}:\n" + "".join(log.read_text().splitlines(True)[-15:]))
    done.write_text(json.dumps(command))
    print(f"\r{position} {step.name}: {time.monotonic() - began:.0f} s", flush=True)
    return True


def _pass_on_bars(process: subprocess.Popen[bytes], log: TextIO) -> None:
    """Shows the progress bars of the process's standard error on a terminal; everything else goes to the log."""
    assert process.stderr is not None
    line = b""
    while byte := process.stderr.read(1):
        line += byte
        if byte not in b"\r\n":
            continue
        text, line = line.decode(errors="replace"), b""
        if "%|" not in text:
            log.write(text)
            log.flush()
        elif sys.stderr.isatty():
            print(f"\r{text.strip()}", end="", file=sys.stderr, flush=True)


def table(runs: Path) -> str:
    """Dice per organ and mean over the test patients, size and speed, for every method; from the runs' files."""
    names = {"teacher": "teacher", "scratch": "student without distillation", "tskd": "student with distillation"}
    dice = {method: _dice(runs / method / "metrics.csv") for method in METHODS}
    organs = list(dice["teacher"])
    patients = max(len(values) for values in dice["teacher"].values())
    lines = [f"\nDice on {patients} test patients, one training each (seed as given)"]
    lines.append(
        f"{'':30s}"
        + "".join(f"{o:>14s}" for o in organs)
        + f"{'mean':>8s}{'parameters':>13s}{'GMAC':>8s}{'ms/image':>10s}"
    )
    means = {}
    for method in METHODS:
        values = [statistics.fmean(v) for v in dice[method].values()]
        means[method] = statistics.fmean(values)
        size = json.loads((runs / method / "profile.json").read_text())
        lines.append(
            f"{names[method]:30s}" + "".join(f"{v:14.3f}" for v in values) + f"{means[method]:8.3f}"
            f"{size['parameters'] / 1e6:11.2f} M{size['gmac']:8.2f}{size['ms_per_image']:10.1f}"
        )
    gain = means["tskd"] - means["scratch"]
    verdict = "better" if gain > 0 else "not better"
    lines.append(f"distillation was {verdict} than training from scratch in this run: {gain:+.3f} mean Dice")
    return "\n".join(lines)


def _dice(path: Path) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] == "dice":
                values.setdefault(row["label"], []).append(float(row["value"]))
    return values
