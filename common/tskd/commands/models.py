"""Commands on networks and trained models: cost, fit, export."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tskd.commands.arguments import Flag, KeyValues, given, key_values, settings
from tskd.errors import TskdError

Network = Literal["torchscript", "onnx", "onnx-int8", "openvino"]
Flips = Annotated[tuple[Literal["x", "y"], ...], Parameter(show_default=False, consume_multiple=True)]


def profile(
    bundles: list[str],
    /,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    vfm: str | None = None,
    keys: KeyValues = (),
    device: tuple[str, ...] = ("cpu",),
    repeats: int = 20,
    output: Path | None = None,
) -> None:
    """Measure parameters, multiply-adds, speed and memory of bundles' networks.

    Args:
        bundles: `BUNDLE[:OVERLAY][@SIZE]`; several make a table.
        image_size: pixels along a side, as in inference.json.
        num_classes: classes with the background.
        in_channels: channels of an image.
        vfm: foundation model.
        keys: KEY=VALUE ..., other keys of inference.json, such as network_def#feature_size=16.
        device: devices to measure on.
        repeats: timed passes; the median counts.
        output: JSON file to write, for example RUN/profile.json.
    """
    from tskd.files import write_text
    from tskd.profile import profile_bundles, profile_table

    values = {"image_size": image_size, "num_classes": num_classes, "in_channels": in_channels, "vfm": vfm}
    profiles = profile_bundles(bundles, {**values, **settings(keys)}, device, repeats)
    text = json.dumps(profiles[0] if len(profiles) == 1 else profiles, indent=2)
    if output:
        write_text(output, text + "\n")
    print(text if len(profiles) == 1 else profile_table(profiles))


def doctor(
    *,
    stage: Literal["all", "teacher", "student", "diffusion"] = "all",
    bundles: Path | None = None,
    vfm: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    memory_limit: float | None = None,
    keys: KeyValues = (),
    speed: Flag = False,
    install: Flag = False,
    teachers: Flag = False,
    study: Path | None = None,
    card: str | None = None,
) -> int:
    """Measure what fits this machine and how long it takes; or look at the installation, a card or a study.

    Args:
        stage: training to measure; all three make a table of the time to finish.
        bundles: folder with the bundles; this project's own by default.
        vfm: foundation model, as in train.json.
        image_size: pixels along a side, as in train.json.
        num_classes: classes with the background.
        batch_size: images of an optimiser step, as in train.json.
        device: as in train.json; CUDA where there is one.
        memory_limit: in GiB; by default what the machine has free.
        keys: KEY=VALUE ..., other keys of train.json.
        speed: instead, the fastest precision, batch and layout of the student here; `tskd init` follows it.
        install: instead, versions, CUDA, compiler, disk and hub, as text to paste into a report.
        teachers: instead, which foundation model and image size fit a card (--card, or --memory-limit).
        study: instead, the jobs and GPU-hours of a STUDY.yaml on a card (--card).
        card: name of a card, such as "RTX 4090".
    """
    if install:
        from tskd.installation import check_installation

        text, fits = check_installation()
    elif speed:
        from tskd.machine_file import write_measured
        from tskd.step_speed import measure_speed, speed_table
        from tskd.workflow.commands import BUNDLES, STUDENT

        if vfm or batch_size or keys:
            raise TskdError(
                "--speed measures the student, in batches of 4 to 16: leave out --vfm, --batch-size and --set"
            )
        measured = measure_speed((bundles or BUNDLES) / STUDENT, image_size or 128, device)
        print(speed_table(measured))  # before the file, which may not be written
        write_measured(measured)
        text, fits = "Kept for `tskd init`, in the cache folder.", True
    elif study is not None:
        from tskd.workflow import check_study, read_yaml
        from tskd.workflow.cards import card_named
        from tskd.workflow.gpu_hours import gpu_hours, table

        name = card or "A100 40GB"
        counts = gpu_hours(check_study(read_yaml(study), str(study)), card_named(name))
        text, fits = f"{study}: {table(counts, name)}", True
    elif teachers:
        from tskd.teacher_advice import VFMS, advice, card_memory, options

        name, memory = card_memory(card, memory_limit)
        text, fits = advice(options(memory, [vfm] if vfm else VFMS), name, memory, batch_size or 8), True
    else:
        from tskd.doctor import doctor, every_stage
        from tskd.workflow.commands import BUNDLES, DDPM

        root = bundles or BUNDLES
        folders = {
            "teacher": root / "teacher_segmentation",
            "student": root / "student_segmentation",
            "diffusion": root / DDPM,
        }
        values = given(vfm=vfm, image_size=image_size, num_classes=num_classes, batch_size=batch_size, device=device)
        values |= settings(keys)
        if stage == "all":
            fits = False
            for text, fits_so_far in every_stage(folders, values, memory_limit):
                print(text, flush=True)
                fits = fits_so_far
            return 0 if fits else 1
        fit = doctor(folders[stage], values, memory_limit)
        text, fits = fit.text, fit.seconds is not None
    print(text)
    return 0 if fits else 1


def merge(
    *,
    run: Path | None = None,
    adapter: Path | None = None,
    model: Path | None = None,
    weights: str | None = None,
    vfm: str | None = None,
    image_size: int = 1024,
    output: Path,
) -> None:
    """Merge a teacher's LoRA adapters, and write its image encoder in the foundation model's own format.

    Args:
        run: output_dir of the training; this or --adapter.
        adapter: folder in peft's layout; needs --vfm.
        model: the run's model.pt where it is not RUN/models/model.pt.
        weights: the foundation model's weights, as for train.json.
        vfm: the foundation model of --adapter.
        image_size: of the position embeddings, with --adapter.
        output: FILE.safetensors.
    """
    from tskd.export.merge import merge_adapter, merge_run

    if run is not None and adapter is None:
        print(merge_run(run, output, model))
    elif adapter is not None and run is None:
        if vfm is None:
            raise TskdError("--adapter needs --vfm, the foundation model that it belongs to")
        print(merge_adapter(adapter, weights, vfm, output, image_size))
    else:
        raise TskdError(f"expected --run or --adapter, found {'neither' if run is None else 'both'}. Give one.")


def ship(
    *,
    run: Path,
    output: Path,
    dataset_file: Path | None = None,
    bundle: Path | None = None,
    model: Path | None = None,
    to: Annotated[tuple[Network, ...], Parameter(show_default=False, consume_multiple=True)] = (),
    flips: Flips = (),
    force: Flag = False,
    data_name: str = "",
    trial: Flag = False,
) -> None:
    """Write a stand-alone bundle with a run's weights, settings, evaluation and terms.

    A teacher and a diffusion model are shipped, too; their folders need tskd where they run.

    Args:
        run: output_dir of a training, of a student in a study
            results/NAME/DATASET/split/finetune/METHOD/budget-B/seed-S.
        output: new folder, of a student or teacher with 'segmentation' in its name.
        dataset_file: the training's dataset.json, for the names; by default where the run's settings say.
        bundle: bundle that is copied; this project's by default.
        model: model_dir/model.pt of the training; RUN/models/model.pt by default.
        to: further files of the network beside model.pt, as of `tskd export --to`.
        flips: let the bundle average the logits of images mirrored along these axes: x, y, or x y (4 times the work).
        force: ship a model that was never evaluated, whose Dice is near 0, or whose dataset.json has changed since.
        data_name: name of the data set in the README; by default the one in dataset.json.
        trial: say in README and metadata that the training was of toy length, and the bundle is not for use.
    """
    from tskd.workflow.evaluate_run import find_dataset
    from tskd.workflow.ship_evaluated import ship as ship_evaluated

    data = dataset_file or find_dataset(run)
    print(ship_evaluated(bundle, run, output, data, model, force, to, flips, data_name, trial))


def evaluate(
    *,
    run: Path,
    dataset_file: Path | None = None,
    section: str = "test",
    flips: Flips = (),
    keys: KeyValues = (),
) -> int:
    """Score a trained teacher or student on the test list, with the settings of its training.

    Args:
        run: output_dir of the training; metrics.csv is written there.
        dataset_file: the training's dataset.json; by default where the run's settings say.
        section: list of dataset.json: test or validation.
        flips: average the logits of images mirrored along these axes: x, y, or x y, as `tskd ship --flips`.
        keys: KEY=VALUE ..., further keys of evaluate.json, such as method=mine.
    """
    from tskd.workflow import warm
    from tskd.workflow.evaluate_run import evaluate_command

    command = evaluate_command(run, dataset_file, section, key_values(keys), flips)
    return warm.start(command, None, os.environ).wait()
