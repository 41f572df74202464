"""A bundle that is shipped with flips averages the logits of mirrored images, by MONAI, by NumPy, and as evaluated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from torch import Tensor, nn

from tests.bundles.standalone import IMAGE_SIZE, NEIGHBOURS, PATCHES, ship, write_picture, write_volumes
from tskd.data import load_volume
from tskd.errors import TskdError
from tskd.export.exporter import export_network
from tskd.inferers import averaged_over_flips
from tskd.networks.bundle_imports import bundle_imports
from tskd.predict.onnx_backend import OnnxBackend
from tskd.predict.shipped_bundle import read_bundle
from tskd.predict.shipped_inferer import check_flips, flip_ways
from tskd.predict.torch_backend import TorchBackend

pytestmark = pytest.mark.bundle

LABELS = {"0": "background", "1": "liver", "2": "spleen", "3": "aorta"}
KINDS: dict[str, dict[str, Any]] = {
    "pictures": {"kind": "png", "in_channels": 3},
    "slices": {"kind": "nii.gz"},
    "neighbours": {"kind": "nii.gz", "several": NEIGHBOURS},
    "patches": {"kind": "nii.gz", "several": PATCHES},
}
FLIPS = [["x"], ["y"], ["x", "y"]]
ROUNDING = 1e-3  # share of voxels of an untrained network


def _parts(bundle: Path, **changes: Any) -> tuple[Callable[..., Tensor], Callable[..., Tensor], nn.Module]:
    """The inferer of inference.json, the one below it, and the network, by MONAI alone."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs/inference.json"))
    parser.update({"bundle_root": str(bundle), "batch_size": 8, **changes})
    with bundle_imports(bundle):
        inferer, plain = (parser.get_parsed_content(key) for key in ("inferer", "plain_inferer"))
        return inferer, plain, parser.get_parsed_content("network_def").eval()


def _image(name: str) -> Tensor:
    torch.manual_seed(0)
    sides = [IMAGE_SIZE, IMAGE_SIZE] if name == "pictures" else [IMAGE_SIZE, IMAGE_SIZE, 10]
    return torch.rand(1, KINDS[name].get("in_channels", 1), *sides)


def _by_hand(image: Tensor, network: nn.Module, plain: Callable[..., Tensor], flips: list[str]) -> Tensor:
    """The mean over the image and its mirror images, as numpy says where x and y are: [B, C, X, Y(, Z)]."""
    dims = {("x",): [(), (2,)], ("y",): [(), (3,)], ("x", "y"): [(), (2,), (3,), (2, 3)]}[tuple(flips)]
    seen = [torch.from_numpy(np.flip(image.numpy(), way).copy()) for way in dims]
    return torch.from_numpy(
        np.mean([np.flip(plain(one, network).numpy(), way) for one, way in zip(seen, dims, strict=True)], axis=0)
    )


@pytest.mark.parametrize("name", list(KINDS))
def test_logits_are_the_mean_over_the_mirror_images(tmp_path: Path, name: str) -> None:
    bundle, image = ship(tmp_path, labels=LABELS, **KINDS[name]), _image(name)
    found = []
    with torch.no_grad():
        for flips in FLIPS:
            inferer, plain, network = _parts(bundle, flips=flips)
            found.append(inferer(image, network))
            torch.testing.assert_close(found[-1], _by_hand(image, network, plain, flips), atol=1e-5, rtol=1e-5)
            evaluated = averaged_over_flips(plain, flips)(inputs=image, network=network)
            torch.testing.assert_close(evaluated, found[-1], atol=1e-6, rtol=0)
        found.append(plain(image, network))
        assert averaged_over_flips(plain) is plain
        torch.testing.assert_close(_parts(bundle)[0](image, network), found[-1], atol=0, rtol=0)
    differences = [float((a - b).abs().max()) for k, a in enumerate(found) for b in found[:k]]
    assert min(differences) > 1e-3


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("flips", FLIPS, ids="".join)
def test_onnx_has_the_masks_of_torch(tmp_path: Path, name: str, flips: list[str]) -> None:
    pytest.importorskip("onnx", reason="needs onnx, an optional dependency")
    bundle = ship(tmp_path, labels=LABELS, flips=flips, **KINDS[name])
    assert json.loads((bundle / "configs/inference.json").read_text())["flips"] == flips
    said = f"averaged over images mirrored along {' and '.join(flips)}, {2 ** len(flips)} times the work"
    assert said in (bundle / "docs/README.md").read_text()
    export_network(bundle, "onnx")
    images: list[tuple[np.ndarray, np.ndarray | None]]
    if name == "pictures":
        images = [(np.asarray(Image.open(write_picture(tmp_path, 3))), None)]
    else:
        images = [(*load_volume(path),) for path in write_volumes(tmp_path)]
    shipped = read_bundle(bundle)
    for image in images:
        masks = [backend.mask(*image) for backend in (TorchBackend(shipped, "cpu"), OnnxBackend(shipped))]
        assert np.mean(masks[0] != masks[1]) < ROUNDING
        shipped.config["flips"] = []
        assert np.mean(masks[1] != OnnxBackend(shipped).mask(*image)) > ROUNDING
        shipped.config["flips"] = flips


@pytest.mark.parametrize(
    ("flips", "option", "axes"),
    [
        ([], True, ["x"]),
        (["y"], True, ["x", "y"]),
        (["x", "y"], False, ["y"]),
        (["x"], False, []),
        (["x"], "$'x' in @flips", ["x"]),
        ([], "$'x' in @flips", []),
    ],
)
def test_the_option_of_monai_label_counts_for_x(tmp_path: Path, flips: list[str], option: Any, axes: list[str]) -> None:
    bundle, image = ship(tmp_path, "png", labels=LABELS), _image("slices")[..., 0]
    changes = {"flips": flips, "displayable_configs": {"average_mirrored": option}}
    with torch.no_grad():
        inferer, plain, network = _parts(bundle, **changes)
        expected = _by_hand(image, network, plain, axes) if axes else plain(image, network)
        torch.testing.assert_close(inferer(image, network), expected, atol=1e-5, rtol=1e-5)
    assert len(flip_ways(changes)) == 2 ** len(axes)
    assert {axis for way in flip_ways(changes) for axis in way} == {"xy".index(axis) for axis in axes}


@pytest.mark.parametrize(
    "name", ["left kidney", "Kidney_R", "lung-l", "RIGHT", "leftVentricle", "kidneyLeft", "ovary (lt)"]
)
def test_x_is_refused_where_a_name_says_a_side(tmp_path: Path, name: str) -> None:
    labels = {**LABELS, "2": name}
    with pytest.raises(TskdError, match=r"--flips x: expected structures of no side, found "):
        ship(tmp_path, "png", labels=labels, flips=["y", "x"])
    assert not (tmp_path / "student_segmentation").exists()
    check_flips(["y"], labels)


@pytest.mark.parametrize(
    "names",
    [
        ("LKidney", "RKidney"),
        ("lkidney", "rkidney"),
        ("kidneyl", "kidneyr"),
        ("LV", "RV"),
        ("LUNGL", "LUNGR"),
        ("LTLUNG", "RTLUNG"),
        ("leftkidney", "rightkidney"),
        ("kidneyleft", "kidneyright"),
        ("kidney left", "kidneyright"),
        ("lt-lung", "rtlung"),
        ("eye_1L", "eye_1R"),
    ],
)
def test_x_is_refused_where_two_names_differ_by_a_side(names: tuple[str, str]) -> None:
    for pair in (names, names[::-1]):
        with pytest.raises(TskdError, match=f"found {pair[0]}, {pair[1]}, which would be averaged"):
            check_flips(["x"], {0: "background", 1: pair[0], 2: "lung", 3: pair[1], 4: "bladder"})
    check_flips(["y"], dict(enumerate(names)))


@pytest.mark.parametrize("name", ["LKidney", "RVentricle", "upperRLobe", "leftkidney", "Rightlung", "CT_LLung"])
def test_x_is_refused_where_one_name_alone_says_a_side(name: str) -> None:
    with pytest.raises(TskdError, match=f"found {name}, which"):
        check_flips(["x"], {0: "background", 1: name, 2: "liver"})


def test_names_that_only_look_like_sides_are_none_and_z_is_no_axis() -> None:
    check_flips(["x"], {0: "background", 1: "bright spot", 2: "cleft", 3: "liver", 4: "lesion_1"})
    for name in ("lung", "LUNG", "rectum", "LV", "L5", "tumor", "vessel", "CTLiver", "MRIRectum", "lungs lower"):
        check_flips(["x"], {0: "background", 1: name, 2: "heart"})
    check_flips(["x"], dict(enumerate(["background", "lung", "rib", "lobe", "tumor", "tumour", "bowel", "tumorl"])))
    with pytest.raises(TskdError, match="expected some of x, y, found z"):
        check_flips(["z"], LABELS)
    with pytest.raises(TskdError, match="expected some of x, y, found z"):
        averaged_over_flips(lambda *_: None, ["z"])
