"""Students that see several slices ship with the masks of their validation, whichever way a volume is stored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from nibabel import orientations
from PIL import Image
from torch import nn

from tests.bundles.standalone import BUNDLE, IMAGE_SIZE, LABELS, PATCHES, ship, write_volumes
from tskd.data import datalist, load_volume, write_volume
from tskd.errors import TskdError
from tskd.export.exporter import export_network
from tskd.export.several_slices import several_slices
from tskd.export.ship import ship_run
from tskd.export.verify_export import calibration_images
from tskd.predict.numpy_windows import gaussian_weights, sliding_window
from tskd.predict.onnx_backend import OnnxBackend
from tskd.predict.shipped_bundle import read_bundle
from tskd.predict.torch_backend import TorchBackend
from tskd.profile import _profile_bundle
from tskd.workflow.teachers import read_teacher

pytestmark = pytest.mark.bundle

ROUNDING = 1e-3  # share of voxels of an untrained network, whose classes are near ties everywhere
NETWORKS: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {  # configs, settings, keys of the network
    "neighbours": (["segresnet", "neighbours"], {"neighbour_slices": 2}, {"network_def#init_filters": 8}),
    "patches": (["volume"], dict(PATCHES), {"network_def#filters": [4, 4, 8, 8]}),
}
SHIFT: dict[str, dict[str, Any]] = {  # a network whose last class is what the slice below shows
    "neighbours": {"_target_": "torch.nn.Conv2d", "in_channels": "@in_channels", "kernel_size": 1},
    "patches": {
        "_target_": "torch.nn.Conv3d", "in_channels": "@in_channels", "kernel_size": [1, 1, 3], "padding": [0, 0, 1],
        "padding_mode": "replicate",
    },
}  # fmt: skip


class Shipped:
    """A run with a random network, its shipped bundle, and the transforms and inferer of its validation."""

    def __init__(self, root: Path, configs: list[str], settings: dict[str, Any], keys: dict[str, Any]) -> None:
        entry = {"image": "a.nii.gz", "label": "a_label.nii.gz", "group": "a", "case": "a"}
        lists: dict[str, Any] = {"training": [], "unlabelled": [], "validation": [], "test": [entry]}
        header = {"name": "toy", "modality": "MR", "channels": 1, "labels": LABELS, "provenance": {}}
        datalist.write(root / "dataset.json", {**header, **lists})
        parser = ConfigParser()
        parser.read_config([str(BUNDLE / "configs" / f"{name}.json") for name in ("train", *configs)])
        changes = {**settings, **keys, "image_size": IMAGE_SIZE, "num_classes": len(LABELS), "dataset_dir": str(root)}
        parser.update(changes)
        torch.manual_seed(0)
        self.network: nn.Module = parser.get_parsed_content("network_def").eval()
        self.validation = {
            key: parser.get_parsed_content(f"validate#{key}") for key in ("preprocessing", "inferer", "postprocessing")
        }
        self.run, self.root = root / "run", root
        self.made_with = {
            "settings": {"image_size": IMAGE_SIZE, **settings}, "network_keys": keys,
            "config": ["train.json", *(f"{name}.json" for name in configs)],
        }  # fmt: skip
        (self.run / "models").mkdir(parents=True)
        self.bundle = self.ship("student_segmentation")

    def ship(self, name: str) -> Path:
        """Ship the network as it is now."""
        torch.save(self.network.state_dict(), self.run / "models/model.pt")
        (self.run / "versions.json").write_text(json.dumps(self.made_with))
        return ship_run(BUNDLE, self.run, self.root / name, self.root / "dataset.json", force=True)

    def validated(self, path: Path) -> np.ndarray:
        """Mask of a volume as validation and `tskd evaluate` have it."""
        item = self.validation["preprocessing"]({"image": str(path), "label": str(path)})
        with torch.no_grad():
            item["pred"] = self.validation["inferer"](item["image"][None], self.network)[0]
        return np.asarray(self.validation["postprocessing"](item)["pred"])[0]


@pytest.fixture(scope="module", params=list(NETWORKS))
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    return Shipped(tmp_path_factory.mktemp(request.param), *NETWORKS[request.param])


def reversed_z(path: Path) -> Path:
    """Writes the volume of a file beside it with its slices the other way round, in the same place."""
    array, affine = load_volume(path)
    axis = int(np.argmax(orientations.io_orientation(affine)[:, 0] == 2))
    turn = np.stack([np.arange(3), np.where(np.arange(3) == axis, -1, 1)], axis=1)
    other = path.with_name(f"reversed_{path.name}")
    write_volume(other, np.flip(array, axis).copy(), affine @ orientations.inv_ornt_aff(turn, array.shape))
    return other


def test_masks_are_those_of_the_validation_however_a_volume_is_stored(shipped: Shipped, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs onnx, an optional dependency")
    paths = write_volumes(tmp_path)
    paths.append(reversed_z(paths[0]))
    assert "TskdError" not in export_network(shipped.bundle, "onnx", overwrite=True)
    torch_backend, onnx = TorchBackend(read_bundle(shipped.bundle), "cpu"), OnnxBackend(read_bundle(shipped.bundle))
    masks = []
    for path in paths:
        expected, volume = shipped.validated(path), load_volume(path)
        assert len(np.unique(expected)) > 2
        mask = torch_backend.mask(*volume)
        assert np.mean(mask != expected) < ROUNDING
        assert np.mean(onnx.mask(*volume) != expected) < ROUNDING
        masks.append(mask)
    np.testing.assert_array_equal(masks[2], np.flip(masks[0], 2))


def test_batches_of_slices_change_nothing(shipped: Shipped, tmp_path: Path) -> None:
    """Nor does it matter that a volume has fewer slices than a patch."""
    volume = load_volume(write_volumes(tmp_path)[0])
    backend = TorchBackend(read_bundle(shipped.bundle), "cpu", batch_size=2)
    by_batches = backend.mask(*volume)
    backend.resizing = None
    assert np.mean(by_batches != backend.mask(*volume)) < ROUNDING


def test_the_average_with_the_mirror_image_is_taken_by_both(shipped: Shipped, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs onnx, an optional dependency")
    volume = load_volume(write_volumes(tmp_path)[0])
    bundle = shipped.ship("mirrored_segmentation")
    export_network(bundle, "onnx")
    plain, file = TorchBackend(read_bundle(bundle), "cpu").mask(*volume), bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    config["displayable_configs"]["average_mirrored"] = True
    file.write_text(json.dumps(config))
    both = [
        backend.mask(*volume)
        for backend in (TorchBackend(read_bundle(bundle), "cpu"), OnnxBackend(read_bundle(bundle)))
    ]
    assert np.mean(both[0] != both[1]) < ROUNDING < np.mean(both[0] != plain)


@pytest.mark.parametrize("name", list(SHIFT))
def test_the_slice_below_is_the_one_below(tmp_path: Path, name: str) -> None:
    """A landmark in one slice is seen by the next higher one, also where the file begins at the head."""
    configs, settings, _ = NETWORKS[name]
    keys: dict[str, Any] = {"network_def": {**SHIFT[name], "out_channels": "@num_classes"}}
    if name == "neighbours":
        keys |= {"network_def#in_channels": "@network_channels"}
    student = Shipped(tmp_path, [configs[-1]], settings, keys)
    weights = student.network.get_parameter("weight").data.zero_()
    student.network.get_parameter("bias").data[:] = torch.tensor([0.0, -9, -9, -5])
    below = weights[3, 1] if name == "neighbours" else weights[3, 0, :, :, 0]  # of slices -2 to 2, of -1 to 1
    below += 10
    bundle = student.ship("shift_segmentation")
    array = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 9), np.int16)
    array[4:12, 20:30, 2] = 100
    write_volume(tmp_path / "up.nii.gz", array, np.diag([-1.0, -1, 4, 1]))  # LPS
    for path in (tmp_path / "up.nii.gz", reversed_z(tmp_path / "up.nii.gz")):
        mask = TorchBackend(read_bundle(bundle), "cpu").mask(*load_volume(path))
        np.testing.assert_array_equal(mask, student.validated(path))
        in_order = mask[..., ::-1] if path.name.startswith("reversed") else mask
        np.testing.assert_array_equal(in_order[..., 3] == 3, array[..., 2] > 0)
        assert not np.delete(in_order, 3, axis=2).any()


def test_its_network_has_plain_numbers_and_nothing_of_the_project(shipped: Shipped) -> None:
    text = (shipped.bundle / "configs/inference.json").read_text()
    assert "tskd" not in text
    config = json.loads(text)
    if "patch_size" in config:
        assert config["network_def"]["strides"] == [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 1]]
        assert config["network_def"]["filters"] == [4, 4, 8, 8]
        assert not [value for value in config["network_def"].values() if str(value)[0] in "$@"]
    readme = (shipped.bundle / "docs/README.md").read_text()
    assert ("in patches of 32 x 32 x 8 voxels" in readme) == ("patch_size" in config)
    assert ("with 2 neighbours on each side" in readme) == ("neighbour_slices" in config)


def test_its_cost_is_that_of_what_it_sees(shipped: Shipped) -> None:
    threads = torch.get_num_threads()
    profile = _profile_bundle(str(shipped.bundle), {}, "cpu", 1, threads)
    assert tuple(profile["shape"]) == read_bundle(shipped.bundle).input_shape


def test_2d_images_have_no_slices(tmp_path: Path) -> None:
    with pytest.raises(TskdError, match="of which this student sees several"):
        ship(tmp_path, "png", several=PATCHES)


@pytest.mark.parametrize("settings", [{"neighbour_slices": 1}, {"patch_size": [8, 8, 4]}])
def test_a_student_of_several_slices_is_no_teacher(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert several_slices(settings) == settings
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").touch()
    (tmp_path / "versions.json").write_text(json.dumps({"settings": {"image_size": IMAGE_SIZE, **settings}}))
    with pytest.raises(TskdError, match="cannot write soft labels"):
        read_teacher(tmp_path)


def test_int8_sees_neighbours_and_is_refused_for_patches(shipped: Shipped, tmp_path: Path) -> None:
    images = [f"s_{number}.png" for number in range(4)]
    entries = [{"image": image, "label": image, "group": "s", "case": image.removesuffix(".png")} for image in images]
    content = json.loads((shipped.root / "dataset.json").read_text())
    datalist.write(tmp_path / "dataset.json", {**content, "training": entries})
    for number, image in enumerate(images):
        Image.fromarray(np.full((40, 40), 10 * number, np.uint8)).save(tmp_path / image)
    if read_bundle(shipped.bundle).patch_size:
        with pytest.raises(TskdError, match="expected a 2-D network"):
            export_network(shipped.bundle, "onnx-int8", tmp_path / "dataset.json")
        return
    seen = [
        image[0, :, 0, 0] * 255 / 10
        for image in calibration_images(read_bundle(shipped.bundle), tmp_path / "dataset.json")
    ]
    np.testing.assert_allclose(seen, [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 3, 3]], atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 4), (20, 16, 3), (37, 24, 11)])
def test_windows_in_numpy_are_those_of_monai(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    patch, network = (16, 16, 4), nn.Conv3d(2, 3, 3, padding=1)
    image = torch.rand(1, 2, *shape)
    inferer = SlidingWindowInferer(patch, 3, 0.5, "gaussian", padding_mode="replicate")
    with torch.no_grad():
        expected = inferer(image, network)[0].numpy()
        result = sliding_window(image[0].numpy(), patch, lambda x: network(torch.from_numpy(x)).numpy(), 3)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert gaussian_weights(patch).min() == pytest.approx(1e-3)
