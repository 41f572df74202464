"""A 2-D network runs in channels_last where inference.json says so; masks are those of contiguous memory."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from tests.bundles.standalone import (
    BUNDLE,
    IMAGE_SIZE,
    LABELS,
    NEIGHBOURS,
    PATCHES,
    ship,
    trained_student,
    write_picture,
    write_volumes,
)
from tskd.data import load_volume
from tskd.networks import on_device
from tskd.predict.shipped_bundle import read_bundle
from tskd.predict.torch_backend import TorchBackend
from tskd.state import save_weights

pytestmark = pytest.mark.bundle

KINDS: dict[str, dict[str, Any]] = {
    "unetr": {"kind": "nii.gz"},
    "lite": {"kind": "nii.gz", "lite": True},
    "neighbours": {"kind": "nii.gz", "several": NEIGHBOURS},
    "pictures": {"kind": "png", "in_channels": 3, "lite": True},
}


def _convolutions(network: torch.nn.Module) -> list[torch.Tensor]:
    """Weights in which the layouts differ."""
    kernels = [value for value in network.parameters() if value.ndim == 4]
    return [value for value in kernels if value.shape[1] > 1 and value.shape[2] > 1]


@pytest.mark.parametrize("name", list(KINDS))
def test_channels_last_has_the_logits_and_masks_of_contiguous_memory(tmp_path: Path, name: str) -> None:
    bundle = ship(tmp_path, **KINDS[name])
    backend = TorchBackend(read_bundle(bundle), "cpu")
    assert _convolutions(backend.network)
    for weight in _convolutions(backend.network):
        assert weight.is_contiguous(memory_format=torch.channels_last)
    contiguous = TorchBackend(read_bundle(bundle), "cpu")
    contiguous.network = on_device(copy.deepcopy(backend.network), "cpu", "contiguous_format")
    assert all(weight.is_contiguous() for weight in _convolutions(contiguous.network))
    x = torch.rand((2, *read_bundle(bundle).input_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(backend.network(x), contiguous.network(x), atol=1e-4, rtol=0)
    image: tuple[np.ndarray, np.ndarray | None]
    if name == "pictures":
        image = (np.asarray(Image.open(write_picture(tmp_path, 3))), None)
    else:
        image = load_volume(write_volumes(tmp_path)[0])
    np.testing.assert_array_equal(backend.mask(*image), contiguous.mask(*image))
    assert len(np.unique(backend.mask(*image))) > 1


def test_a_3d_network_stays_as_it_was(tmp_path: Path) -> None:
    bundle = ship(tmp_path, "nii.gz", several=PATCHES)
    assert json.loads((bundle / "configs/inference.json").read_text())["memory_format"] == "$torch.contiguous_format"
    assert all(value.is_contiguous() for value in TorchBackend(read_bundle(bundle), "cpu").network.parameters())


def test_an_earlier_bundle_has_no_layout_of_its_own(tmp_path: Path, volumes_bundle: Path) -> None:
    bundle = tmp_path / "a_segmentation"
    shutil.copytree(volumes_bundle, bundle)
    path = bundle / "configs/inference.json"
    config = json.loads(path.read_text())
    config["network"] = "$@network_def.to(@device)"
    del config["memory_format"]
    path.write_text(json.dumps(config))
    assert all(value.is_contiguous() for value in TorchBackend(read_bundle(bundle), "cpu").network.parameters())


@pytest.mark.parametrize("layout", ["channels_last", "contiguous_format"])
def test_the_evaluation_has_the_layout_of_the_training(tmp_path: Path, layout: str) -> None:
    save_weights(trained_student(), tmp_path / "model.pt")
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / f"{name}.json") for name in ("train", "evaluate")])
    parser.update({"image_size": IMAGE_SIZE, "num_classes": len(LABELS), "model_file": str(tmp_path / "model.pt")})
    parser.update({"device": "cpu", "memory_format": layout})
    network = parser.get_parsed_content("network")
    expected = getattr(torch, layout)
    assert all(weight.is_contiguous(memory_format=expected) for weight in _convolutions(network))
    trained = trained_student().state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())
