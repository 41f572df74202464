"""The torch backend gives the masks of `monai.bundle run` to the voxel, the NumPy one up to rounding."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import KeepLargestConnectedComponent
from PIL import Image

from tests.bundles.standalone import ship, write_picture, write_volumes
from tskd.data import load_volume
from tskd.errors import TskdError
from tskd.networks.bundle_imports import bundle_imports
from tskd.predict.onnx_backend import OnnxBackend
from tskd.predict.predict_files import predict
from tskd.predict.shipped_bundle import read_bundle
from tskd.predict.torch_backend import TorchBackend

pytestmark = pytest.mark.bundle

ROUNDING = 1e-3  # share of voxels of an untrained network, whose classes are near ties everywhere


def _monai_run(bundle: Path, images: Path, output: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs/inference.json"))
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(images), "output_dir": str(output), "device": "cpu"})
    with bundle_imports(bundle):
        parser.get_parsed_content("evaluator").run()


@pytest.mark.parametrize(
    ("largest", "options"), [([], {}), ([1, 2], {}), ([], {"keep_largest_component": True, "average_mirrored": True})]
)
def test_volumes(tmp_path: Path, volumes_bundle: Path, largest: list[int], options: dict[str, bool]) -> None:
    bundle = tmp_path / "a_segmentation"
    shutil.copytree(volumes_bundle, bundle)
    config = json.loads((bundle / "configs/inference.json").read_text())
    config |= {"largest_component": largest, "displayable_configs": {**config["displayable_configs"], **options}}
    (bundle / "configs/inference.json").write_text(json.dumps(config))
    images = tmp_path / "images"
    images.mkdir()
    paths = write_volumes(images)
    _monai_run(bundle, images, tmp_path / "monai")
    for backend in ("torch", "onnx"):
        assert predict(bundle, [images], tmp_path / backend, backend=backend) == 0
    for path in paths:
        name = path.name.replace(".nii.gz", "_seg.nii.gz")
        expected, torch_mask, onnx_mask = (nib.load(tmp_path / folder / name) for folder in ("monai", "torch", "onnx"))
        np.testing.assert_array_equal(np.asarray(torch_mask.dataobj), np.asarray(expected.dataobj))
        if not largest and not options:  # one voxel may join two components of such a mask
            assert np.mean(np.asarray(onnx_mask.dataobj) != np.asarray(expected.dataobj)) < ROUNDING
        for mask in (torch_mask, onnx_mask):
            np.testing.assert_allclose(mask.affine, nib.load(path).affine, atol=1e-4)
            assert mask.get_data_dtype() == np.uint8


def test_the_logits_of_a_volume_are_kept_for_a_batch_of_slices_only(tmp_path: Path, volumes_bundle: Path) -> None:
    """The mask is that of the whole volume at once; without the batches, it takes several times the volume's memory."""
    array, affine = load_volume(write_volumes(tmp_path)[1])
    backend = TorchBackend(read_bundle(volumes_bundle), "cpu", batch_size=2)
    softmax, slices = backend.after[0], []

    def counted(item: dict[str, Any]) -> Any:
        slices.append(item["pred"].shape[-1])
        return softmax(item)

    backend.after[0] = counted
    by_batches = backend.mask(array, affine)
    assert slices == [2, 2, 1]
    backend.resizing = None  # as for transforms that may look at more than a slice
    np.testing.assert_array_equal(by_batches, backend.mask(array, affine))
    assert slices[3:] == [5]


def test_transforms_of_somebody_else_see_the_whole_volume(tmp_path: Path, volumes_bundle: Path) -> None:
    bundle = tmp_path / "d_segmentation"
    shutil.copytree(volumes_bundle, bundle)
    path = bundle / "configs/inference.json"
    config = json.loads(path.read_text())
    smooth = {"_target_": "GaussianSmoothd", "keys": "image", "sigma": [0, 0, 1]}
    config["preprocessing"]["transforms"].append(smooth)
    path.write_text(json.dumps(config))
    images = tmp_path / "images"
    images.mkdir()
    file = write_volumes(images)[0]
    _monai_run(bundle, images, tmp_path / "monai")
    expected = nib.load(tmp_path / "monai" / file.name.replace(".nii", "_seg.nii"))
    mask = TorchBackend(read_bundle(bundle), "cpu", batch_size=2).mask(*load_volume(file))
    np.testing.assert_array_equal(mask, np.asarray(expected.dataobj))


def test_pictures(tmp_path: Path, pictures_bundle: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_picture(images, 3)
    _monai_run(pictures_bundle, images, tmp_path / "monai")
    for backend in ("torch", "onnx"):
        assert predict(pictures_bundle, [images], tmp_path / backend, backend=backend) == 0
    expected, torch_mask, onnx_mask = (
        np.asarray(Image.open(tmp_path / folder / "picture_seg.png")) for folder in ("monai", "torch", "onnx")
    )
    assert torch_mask.shape == (40, 56)
    np.testing.assert_array_equal(torch_mask, expected)
    assert np.mean(onnx_mask != expected) < ROUNDING


def test_nothing_is_said_of_decoders_that_are_not_used(
    volumes_bundle: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    TorchBackend(read_bundle(volumes_bundle))
    assert not recwarn.list
    assert not caplog.records


def test_two_bundles_in_one_process_have_their_own_scripts(tmp_path: Path, volumes_bundle: Path) -> None:
    (tmp_path / "lite").mkdir()
    lite = ship(tmp_path / "lite", "nii.gz", lite=True)
    path, modules = list(sys.path), {name for name in sys.modules if name.startswith("scripts")}
    names = [
        type(TorchBackend(read_bundle(bundle)).network).__module__ for bundle in (volumes_bundle, lite, volumes_bundle)
    ]
    assert names == ["monai.networks.nets.unetr", "scripts.lite_unet", "monai.networks.nets.unetr"]
    assert sys.path == path
    assert {name for name in sys.modules if name.startswith("scripts")} == modules


def test_largest_components_are_those_of_monai(volumes_bundle: Path) -> None:
    backend = OnnxBackend(read_bundle(volumes_bundle))
    backend.pipeline.largest = [1, 3]
    for seed in range(20):
        mask = np.random.default_rng(seed).choice(4, (1, 14, 12, 6), p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8)
        expected = KeepLargestConnectedComponent([1, 3], is_onehot=False)(mask)
        np.testing.assert_array_equal(backend.pipeline._largest_components(mask[0]), np.asarray(expected)[0])


def test_an_unknown_transform_is_for_monai_alone(tmp_path: Path, volumes_bundle: Path) -> None:
    bundle = tmp_path / "b_segmentation"
    shutil.copytree(volumes_bundle, bundle)
    path = bundle / "configs/inference.json"
    config = json.loads(path.read_text())
    config["preprocessing"]["transforms"].insert(3, {"_target_": "GaussianSmoothd", "keys": "image"})
    path.write_text(json.dumps(config))
    with pytest.raises(TskdError, match="GaussianSmoothd"):
        OnnxBackend(read_bundle(bundle))


def test_a_bundle_without_onnx_says_how_to_make_it(tmp_path: Path, volumes_bundle: Path) -> None:
    bundle = tmp_path / "c_segmentation"
    shutil.copytree(volumes_bundle, bundle, ignore=shutil.ignore_patterns("*.onnx"))
    with pytest.raises(TskdError, match="tskd export"):
        OnnxBackend(read_bundle(bundle))


def test_options_of_monai_label_change_the_mask(tmp_path: Path, pictures_bundle: Path) -> None:
    """Averaged with its mirror image, a picture has the mirrored mask of the mirrored one, whichever the backend."""
    bundle = tmp_path / "a_segmentation"
    shutil.copytree(pictures_bundle, bundle)
    config = json.loads((bundle / "configs/inference.json").read_text())
    config["displayable_configs"]["average_mirrored"] = True
    (bundle / "configs/inference.json").write_text(json.dumps(config))
    picture = np.asarray(Image.open(write_picture(tmp_path, 3)))
    plain = TorchBackend(read_bundle(pictures_bundle), "cpu")
    for backend in (TorchBackend(read_bundle(bundle), "cpu"), OnnxBackend(read_bundle(bundle))):
        mask, mirrored = backend.mask(picture, None), backend.mask(picture[:, ::-1].copy(), None)
        assert np.mean(mask != mirrored[:, ::-1]) < ROUNDING
        assert np.mean(mask != plain.mask(picture, None)) > ROUNDING
