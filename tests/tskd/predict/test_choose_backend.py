"""Without --backend, ONNX Runtime predicts where it gives the masks of PyTorch, and PyTorch does elsewhere."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bundles.standalone import PATCHES, ship, write_volumes
from tskd.data import load_volume
from tskd.errors import TskdError
from tskd.export.exporter import export_network
from tskd.predict import choose_backend
from tskd.predict.choose_backend import Backend, load_backend
from tskd.predict.onnx_backend import OnnxBackend
from tskd.predict.shipped_bundle import read_bundle
from tskd.predict.torch_backend import TorchBackend

pytestmark = pytest.mark.bundle

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def bundle(tmp_path: Path, volumes_bundle: Path) -> Path:
    copy = tmp_path / "a_segmentation"
    shutil.copytree(volumes_bundle, copy)
    return copy


def _change(bundle: Path, change: Change) -> None:
    path = bundle / "configs/inference.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def _chosen(bundle: Path, device: str | None = None) -> tuple[Backend, str]:
    said: list[str] = []
    return load_backend(read_bundle(bundle), "auto", device, 8, said.append), " ".join(said)


def _hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = choose_backend.find_spec
    monkeypatch.setattr(choose_backend, "find_spec", lambda name: None if name == package else find(name))


def test_onnx_is_taken_where_it_can_be_and_has_the_same_masks(bundle: Path, tmp_path: Path) -> None:
    for device in (None, "cpu"):
        chosen, said = _chosen(bundle, device)
        assert isinstance(chosen, OnnxBackend)
        assert said == "computed by ONNX Runtime"
    for path in write_volumes(tmp_path):
        volume = load_volume(path)
        masks = [backend.mask(*volume) for backend in (chosen, TorchBackend(read_bundle(bundle), "cpu"))]
        assert np.mean(masks[0] != masks[1]) < 1e-3


def test_without_the_file_it_is_torch_and_a_line_says_how_to_make_it(bundle: Path) -> None:
    (bundle / "models/model.onnx").unlink()
    chosen, said = _chosen(bundle)
    assert isinstance(chosen, TorchBackend)
    assert said.startswith("computed by PyTorch: the bundle has no models/model.onnx")


def test_without_onnx_runtime_it_is_torch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "onnxruntime")
    chosen, said = _chosen(bundle)
    assert isinstance(chosen, TorchBackend)
    assert "onnxruntime is not installed" in said


def test_without_torch_it_is_onnx_or_says_how_to_make_the_file(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "torch")
    monkeypatch.setitem(sys.modules, "tskd.predict.torch_backend", None)  # as where it cannot be imported
    assert isinstance(_chosen(bundle)[0], OnnxBackend)
    (bundle / "models/model.onnx").unlink()
    with pytest.raises(TskdError, match="tskd export"):
        _chosen(bundle)


@pytest.mark.parametrize(
    ("version", "gpus", "device", "expected"),
    [
        ("2.13.0+cpu", ["0"], None, OnnxBackend),
        ("2.13.0", [], None, OnnxBackend),
        ("2.13.0", ["0"], None, TorchBackend),
        ("2.13.0", ["0"], "cpu", OnnxBackend),
        ("2.13.0+cpu", [], "meta", TorchBackend),  # the user's choice of a device is torch's
    ],
)
def test_a_gpu_is_for_torch(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, version: str, gpus: list[str], device: str | None, expected: type
) -> None:
    monkeypatch.setattr(choose_backend, "version", lambda name: version)
    monkeypatch.setattr(choose_backend, "visible", lambda: gpus)
    chosen, said = _chosen(bundle, device)
    assert isinstance(chosen, expected)
    assert said == f"computed by {'PyTorch' if expected is TorchBackend else 'ONNX Runtime'}"


def _step(chain: str, name: str, **arguments: Any) -> Change:
    """Give the last step of a name other arguments."""

    def change(config: dict[str, Any]) -> None:
        steps = [step for step in config[chain]["transforms"] if isinstance(step, dict) and step["_target_"] == name]
        steps[-1].update(arguments)

    return change


CHANGES: dict[str, tuple[Change, str]] = {
    "another orientation": (_step("preprocessing", "Orientationd", axcodes="RAS"), "axcodes=RAS"),
    "no orientation": (lambda config: config["preprocessing"]["transforms"].pop(3), "EnsureTyped, SignalFillEmptyd"),
    "another resize": (_step("preprocessing", "Resized", mode="nearest"), "mode=nearest"),
    "no clipping": (lambda config: config["scale_intensity"].update(clip=False), "clip=False"),
    "other channels": (lambda config: config["scale_intensity"].update(channel_wise=True), "channel_wise=True"),
    "nothing scaled": (lambda config: config["preprocessing"]["transforms"].pop(5), "SignalFillEmptyd, clip"),
    "sigmoid": (_step("postprocessing", "Activationsd", softmax=False, sigmoid=True), "sigmoid=True"),
    "nearest": (_step("postprocessing", "Invertd", nearest_interp=True), "nearest_interp=True"),
    "threshold": (_step("postprocessing", "AsDiscreted", threshold=0.3), "threshold=0.3"),
    "some components": (
        _step("postprocessing", "KeepLargestConnectedComponentd", applied_labels=[2], _disabled_=False),
        r"applied_labels=\[2\]",
    ),
    "holes": (
        lambda config: config["postprocessing"]["transforms"].insert(4, {"_target_": "FillHolesd", "keys": "pred"}),
        "FillHolesd",
    ),
    "inferer": (lambda config: config.update(plain_inferer={"_target_": "SimpleInferer2"}), "an inferer of its own"),
    "mirror": (lambda config: config.update(flipped_inferer="$@plain_inferer"), "an inferer of its own"),
    "flips": (lambda config: config.update(flips=["z"]), r"flips \['z'\]"),
    "option": (
        lambda config: config["displayable_configs"].update(keep_largest_component="$True"),
        "keep_largest_component",
    ),
    "classes": (lambda config: config.update(largest_component="$[1, 2]"), "largest_component"),
    "size": (lambda config: config.update(image_size=48), r"expected images of \(1, 48, 48\)"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_somebody_changed_is_for_torch_and_refused_by_onnx(bundle: Path, name: str) -> None:
    change, found = CHANGES[name]
    _change(bundle, change)
    with pytest.raises(TskdError, match=found):
        OnnxBackend(read_bundle(bundle))
    if name in ("inferer", "size"):  # no network or inferer of these
        return
    chosen, said = _chosen(bundle)
    assert isinstance(chosen, TorchBackend)
    assert said.startswith("computed by PyTorch: not ONNX Runtime, ")


def test_a_file_of_other_weights_is_left_aside(tmp_path: Path) -> None:
    bundle = ship(tmp_path, "nii.gz", lite=True)
    export_network(bundle, "onnx")
    assert isinstance(_chosen(bundle)[0], OnnxBackend)
    weights = torch.load(bundle / "models/model.pt", weights_only=True)
    weights["head.bias"] += 1
    torch.save(weights, bundle / "models/model.pt")
    chosen, said = _chosen(bundle)
    assert isinstance(chosen, TorchBackend)
    assert "made of other ones" in said


@pytest.mark.parametrize("named", [True, False])
def test_a_damaged_file_is_left_aside_and_refused_by_name(tmp_path: Path, named: bool) -> None:
    """A byte of the weights alone would give another mask; metadata.json has the file's sha256."""
    bundle = ship(tmp_path, "nii.gz", lite=True)
    export_network(bundle, "onnx")
    path = bundle / "models/model.onnx"
    content = bytearray(path.read_bytes())
    if named:
        content[len(content) // 2] ^= 0x40
    else:  # as another program may have written it
        metadata = json.loads((bundle / "configs/metadata.json").read_text())
        del metadata["exported"]
        (bundle / "configs/metadata.json").write_text(json.dumps(metadata))
        content = content[: len(content) // 2]
    path.write_bytes(content)
    chosen, said = _chosen(bundle)
    assert isinstance(chosen, TorchBackend)
    assert said.startswith("computed by PyTorch: not ONNX Runtime, ")
    assert "damaged" in said
    with pytest.raises(TskdError, match=rf"damaged.* Make it again: tskd export {bundle} --to onnx --overwrite"):
        OnnxBackend(read_bundle(bundle))
    export_network(bundle, "onnx", overwrite=True)
    assert isinstance(_chosen(bundle)[0], OnnxBackend)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused_in_a_line(bundle: Path, device: str) -> None:
    if torch.cuda.is_available() and device.startswith("cuda"):
        pytest.skip("this machine has a GPU")
    for backend in ("torch", "onnx"):
        with pytest.raises(TskdError, match=f"^--device.*{device}"):
            load_backend(read_bundle(bundle), backend, device)


def test_the_threads_of_openmp_are_those_of_onnx_runtime(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert OnnxBackend(read_bundle(bundle)).session.get_session_options().intra_op_num_threads == 3


def test_descriptions_and_earlier_forms_are_known(bundle: Path, tmp_path: Path) -> None:
    def earlier(config: dict[str, Any]) -> None:
        steps = config["preprocessing"]["transforms"]
        steps[7:10] = [{**steps[8], "anti_aliasing": True, "_desc_": "with a filter"}]
        config["postprocessing"]["transforms"][3].update(
            applied_labels="@largest_component", _disabled_="$not @largest_component"
        )
        config["inferer"] = config["plain_inferer"]
        config["displayable_configs"] = {}

    _change(bundle, earlier)
    volume = load_volume(write_volumes(tmp_path)[0])
    masks = [backend.mask(*volume) for backend in (_chosen(bundle)[0], TorchBackend(read_bundle(bundle), "cpu"))]
    assert isinstance(_chosen(bundle)[0], OnnxBackend)
    assert np.mean(masks[0] != masks[1]) < 1e-3


def test_patches_are_known(tmp_path: Path) -> None:
    bundle = ship(tmp_path, "nii.gz", several=PATCHES)
    export_network(bundle, "onnx")
    assert isinstance(_chosen(bundle)[0], OnnxBackend)
    _change(bundle, lambda config: config["plain_inferer"].update(overlap=0.25))
    with pytest.raises(TskdError, match="an inferer of its own"):
        OnnxBackend(read_bundle(bundle))
