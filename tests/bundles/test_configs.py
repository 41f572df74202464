"""Every config of every bundle, alone or as the overlay it is: complete, no typing errors, nothing of this machine."""

import inspect
import json
import pydoc
import re
import socket
from collections.abc import Iterator
from importlib import metadata as installed
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ComponentLocator, ConfigParser, ReferenceResolver
from monai.bundle.config_item import ConfigComponent
from PIL import Image
from torch._subclasses import FakeTensorMode

import tskd
from tests.bundles.conftest import BUNDLES
from tskd.data.io.intensity import PERCENTILES

METADATA = (
    "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
    "task", "description", "authors", "copyright", "network_data_format",
)  # fmt: skip
TENSOR = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
LOCATOR = ComponentLocator()
ON_ANOTHER = {
    "teacher_bundle.json": ("soft_labels.json",),
    "joint.json": ("distill.json",),
    "more_losses.json": ("distill.json",),
    "semi.json": ("distill.json", "averaged.json", "joint.json"),
    "fixmatch.json": ("distill.json", "averaged.json", "joint.json", "semi.json"),
    "mean_teacher.json": ("distill.json", "averaged.json", "joint.json", "semi.json"),
    "task_agnostic.json": ("distill.json",),
    "volume_semi.json": (
        "distill.json",
        "averaged.json",
        "joint.json",
        "semi.json",
        "volume.json",
        "volume_distill.json",
    ),
    "volume_distill.json": ("distill.json", "averaged.json", "joint.json", "volume.json"),
    "untuned.json": ("soft_labels.json",),
}  # overlays on an overlay


def variants() -> list[tuple[str, tuple[str, ...]]]:
    """(bundle, config files): train and inference, and each overlay on the one it belongs to."""
    found = []
    for folder in sorted(path.parent for path in BUNDLES.glob("*/configs")):
        for file in sorted((folder / "configs").glob("*.json")):
            if file.name == "metadata.json":
                continue
            base = "inference.json" if file.name.startswith("inference") else "train.json"
            below = (base, *ON_ANOTHER.get(file.name, ()))
            found.append((folder.name, (base,) if file.name == base else (*below, file.name)))
    return found


def bundles() -> list[str]:
    return sorted(path.parent.name for path in BUNDLES.glob("*/configs"))


each_bundle = pytest.mark.parametrize("bundle", bundles())


def each(found: list[tuple[str, tuple[str, ...]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("bundle", "files"), found, ids=[f"{bundle}-{files[-1]}" for bundle, files in found])


each_variant = each(variants())
each_overlay = each([variant for variant in variants() if len(variant[1]) > 1])


def parser_of(bundle: str, files: tuple[str, ...], **overrides: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / bundle / "configs" / name) for name in files])
    parser.read_meta(str(BUNDLES / bundle / "configs" / "metadata.json"))
    parser.update(overrides)
    return parser


def nodes(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """(place, value) of everything in a config but its metadata."""
    yield place, config
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        if key != "_meta_":
            yield from nodes(value, f"{place}#{key}" if place else str(key))


def components(config: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(place, component, full name of its class) of a config."""
    for place, value in nodes(config):
        if ConfigComponent.is_instantiable(value):
            yield place, value, ConfigComponent(value, locator=LOCATOR).resolve_module_name()


# ---------------------------------------------------------------------------------------------------- contents


@each_variant
def test_targets_exist_and_take_their_arguments(bundle, files):
    wrong = []
    for place, component, name in components(parser_of(bundle, files).get()):
        target = pydoc.locate(name)
        if target is None:
            wrong.append(f"{place}: no {name}")
            continue
        given = set(component) - ConfigComponent.non_arg_keys
        parameters = inspect.signature(target).parameters
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            wrong += [f"{place}: {name} has no argument {key}" for key in sorted(given - set(parameters))]
    assert not wrong


@each_variant
def test_references_lead_somewhere(bundle, files):
    parser = parser_of(bundle, files)
    wrong = []
    for place, value in nodes(parser.get()):
        if isinstance(value, str) and "@" in value:
            found = ReferenceResolver.match_refs_pattern(ReferenceResolver.normalize_id(value))
            wrong += [f"{place}: @{name}" for name in found if name not in parser]
    assert not wrong


@each_overlay
def test_overlays_change_what_is_there(bundle, files):
    """A key with a path changes or adds something in a place that the base has; a new key of its own is used."""
    base, merged = parser_of(bundle, files[:-1]), parser_of(bundle, files)
    overlay = json.loads((BUNDLES / bundle / "configs" / files[-1]).read_text())
    used = {
        name.split("::")[0]
        for _, value in nodes(merged.get())
        if isinstance(value, str)
        for name in ReferenceResolver.match_refs_pattern(ReferenceResolver.normalize_id(value))
    }
    for key in overlay:
        parent, _, _ = key.rpartition("#")
        if key.startswith("_desc_"):
            assert key.removeprefix("_desc_") in overlay, key
        elif parent:
            assert parent in base or parent in overlay, key
        else:
            assert key in base or key in used or key == "finalize", key


@each_variant
def test_starts_and_runs(bundle, files):
    parser = parser_of(bundle, files)
    for key in ("initialize", "run"):
        assert parser[key], key
        assert all(isinstance(step, str) and step.startswith("$") for step in parser[key]), key
    for key in ("bundle_root", "output_dir", "dataset_dir", "device", "network_def"):
        assert key in parser, key


@each_variant
def test_nothing_of_this_machine(bundle, files):
    for place, value in nodes(parser_of(bundle, files).get()):
        if isinstance(value, str):
            assert not value.startswith(("/", "~", "file:")), f"{place}: {value}"
            assert not re.search(r"/(home|root|work|workspace|tmp|mnt|data|opt|Users)/", value), f"{place}: {value}"


@each_bundle
def test_no_python_and_no_copies(bundle):
    files = [path for path in (BUNDLES / bundle).rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".py", ".ipynb", ".pyc")]
    names = {path.relative_to(BUNDLES / bundle).as_posix() for path in files}
    assert {
        "LICENSE", "configs/metadata.json", "configs/train.json", "configs/evaluate.json", "configs/inference.json",
        "configs/multi_gpu_train.json", "configs/logging.conf",
    } <= names  # fmt: skip


@each_bundle
def test_several_processes_begin_as_one_does(bundle):
    """The overlay repeats every check and setting of train.json, whose list it replaces."""
    one, several = (
        json.loads((BUNDLES / bundle / f"configs/{name}.json").read_text())["initialize"]
        for name in ("train", "multi_gpu_train")
    )
    assert set(one) <= set(several)


# ------------------------------------------------------------------------------------------- student's deployment


@pytest.mark.parametrize("files", [("inference.json",), ("inference.json", "inference_2d.json")], ids=lambda f: f[-1])
def test_student_inference_needs_monai_and_torch_only(files):
    parser = parser_of("student_segmentation", files)
    names = [name for _, _, name in components(parser.get())]
    assert names
    assert not [name for name in names if not name.startswith(("monai.", "torch."))]
    assert set(parser["imports"]) <= {
        "$import glob",
        "$import torch",
        "$import monai",
        "$import PIL.Image as Image",
        "$import PIL.ImageOps as ImageOps",
    }
    assert not [value for _, value in nodes(parser.get()) if isinstance(value, str) and "tskd." in value]


def test_student_inference_has_the_network_that_is_trained():
    train, inference = (parser_of("student_segmentation", (name,)) for name in ("train.json", "inference.json"))
    assert {key: train["network_def"][key] for key in train["network_def"] if key != "_desc_"} == inference[
        "network_def"
    ]
    assert [train[key] for key in ("in_channels", "num_classes", "image_size")] == [
        inference[key] for key in ("in_channels", "num_classes", "image_size")
    ]
    assert "@scale_intensity" in inference["preprocessing#transforms"]
    assert inference["scale_intensity"] == PERCENTILES.transform()
    assert train["scale_intensity"].startswith("$tskd.data.scale_intensity(")


def settings_of(transform: Any) -> tuple[str, dict[str, Any]]:
    """Name and settings of a transform, of one of several keys only what it does to the image."""
    settings = {name: value for name, value in vars(transform).items() if isinstance(value, str | int | float | tuple)}
    first = {name: value[:1] if isinstance(value, tuple) else value for name, value in settings.items()}
    return type(transform).__name__, {**first, "dtype": None}


@pytest.mark.parametrize("overlay", [None, "images_2d"])
def test_a_validation_sees_and_scores_what_inference_does(overlay, tmp_path):
    """Training's chains are functions, inference's are written out for any MONAI: the same images, the same masks."""
    train = parser_of("student_segmentation", ("train.json", *([f"{overlay}.json"] if overlay else [])), image_size=32)
    plain = parser_of("student_segmentation", ("inference.json", *(["inference_2d.json"] if overlay else [])))
    plain.update({"image_size": 32})
    train["scale_intensity"] = plain["scale_intensity"]
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    if overlay:
        file = tmp_path / "image.png"
        Image.fromarray(pixels[:, :, 0]).save(file)
    else:
        file = tmp_path / "image.nii.gz"
        nib.save(nib.Nifti1Image(pixels, np.diag([-1, 1, 2, 1])), file)
    one = train.get_parsed_content("validate#preprocessing")({"image": str(file), "label": str(file)})["image"]
    other = plain.get_parsed_content("preprocessing")({"image": str(file)})["image"]
    assert torch.equal(one.as_tensor(), other.as_tensor())
    for config in (train, plain):
        config["largest_component"] = [1]
    masks = [
        [settings_of(step) for step in config.get_parsed_content(section).transforms]
        for config, section in ((train, "validate#postprocessing"), (plain, "postprocessing"))
    ]
    assert masks[0] == masks[1][: len(masks[0])]  # then the mask is written


# -------------------------------------------------------------------------------------------- short and explained

# a line of the top level that begins with a plain value: a number, a word, a list without expressions
SETTING = re.compile(
    r'^    "(?!_desc_|imports|bundle_root)(\w+)": (null|true|false|-?[\d.]+|\[[^$@]*\]|"[^$@][^"]*")(,|$)'
)


@each_bundle
def test_training_config_is_short(bundle):
    """What a reader of train.json is promised: 200 lines of 120 characters, 220 keys, 30 expressions."""
    text = (BUNDLES / bundle / "configs/train.json").read_text()
    everything = [value for _, value in nodes(json.loads(text))]
    keys = sum(len(value) for value in everything if isinstance(value, dict))
    expressions = sum(isinstance(value, str) and value.startswith("$") for value in everything)
    assert len(text.splitlines()) <= 200
    assert max(map(len, text.splitlines())) <= 120
    assert keys <= 220
    assert expressions <= 30


@each_variant
def test_no_overlay_keeps_books_and_no_line_is_long(bundle, files):
    text = (BUNDLES / bundle / "configs" / files[-1]).read_text()
    assert "fingerprints" not in text or files[-1] == "train.json"
    assert "identity" not in text
    assert files[0] == "inference.json" or max(map(len, text.splitlines())) <= 120


@each_variant
def test_each_setting_has_its_reason_beside_it(bundle, files):
    """A line with a setting of the config's top level, which a user may change, says why, or which values there are."""
    text = (BUNDLES / bundle / "configs" / files[-1]).read_text()
    known = parser_of(bundle, files[:-1]).get() if len(files) > 1 else {}  # said there, unless it is another value's
    for line in text.splitlines() if files[0] == "train.json" else ():
        if (match := SETTING.match(line)) and match[1] not in known:
            assert '"_desc_' in line, line
    for place, value in nodes(json.loads(text)):
        name = place.rpartition("#")[2]
        if name.startswith("_desc_"):
            siblings = json.loads(text) if "#" not in place else parser_of(bundle, files)[place.rpartition("#")[0]]
            assert name == "_desc_" or name.removeprefix("_desc_") in siblings, place
            assert not value.startswith(("$", "@", "%")), place


@each_bundle
def test_losses_of_weight_0_have_an_overlay_of_their_own(bundle):
    for file in (BUNDLES / bundle / "configs").glob("*.json"):
        for place, value in nodes(json.loads(file.read_text())):
            if isinstance(value, dict) and value.get("_target_") == "tskd.distillation.Term" and value["weight"] == 0:
                assert file.name == "more_losses.json", place


# ---------------------------------------------------------------------------------------------------- metadata


@each_bundle
def test_metadata_is_complete(bundle):
    meta = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())
    assert not [key for key in METADATA if not meta.get(key)]
    assert meta["schema"].endswith("meta_schema_20240725.json")
    assert meta["version"] == tskd.__version__
    assert meta["version"] in meta["changelog"]
    formats = meta["network_data_format"]
    assert "image" in formats["inputs"]
    assert list(formats["outputs"]) == ["pred"]
    for tensor in (*formats["inputs"].values(), *formats["outputs"].values()):
        assert not [key for key in TENSOR if key not in tensor]
        assert len(tensor["value_range"]) in (0, 2)
        if tensor["type"] == "image":
            assert len(tensor["channel_def"]) == tensor["num_channels"]


@each_bundle
def test_metadata_names_the_tested_versions(bundle):
    """The same as constraints.txt pins, so that one cannot be raised without the other."""
    meta = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())
    pins: dict[str, set[str]] = {"tskd": {tskd.__version__}}
    for name, version in re.findall(r"(?m)^([\w-]+)==([\w.]+)", (BUNDLES.parent / "constraints.txt").read_text()):
        pins.setdefault(name, set()).add(version)
    packages = {f"{name}": meta[f"{key}_version"] for name, key in (("monai", "monai"), ("torch", "pytorch"))}
    packages |= {"numpy": meta["numpy_version"], **meta["required_packages_version"]}
    for name, version in packages.items():
        assert version in pins.get(name, {version}), name
        assert installed.distribution(name)  # the name is one that pip knows


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a network connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@each_bundle
def test_network_agrees_with_the_metadata(bundle, offline):
    """Built with the config's defaults, without a checkpoint and offline; with tensors that have shapes only."""
    parser = parser_of(bundle, ("inference.json",), amp_dtype=None)
    formats = parser["_meta_#network_data_format"]
    with FakeTensorMode(), torch.no_grad():
        network = parser.get_parsed_content("network_def").eval()
        inputs = {
            name: torch.zeros((1, tensor["num_channels"], *tensor["spatial_shape"]) if tensor["type"] == "image" else 1)
            for name, tensor in formats["inputs"].items()
        }
        output = network(*inputs.values())
    pred = formats["outputs"]["pred"]
    assert output.shape == (1, pred["num_channels"], *pred["spatial_shape"])
    assert output.dtype == getattr(torch, pred["dtype"])


@torch.no_grad()
def test_student_runs_on_zeros():
    parser = parser_of("student_segmentation", ("inference.json",))
    image = parser["_meta_#network_data_format#inputs#image"]
    network = parser.get_parsed_content("network_def").eval()
    output = network(
        torch.zeros(1, image["num_channels"], *image["spatial_shape"], dtype=getattr(torch, image["dtype"]))
    )
    pred = parser["_meta_#network_data_format#outputs#pred"]
    assert output.shape == (1, pred["num_channels"], *pred["spatial_shape"])
    assert torch.isfinite(output).all()
    probabilities = output.softmax(1)  # what the postprocessing makes of it lies in the promised range
    assert pred["value_range"][0] <= probabilities.min()
    assert probabilities.max() <= pred["value_range"][1]
