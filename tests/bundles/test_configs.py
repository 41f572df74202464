"""Every config of every bundle, alone or as the overlay it is: complete, no typing errors, nothing of this machine."""

import inspect
import json
import pydoc
import re
import socket
from collections.abc import Iterator
from importlib import metadata as installed
from typing import Any

import pytest
import torch
from monai.bundle import ComponentLocator, ConfigParser, ReferenceResolver
from monai.bundle.config_item import ConfigComponent
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
    "semi.json": ("distill.json", "averaged.json", "joint.json"),
    "fixmatch.json": ("distill.json", "averaged.json", "joint.json", "semi.json"),
    "mean_teacher.json": ("distill.json", "averaged.json", "joint.json", "semi.json"),
    "task_agnostic.json": ("distill.json",),
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
        if parent:
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


def test_handlers_of_later_processes(monkeypatch):
    """What knows nothing of processes is switched off in all but the first."""
    files, overrides = ("train.json", "multi_gpu_train.json"), {"device": "cpu", "not_first": True}
    parser = parser_of("student_segmentation", files, **overrides)
    named = parser["train#named_handlers"]
    quiet = {name for name, handler in named.items() if handler.get("_disabled_") == "@not_first"}
    assert quiet == {"versions", "tensorboard"}
    for name in quiet:
        parser[f"train#named_handlers#{name}"] = {"_target_": "torch.nn.Identity", "_disabled_": "@not_first"}
        assert parser.get_parsed_content(f"train#named_handlers#{name}") is None


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
    assert train["network_def"] == inference["network_def"]
    assert [train[key] for key in ("in_channels", "num_classes", "image_size")] == [
        inference[key] for key in ("in_channels", "num_classes", "image_size")
    ]
    validation, test = train["validate#preprocessing#transforms"], inference["preprocessing#transforms"]
    test.remove({"_target_": "SignalFillEmptyd", "keys": "image"})  # the images of a training have been checked
    assert validation[3] == test[3] == "@scale_intensity"
    assert inference["scale_intensity"] == PERCENTILES.transform()
    resized = test.index({"_target_": "Lambda", "func": "@antialias"})  # the three stock ones are one of ours
    assert validation[5].pop("_target_") == "tskd.data.antialias.AntialiasedResized"
    assert test.pop(resized - 1) == {"_target_": "Resized", **validation.pop(5)}
    del test[resized - 2 : resized]
    for one, other in zip(validation, test, strict=True):  # the same, without the label
        if one == other:
            continue
        assert one["_target_"] == other["_target_"]
        assert {**one, "keys": 0, "dtype": 0} == {**other, "keys": 0, "dtype": 0}


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
