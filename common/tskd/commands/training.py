"""Commands that run the method: one training, distillation, a search of settings, the quickstart."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tskd.commands.arguments import Flag, KeyValues, Paths, Texts, given, key_values, settings
from tskd.errors import TskdError, plain_errors


def train(
    study: Path,
    /,
    *,
    cores: int | None = None,
    try_it: Annotated[bool, Parameter("--try", show_default=False)] = False,
    dry_run: Flag = False,
    snakemake: Texts = (),
) -> int:
    """Run a study from the images to the bundle: data, teacher, soft labels, students, evaluation, report.

    What is finished is not run again; what was stopped goes on.

    Args:
        study: YAML file, for example from `tskd init`.
        cores: CPU cores to use; all by default.
        try_it: the whole study at toy length, in minutes, to see that it goes through.
        dry_run: train nothing: prepare and check the data, build the networks, and say how long each step will take.
        snakemake: a further argument of Snakemake, such as --snakemake=--profile=workflow/profiles/slurm; can be given
            several times.
    """
    from tskd.workflow.chain import train

    try:
        train(study, cores, snakemake, try_it, dry_run)
    except KeyboardInterrupt:
        return 130
    return 0


def run(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> None:
    """Run one training or evaluation of a bundle: `python -m monai.bundle run`, with its options checked first.

    Takes MONAI's options: `--config_file`, `--bundle_root`, and `--key value` or `--group#key value` for every key of
    the config files. A key that the files do not have is refused with the close names, below a mistyped group, too.
    `--key None` sets None, which MONAI by itself passes over.

    Args:
        arguments: what stands behind `monai.bundle run`.
    """
    from tskd.options import check_overrides, command_line, with_none

    arguments = tuple(with_none(arguments))
    if not {"config_file", "args_file"} & set(command_line(arguments)):
        raise TskdError(
            "expected --config_file with one or several files, such as --config_file \"['a.json','b.json']\""
        )
    check_overrides(arguments)
    sys.argv = ["monai.bundle", "run", *arguments]
    plain_errors()
    runpy.run_module("monai.bundle", run_name="__main__")


def distil(
    *,
    dataset_dir: Path,
    teacher: Paths,
    output: Path,
    teacher_weight: tuple[float, ...] = (),
    order: Literal["semi", "joint", "paper"] = "semi",
    rounds: int = 1,
    baseline: Flag = False,
    num_labelled: int | None = None,
    num_labelled_groups: int | None = None,
    transfer_file: Paths = (),
    overlay: Texts = (),
    soft_labels: Path | None = None,
    keys: KeyValues = (),
    distil: Texts = (),
    fine_tune: Texts = (),
    soft_label_set: Texts = (),
    dry_run: Flag = False,
) -> None:
    """Distil a trained teacher into a student: write soft labels, train on the labels, then on both together.

    The result is the best student of the trainings on the validation list.

    Args:
        dataset_dir: folder with dataset.json.
        teacher: output_dir of a teacher's or a student's training, or a MONAI bundle; the probabilities of several are
            averaged.
        teacher_weight: weight of each of several teachers, in their order; all alike by default.
        order: semi trains on the labels, then on labels and on pseudo-labels of teacher and student together; joint on
            labels, then on labels and soft labels; paper, as published, on the soft labels, then on the labels.
        rounds: joint trainings, one after the other; the student of each teaches the next.
        baseline: also train on the labels alone for as many steps as both trainings together, and compare with that,
            too; into OUTPUT/supervised_longer.
        output: folder for the runs.
        num_labelled: number of labelled images that are used; all by default.
        num_labelled_groups: number of patients whose labels are used, in place of --num-labelled.
        transfer_file: dataset.json of further images to learn from, such as synthetic ones.
        overlay: configs of the student bundle that are added to train.json in both trainings. One that names a network,
            such as flexible_unet (or unetr, that of train.json), takes the place of LiteUNet, the default.
        soft_labels: folder of soft labels; OUTPUT/soft_labels by default.
        keys: KEY=VALUE ..., keys of both trainings.
        distil: KEY=VALUE ..., keys of the distillation or the joint training.
        fine_tune: KEY=VALUE ..., keys of the fine-tuning or the first training on the labels.
        soft_label_set: KEY=VALUE ..., keys of the writing of soft labels.
        dry_run: print the commands and run nothing.
    """
    from tskd.data import whole_patients
    from tskd.errors import TskdError
    from tskd.workflow import distil as chain

    if num_labelled is not None and num_labelled_groups is not None:
        raise TskdError("expected --num-labelled or --num-labelled-groups, found both. Give one of them.")
    budget = num_labelled if num_labelled_groups is None else whole_patients(num_labelled_groups)
    request = chain.Distillation(
        dataset_dir, list(teacher), output, budget, list(transfer_file), list(overlay),
        weights=list(teacher_weight) or None, rounds=rounds, baseline=baseline, order=order, soft_labels=soft_labels,
        every=key_values(keys), distil=key_values(distil), fine_tune=key_values(fine_tune),
        soft_label=key_values(soft_label_set),
    )  # fmt: skip
    print(chain.distil(request, dry_run))


def preview_augmentation(
    dataset: Path,
    /,
    *,
    output: Path = Path("augmentation.png"),
    teacher: Flag = False,
    overlay: Texts = (),
    modality: str | None = None,
    image_size: int = 192,
    keys: KeyValues = (),
    seed: int = 0,
) -> None:
    """Draw what the random augmentation makes of a data set's images: 16 samples beside four originals.

    Args:
        dataset: dataset.json, or its folder.
        output: PNG file to write.
        teacher: the augmentation of the teacher's training in place of the student's.
        overlay: configs on train.json; with `semi` (and those it stands on) the strong view.
        modality: a preset by its name, in place of the one for the data set's modality.
        image_size: pixels along a side.
        keys: KEY=VALUE ..., keys of the config, such as augmentation#rotate=30.
        seed: of the draws.
    """
    from tskd.workflow.preview_augmentation import Preview, write_preview

    changes = {"image_size": image_size, **given(**{"augmentation#modality": modality}), **settings(keys)}
    file = dataset / "dataset.json" if dataset.is_dir() else dataset
    write_preview(Preview(file, teacher, list(overlay), changes, seed), output)
    print(f"{output}: 16 augmented samples")


def search(file: Path, /, *, output: Path) -> None:
    """Search hyper-parameters on the validation list, as a YAML file says.

    Args:
        file: for example workflow/search.yaml.
        output: folder for trials.csv and the trials' runs.
    """
    from tskd.workflow.search import search

    print(search(file, output))


def quickstart(*, output: Path = Path("quickstart"), seed: int = 0) -> int:
    """Run the whole chain on a virtual cohort, in minutes.

    Args:
        output: folder for the study and its results.
        seed: of the cohort and of all trainings.
    """
    from tskd.quickstart import quickstart

    try:
        quickstart(output, seed)
    except KeyboardInterrupt:
        return 130
    return 0
