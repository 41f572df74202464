"""Averaging over mirrored and resized images."""

import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.tskd.small_sam import fresh
from tskd.distillation import preset_augmentation, trained_flips
from tskd.distillation.soft_labels.predict import Predictions
from tskd.distillation.soft_labels.tta import with_tta
from tskd.errors import TskdError


class Equivariant(nn.Module):
    """Commutes with flips: means of 4 x 4 pixels, and those of 16 x 16 as the embedding."""

    stride, any_size, image_size = 16, True, 64

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        embedding = functional.avg_pool2d(x, 16)
        return {
            "logits_low": torch.cat([functional.avg_pool2d(x, 4), -functional.avg_pool2d(x, 4)], 1),
            "embedding": embedding,
        }


class Slanted(Equivariant):
    """Adds to each logit its place along x (dimension 2), so that the mean over a flip along x is known."""

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        features = super().forward_features(x)
        ramp = torch.arange(features["logits_low"].shape[2]).float()[:, None]
        return {**features, "logits_low": features["logits_low"] + ramp}


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("flips", [[0], [1], [0, 1]])
def test_an_equivariant_network_is_unchanged(flips, image):
    network = Equivariant()
    averaged, plain = with_tta(network, 64, {"flips": flips}).forward_features(image), network.forward_features(image)
    torch.testing.assert_close(averaged, plain, atol=1e-6, rtol=0)


def test_logits_are_averaged_where_they_belong(image):
    averaged = with_tta(Slanted(), 64, {"flips": [0]}).forward_features(image)["logits_low"]
    expected = Equivariant().forward_features(image)["logits_low"] + 7.5  # the mean of 0 .. 15 and 15 .. 0
    torch.testing.assert_close(averaged, expected, atol=1e-5, rtol=0)


def test_scales_are_averaged_at_the_plain_resolution():
    flat = torch.rand(2, 1, 1, 1).expand(2, 1, 64, 64)  # the same at every scale
    averaged = with_tta(Equivariant(), 64, {"scales": [0.5, 1.0, 1.5], "flips": [1]}).forward_features(flat)
    torch.testing.assert_close(averaged, Equivariant().forward_features(flat), atol=1e-6, rtol=0)


@pytest.mark.parametrize("vfm", ["sam_vit_b", "mobile_sam"])
@torch.no_grad()
def test_a_scale_is_the_network_at_that_size(vfm, image):
    """Also for a ViT, which takes one size only and is given resized positions."""
    network = fresh(vfm).eval()
    averaged = with_tta(network, 64, {"scales": [0.75]})
    small = functional.interpolate(image, size=(48, 48), mode="bilinear", antialias=True)
    other = averaged.resized["48"].forward_features(small)["logits_low"]
    assert other.shape[2:] == (12, 12)
    plain = network.forward_features(image)
    expected = (plain["logits_low"] + functional.interpolate(other, size=(16, 16), mode="bilinear", antialias=True)) / 2
    found = averaged.forward_features(image)
    torch.testing.assert_close(found["logits_low"], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found["embedding"], plain["embedding"])


@pytest.mark.parametrize(
    ("modality", "changes", "expected"),
    [
        ("MR", {}, None),
        ("ultrasound", {}, None),
        ("ultrasound", {"flip": 0.5}, {"flips": [0]}),
        ("dermoscopy", {}, {"flips": [0, 1]}),
        ("dermoscopy", {"flip": 0}, {"flips": [1]}),
    ],
)
def test_mirrored_as_in_training(modality, changes, expected, tmp_path):
    assert trained_flips(preset_augmentation(modality, **changes), tmp_path) == expected


@pytest.mark.parametrize("begun", [None, {"flips": [1], "scales": [1.25]}])
def test_a_folder_that_is_begun_keeps_its_views(begun, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"tta": begun, "cases": {}}))
    assert trained_flips(preset_augmentation("dermoscopy"), tmp_path) == begun


def test_off_is_the_network_itself():
    network = Equivariant()
    assert with_tta(network, 64, None) is network


@pytest.mark.parametrize(("keys", "shown"), [(("embedding",), 1), (("logits", "embedding"), 3)])
def test_no_view_is_shown_for_an_embedding_alone(keys, shown, image):
    class Counted(Equivariant):
        def forward_features(self, x: Tensor) -> dict[str, Tensor]:
            calls.append(x)
            return super().forward_features(x)

    calls: list[Tensor] = []
    network = Counted()
    predictions = Predictions(network, "model.pt", lambda data: {"image": image[0]}, tta={"flips": [0, 1]}, keys=keys)
    ((names, arrays),) = predictions([{"case": "case_0", "image": "image.png"}])
    assert (names, len(calls), arrays[0]["embedding"].shape) == (["case_0"], shown, (1, 4, 4))


@pytest.mark.parametrize(
    ("tta", "message"),
    [
        ({"flip": [0]}, "expected flips and scales, found flip"),
        ({"flips": [2]}, r"found flips \[2\]"),
        ({"scales": [0.0]}, r"scales \[0.0\]"),
    ],
)
def test_wrong_options(tta, message):
    with pytest.raises(TskdError, match=message):
        with_tta(Equivariant(), 64, tta)
