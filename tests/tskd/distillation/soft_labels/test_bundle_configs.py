"""Soft labels of the network of another bundle: out-of-fold stand-ins and test-time augmentation as for a SAM."""

import json

import pytest
import torch
from monai.networks.nets import UNet
from safetensors.torch import load_file
from torch.nn import functional

from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.distillation import write_soft_labels
from tskd.errors import TskdError
from tskd.networks import BundleTeacher

UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}


@pytest.fixture
def networks() -> list[UNet]:
    """That of the bundle, and one of the same architecture and other weights, trained outside a fold."""
    torch.manual_seed(0)
    return [UNet(**UNET).eval(), UNet(**UNET).eval()]


@pytest.fixture
def bundle(networks, tmp_path):
    for folder in ("configs", "models"):
        (tmp_path / "bundle" / folder).mkdir(parents=True)
    (tmp_path / "bundle/configs/inference.json").write_text(json.dumps({"network_def": {"_target_": "UNet", **UNET}}))
    torch.save(networks[0].state_dict(), tmp_path / "bundle/models/model.pt")
    return tmp_path / "bundle"


@pytest.fixture
def square(entries):
    """The entries' images as the teacher sees them, B x 1 x 64 x 64."""
    return torch.stack([PREPROCESSING({"image": entry["image"]})["image"][:, :64] for entry in entries])


@pytest.fixture
def write_bundle(bundle, entries, description, tmp_path):
    def cut(data):
        return {"image": PREPROCESSING(data)["image"][:, :64]}

    def function(**changes) -> None:
        options = {
            "network": BundleTeacher(bundle, 3, 1, 64, pooling=4),
            "teacher": bundle / "models/model.pt",
            "embedding": False,
        }
        write_soft_labels(
            entries=entries,
            output_dir=tmp_path / "soft",
            description=description,
            **{**options, "preprocessing": cut, **changes},
        )

    return function


def stored(tmp_path, case: int) -> torch.Tensor:
    return load_file(tmp_path / "soft" / f"case_{case}.safetensors")["logits"].float()


@pytest.mark.parametrize("wrapped", [False, True])
@torch.no_grad()
def test_fold_models(write_bundle, networks, square, tmp_path, wrapped):
    state = networks[1].state_dict()
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "fold.pt")
    write_bundle(fold_models=[tmp_path / "fold.pt"], case_folds={"case_1": 0})
    for case in range(5):
        expected = functional.avg_pool2d(networks[int(case == 1)](square[case][None])[0], 4)
        torch.testing.assert_close(stored(tmp_path, case), expected, atol=2e-3, rtol=2e-3)


@torch.no_grad()
def test_other_weights_than_those_of_the_bundle(write_bundle, bundle, networks, square, tmp_path):
    torch.save(networks[1].state_dict(), tmp_path / "other.pt")
    teacher = BundleTeacher(bundle, 3, 1, 64, weights=tmp_path / "other.pt", pooling=4)
    write_bundle(network=teacher, teacher=tmp_path / "other.pt")
    expected = functional.avg_pool2d(networks[1](square[0][None])[0], 4)
    torch.testing.assert_close(stored(tmp_path, 0), expected, atol=2e-3, rtol=2e-3)


def test_an_embedding_that_the_teacher_has_not_is_named(write_bundle):
    with pytest.raises(TskdError, match=r"embedding: expected a teacher that has it, found only logits_low of a"):
        write_bundle(embedding=True)


@torch.no_grad()
def test_test_time_augmentation(write_bundle, networks, square, tmp_path):
    write_bundle(tta={"flips": [1], "scales": [0.5]})
    x = square[0][None]
    small = functional.interpolate(x, size=(32, 32), mode="bilinear", antialias=True)
    views = []
    for image in (x, small):
        for axes in ([], [3]):
            logits = functional.avg_pool2d(networks[0](image.flip(axes)), 4).flip(axes)
            views.append(functional.interpolate(logits, size=(16, 16), mode="bilinear", antialias=True))
    torch.testing.assert_close(stored(tmp_path, 0), torch.stack(views).mean(0)[0], atol=2e-3, rtol=2e-3)


def test_fold_models_of_another_network_are_named(write_bundle, tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "fold.pt")
    with pytest.raises(TskdError, match=r"fold\.pt does not fit the network .*missing model\.0\."):
        write_bundle(fold_models=[tmp_path / "fold.pt"], case_folds={"case_1": 0})
