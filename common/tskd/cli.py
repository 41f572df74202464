"""The `tskd` command: what stands before, between and after the bundle runs."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tskd import __version__
from tskd.errors import TskdError, user_message
from tskd.files import write_text


def _prepare(args: argparse.Namespace) -> None:
    from tskd import data

    options = {key: value for key, value in vars(args).items() if key not in ("command", "dataset", "function", "make")}
    path = getattr(data, args.make)(**options)
    data.check(path)
    found = data.read(path)
    sizes = [f"{len(found[name])} {name}" for name in ("training", "unlabelled", "validation", "test") if found[name]]
    print(f"{path}: " + ", ".join(sizes))
    for key in ("split", "groups", "left_out"):
        if key in found["provenance"]:
            print(f"  {key.replace('_', ' ').replace('groups', 'patients')}: {found['provenance'][key]}")


def _check(args: argparse.Namespace) -> None:
    from tskd import data

    data.check(args.dataset_file, labelled=not args.unlabelled)
    print(f"{args.dataset_file}: no problem found")


def _weights(args: argparse.Namespace) -> None:
    from tskd.networks import get_weights

    print(get_weights(args.name, cache=args.cache))


def _profile(args: argparse.Namespace) -> None:
    from tskd.profile import profile_bundles, profile_table

    settings = {key: getattr(args, key) for key in ("image_size", "num_classes", "in_channels", "vfm")}
    found = profile_bundles(args.bundles, {**settings, **dict(args.set)}, args.device, args.repeats)
    text = json.dumps(found[0] if len(found) == 1 else found, indent=2)
    if args.output:
        write_text(args.output, text + "\n")
    print(text if len(found) == 1 else profile_table(found))


def _distil(args: argparse.Namespace) -> None:
    from tskd.workflow.distil import Distillation, distil

    request = Distillation(
        args.dataset_dir, args.teacher, args.output, args.num_labelled, args.transfer_file, args.overlay,
        every=dict(args.set), distil=dict(args.distil), fine_tune=dict(args.fine_tune),
        soft_label=dict(args.soft_label_set), soft_labels=args.soft_labels,
    )  # fmt: skip
    print(distil(request, args.dry_run))


def _score(args: argparse.Namespace) -> None:
    from tskd.evaluation.observers import score_labels

    print(score_labels(args.dataset_file, args.prediction_key, args.method, args.output, args.section, args.budget))


def _report(args: argparse.Namespace) -> None:
    from tskd.evaluation import write_report

    runs = [run for run in args.runs if (run / "metrics.csv").is_file()]
    if missing := sorted(str(run) for run in set(args.runs) - set(runs)):
        raise TskdError(f"no metrics.csv in {', '.join(missing)}: run evaluate.json with that output_dir first")
    given = {"reference": args.reference, "dataset": args.dataset_file, "synthetic": args.synthetic}
    print(write_report(runs, args.output, **given, search=args.search))


def _results(args: argparse.Namespace) -> None:
    from tskd.evaluation.report.results_page import add_rows, write_tables

    if args.runs:
        if args.csv is None:
            raise TskdError("--add needs --csv, the results file that the rows go to")
        add_rows(args.csv, args.runs)
    write_tables(args.page)
    print(args.page)


def _merge(args: argparse.Namespace) -> None:
    from tskd.export.merge import merge_adapter, merge_run

    if args.run is not None:
        print(merge_run(args.run, args.output, args.model))
        return
    if args.vfm is None:
        raise TskdError("--adapter needs --vfm, the foundation model that it belongs to")
    print(merge_adapter(args.adapter, args.weights, args.vfm, args.output, args.image_size))


def _doctor(args: argparse.Namespace) -> int:
    from tskd.doctor import doctor
    from tskd.workflow.commands import BUNDLES

    given = {key: getattr(args, key) for key in ("vfm", "image_size", "num_classes", "batch_size", "device")}
    settings = {key: value for key, value in given.items() if value is not None}
    bundle = (args.bundles or BUNDLES) / f"{args.stage}_segmentation"
    text, fits = doctor(bundle, {**settings, **dict(args.set)}, args.memory_limit)
    print(text)
    return 0 if fits else 1


def _setting(text: str) -> tuple[str, object]:
    """KEY=VALUE with the value as `monai.bundle run` reads it: Python's, JSON's, or text."""
    key, value = _key_value(text)
    for read in (ast.literal_eval, json.loads):
        with suppress(ValueError, SyntaxError):
            return key, read(value)
    return key, value


def _key_value(text: str) -> tuple[str, str]:
    """KEY=VALUE as it is."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    return key, value


def _ship(args: argparse.Namespace) -> None:
    from tskd.export.ship import ship_run
    from tskd.workflow.commands import BUNDLES, STUDENT

    print(ship_run(args.bundle or BUNDLES / STUDENT, args.run, args.output, args.dataset_file, args.model))


def _search(args: argparse.Namespace) -> None:
    from tskd.workflow.search import search

    print(search(args.file, args.output))


def _quickstart(args: argparse.Namespace) -> None:
    from tskd.quickstart import quickstart

    quickstart(args.output, args.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tskd", description=__doc__)
    parser.add_argument("--version", action="version", version=f"tskd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add_prepare(commands.add_parser("prepare", help="write a data set's dataset.json"))

    check = commands.add_parser("check", help="look for every problem in a dataset.json and its files")
    check.add_argument("dataset_file", type=Path)
    check.add_argument("--unlabelled", action="store_true", help="the list may hold unlabelled images only")
    check.set_defaults(function=_check)

    weights = commands.add_parser("weights", help="pretrained weights").add_subparsers(dest="action", required=True)
    get = weights.add_parser("get", help="download, check and cache")
    get.add_argument("name", help="sam_vit_b, sam_vit_l, sam_vit_h, medsam_vit_b or lite_medsam")
    get.add_argument("--cache", type=Path, help="folder; the user's cache folder by default")
    get.set_defaults(function=_weights)

    distil = commands.add_parser("distil", help="soft labels, distillation and fine-tuning, as three commands")
    distil.add_argument("--dataset-dir", type=Path, required=True, help="folder with dataset.json")
    distil.add_argument("--teacher", type=Path, required=True, metavar="RUN", help="output_dir of its training")
    distil.add_argument("--output", type=Path, required=True)
    distil.add_argument("--num-labelled", type=int, help="labelled budget; all by default")
    distil.add_argument(
        "--transfer-file", type=Path, action="append", default=[], help="one more dataset.json to learn from"
    )
    distil.add_argument(
        "--overlay", action="append", default=[], help="of both trainings, such as segresnet or images_2d"
    )
    distil.add_argument("--soft-labels", type=Path, metavar="DIR", help="soft labels; OUTPUT/soft_labels by default")
    for option, what in (
        ("--set", "both trainings"),
        ("--distil", "the distillation"),
        ("--fine-tune", "the fine-tuning"),
        ("--soft-label-set", "the writing of soft labels"),
    ):
        distil.add_argument(
            option, type=_key_value, nargs="+", action="extend", default=[], metavar="KEY=VALUE",
            help=f"keys of {what}",
        )  # fmt: skip
    distil.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    distil.set_defaults(function=_distil)

    profile = commands.add_parser("profile", help="parameters, multiply-adds, speed and memory of bundles' networks")
    profile.add_argument("bundles", nargs="+", metavar="BUNDLE[:OVERLAY][@SIZE]", help="several make a table")
    profile.add_argument("--image_size", type=int)
    profile.add_argument("--num_classes", type=int)
    profile.add_argument("--in_channels", type=int)
    profile.add_argument("--vfm")
    profile.add_argument(
        "--set", type=_setting, nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="other keys of inference.json, such as network_def#feature_size=16",
    )  # fmt: skip
    profile.add_argument("--device", nargs="+", default=["cpu"])
    profile.add_argument("--repeats", type=int, default=20)
    profile.add_argument("--output", type=Path, help="JSON file to write, for example RUN/profile.json")
    profile.set_defaults(function=_profile)

    score = commands.add_parser("score", help="score labels of the data set, such as a second observer's, as a method")
    score.add_argument("dataset_file", type=Path)
    score.add_argument("--prediction-key", required=True, help="key of the entries, for example label_2nd")
    score.add_argument("--method", required=True, help="name in the tables, for example second_observer")
    score.add_argument("--output", type=Path, required=True, help="folder for metrics.csv and summary.json")
    score.add_argument("--section", choices=("validation", "test"), default="test")
    score.add_argument("--budget", default="no", help="number of labels of the methods that it is compared with")
    score.set_defaults(function=_score)

    report = commands.add_parser("report", help="HTML and Markdown report of evaluated runs")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder with metrics.csv")
    report.add_argument("--output", type=Path, required=True)
    report.add_argument("--reference", help="method that the others are compared with")
    report.add_argument("--dataset-file", type=Path, help="dataset.json, for the split and real images")
    report.add_argument("--synthetic", type=Path, help="folder of synthetic images")
    report.add_argument("--search", type=Path, help="folder of a search of settings, with trials.csv")
    report.set_defaults(function=_report)

    results = commands.add_parser("results", help="rewrite the tables of a results page from its CSVs")
    results.add_argument("page", type=Path, help="Markdown page, for example docs/results.md")
    results.add_argument("--add", type=Path, nargs="+", default=[], dest="runs", metavar="RUN", help="evaluated runs")
    results.add_argument("--csv", type=Path, help="results CSV that --add writes to")
    results.set_defaults(function=_results)

    merge = commands.add_parser("merge", help="a teacher's image encoder as stock weights, adapters merged")
    source = merge.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="output_dir of the training")
    source.add_argument("--adapter", type=Path, help="folder in peft's layout; needs --vfm")
    merge.add_argument("--model", type=Path, help="the run's model.pt where it is not RUN/models/model.pt")
    merge.add_argument("--weights", help="the foundation model's weights, as for train.json")
    merge.add_argument("--vfm", help="the foundation model of --adapter")
    merge.add_argument("--image-size", type=int, default=1024, help="of the position embeddings, with --adapter")
    merge.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    merge.set_defaults(function=_merge)

    doctor = commands.add_parser("doctor", help="what batch size and settings fit this machine, measured")
    doctor.add_argument("--stage", choices=["teacher"], default="teacher")
    doctor.add_argument("--bundles", type=Path, help="folder with the bundles; this project's own by default")
    doctor.add_argument("--vfm")
    for option in ("--image_size", "--num_classes", "--batch_size"):
        doctor.add_argument(option, type=int)
    doctor.add_argument("--device", help="as in train.json; CUDA where there is one")
    doctor.add_argument("--memory-limit", type=float, metavar="GIB", help="by default what the machine has free")
    doctor.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="another key of train.json"
    )
    doctor.set_defaults(function=_doctor)

    ship = commands.add_parser("ship", help="stand-alone copy of the student bundle with a run's weights and settings")
    ship.add_argument("--bundle", type=Path, help="this project's student_segmentation by default")
    ship.add_argument("--run", type=Path, required=True, help="output_dir of the training")
    ship.add_argument("--model", type=Path, help="model_dir/model.pt of the training; RUN/models/model.pt by default")
    ship.add_argument("--dataset-file", type=Path, required=True, help="the training's dataset.json, for the names")
    ship.add_argument("--output", type=Path, required=True, help="new folder with 'segmentation' in its name")
    ship.set_defaults(function=_ship)

    search = commands.add_parser("search", help="hyper-parameter search on the validation list, from a YAML file")
    search.add_argument("file", type=Path, help="for example workflow/search.yaml")
    search.add_argument("--output", type=Path, required=True, help="folder for trials.csv and the trials' runs")
    search.set_defaults(function=_search)

    quick = commands.add_parser("quickstart", help="the whole chain on a virtual cohort, in minutes")
    quick.add_argument("--output", type=Path, default=Path("quickstart"))
    quick.add_argument("--seed", type=int, default=0)
    quick.set_defaults(function=_quickstart)
    return parser


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    """`tskd prepare`: a command for each data set, whose options are the arguments of a function of `tskd.data`."""
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")

    def add(name: str, function: str, about: str, seed: int | None = 0) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about)
        command.add_argument("--output", type=Path, required=True, help="new folder")
        command.add_argument(
            "--seed", type=int, default=seed, help="of what is drawn: patients or lists, and the order"
        )
        command.set_defaults(function=_prepare, make=function)
        return command

    phantom = add("phantom", "prepare_phantom", "virtual patients, made from a seed")
    for option, default in (
        ("num-patients", 24), ("num-validation", 3), ("num-test", 7), ("image-size", 128), ("num-slices", 12)
    ):  # fmt: skip
        phantom.add_argument(f"--{option}", type=int, default=default)
    public = {}
    for name, function, about, folders in (
        ("chaos-mr", "prepare_chaos_mr", "CHAOS abdominal MR, T2-SPIR", "the archive, or images/ and masks/ as NIfTI"),
        ("isic2017", "prepare_isic2017", "ISIC 2017, skin lesions", "train/ and test/"),
        ("usgra", "prepare_usgra", "USGRA, nerves and vessels in ultrasound", "train/ and test/"),
        ("chase-db1", "prepare_chase_db1", "CHASE_DB1, retinal vessels", "images/, masks/ and masks_2nd_observer/"),
    ):
        public[name] = add(name, function, about, seed=None)
        public[name].add_argument("--source", type=Path, required=True, help=f"folder with {folders}")

    images = add("images-masks", "prepare_images_masks", "your own 2-D images")
    volumes = add("volumes", "prepare_volumes_masks", "your own volumes (NIfTI or DICOM), one a patient")
    for own in (images, volumes):
        own.add_argument("--images", type=Path, required=own is volumes)
        own.add_argument("--masks", type=Path, required=own is volumes, help="folder with files of the images' names")
        own.add_argument("--labels", type=_names, required=True, help='names of mask values 1, 2, ...: "vessel,nerve"')
        own.add_argument("--unlabelled", type=Path, help="folder of further images without masks")
        own.add_argument("--mask-suffix", default="", help="what a mask's name has after its image's: _segmentation")
        own.add_argument("--test", type=float, default=0.2, help="share of the patients")
        own.add_argument("--validation", type=float, default=0.1, help="share of the patients")
        own.add_argument("--name", help="of the data set; the output folder's by default")
        own.add_argument("--modality", default="unknown")
    images.add_argument("--table", type=Path, help="CSV instead of folders: image, label, and if wanted group, split")
    images.add_argument("--group-pattern", help="regular expression that finds the patient in a file name")
    images.add_argument("--channels", type=int, choices=(1, 3), help="converts all images to grey or RGB")
    volumes.add_argument("--image-suffix", default="", help="what an image's name has after the patient: _0000")
    for patients in (*public.values(), images, volumes):
        patients.add_argument("--fold", type=int, help="this fold of --folds grouped folds is the test list")
        patients.add_argument("--folds", type=int, default=3)
    scaling = volumes.add_mutually_exclusive_group()
    for command in (public["chaos-mr"], scaling):
        command.add_argument(
            "--intensity", choices=("percentiles", "body"), default="percentiles",
            help="0.5 and 99.5 of the volume, or the median of its body: docs/data.md",
        )  # fmt: skip
    scaling.add_argument(
        "--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of CT, in Hounsfield units: -160 240, say"
    )


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, found {text!r}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 where `doctor` finds nothing that fits, or 2 after saying what is wrong."""
    args = _parser().parse_args(arguments)
    try:
        return args.function(args) or 0
    except (TskdError, OSError) as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
