"""Names, sizes and settings of the networks that can be built."""

import pytest
import torch

from tskd.errors import TskdError
from tskd.networks import VFMS, build_sam

# Parameters of the published models' image encoders, in millions
ENCODERS = {
    "sam_vit_b": 89.7,
    "sam_vit_l": 308.3,
    "sam_vit_h": 637.0,
    "medsam_vit_b": 89.7,
    "mobile_sam": 5.74,
    "lite_medsam": 5.73,
}


@pytest.mark.parametrize("vfm", VFMS)
def test_every_model_has_its_published_size(vfm):
    with torch.device("meta"):
        network = build_sam(vfm, 5, 1024)
    count = sum(parameter.numel() for parameter in network.image_encoder.parameters()) / 1e6
    assert count == pytest.approx(ENCODERS[vfm], abs=0.05)
    assert network.num_classes == len(network.mask_decoder.mask_tokens.weight) == 5
    assert (network.vfm, network.image_size) == (vfm, 1024)


def test_normalisation_is_the_pretrained_models():
    mobile, lite = build_sam("mobile_sam", 2, 64), build_sam("lite_medsam", 2, 64)
    torch.testing.assert_close(mobile.pixel_mean.flatten() * 255, torch.tensor([123.675, 116.28, 103.53]))
    torch.testing.assert_close(mobile.pixel_std.flatten() * 255, torch.tensor([58.395, 57.12, 57.375]))
    assert torch.equal(lite._normalise(torch.full((1, 1, 2, 2), 0.3)), torch.full((1, 3, 2, 2), 0.3))


def test_gradient_checkpointing_is_a_setting(tiny):
    assert build_sam("mobile_sam", 2, 64, gradient_checkpointing=True).image_encoder.gradient_checkpointing
    vit = build_sam("sam_vit_b", 2, 64, config=tiny, gradient_checkpointing=True)
    assert all(layer.gradient_checkpointing for layer in vit.image_encoder.layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sam_vit_x", 2, 64), "unknown foundation model vfm='sam_vit_x'; choose one of sam_vit_b, "),
        (("mobile_sam", 1, 64), "num_classes must be at least 2 .* found 1"),
        (
            ("mobile_sam", 2, 100),
            "mobile_sam: the image size must be a multiple of the encoder's stride 16, found 100 x 100",
        ),
        (("sam_vit_b", 2, 8), "sam_vit_b: .* stride 16, found 8 x 8; choose image_size=16"),
        (("mobile_sam", 2, 0), "mobile_sam: .* stride 16, found 0 x 0"),
        (("lite_medsam", 2, 66), "lite_medsam: .* stride 4, found 66 x 66"),
        (("mobile_sam", 2, 64, {"hidden_size": 32}), "mobile_sam has no settings to change"),
        (("sam_vit_b", 2, 64, {"hiden_size": 32}), "SamVisionConfig has not: hiden_size"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(TskdError, match=message):
        build_sam(*arguments)
