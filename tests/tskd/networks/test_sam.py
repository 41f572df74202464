"""The prompt-free SAM computes what stock SAM computes, at any size, and traces exactly."""

import pytest
import torch
from torch import nn
from transformers.models.sam.modeling_sam import SamVisionEncoder

from tskd.errors import TskdError
from tskd.networks import PromptFreeSam, build_sam, load_pretrained


@pytest.fixture(scope="module")
def vit(stock_folder, tiny_sam) -> PromptFreeSam:
    """Ours on the stock model's weights, with as many classes as SAM has mask tokens; MedSAM takes [0, 1] as it is."""
    return load_pretrained(tiny_sam("medsam_vit_b", image_size=128), stock_folder).eval()


@pytest.fixture(scope="module")
def mobile() -> PromptFreeSam:
    torch.manual_seed(0)
    network = build_sam("mobile_sam", 3, 64).eval()
    assert isinstance(network, PromptFreeSam)
    return network


@torch.no_grad()
def test_equals_stock_sam_without_prompts(vit, stock):
    x = torch.rand(2, 3, 128, 128)
    outputs = vit.forward_features(x)
    assert torch.equal(outputs["embedding"], stock.get_image_embeddings(x))
    several = stock(pixel_values=x, multimask_output=True).pred_masks[:, 0]
    single = stock(pixel_values=x, multimask_output=False).pred_masks[:, 0]
    torch.testing.assert_close(outputs["logits_low"], torch.cat([single, several], dim=1), atol=1e-5, rtol=1e-5)
    assert several.std() > 0.01  # not a comparison of zeros


@torch.no_grad()
def test_normalises_like_stock_sam(stock, stock_folder, tiny_sam):
    x = torch.rand(1, 3, 128, 128)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    network = load_pretrained(tiny_sam("sam_vit_b", image_size=128), stock_folder)
    expected = stock.get_image_embeddings((x * 255 - mean) / std)
    torch.testing.assert_close(network.forward_features(x)["embedding"], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_other_sizes_interpolate_positions_as_sam_does(stock, stock_folder, tiny_sam):
    """SAM at another size: absolute positions resized bicubically, relative ones inside `get_rel_pos`."""
    x = torch.rand(1, 3, 64, 64)
    reference = SamVisionEncoder(tiny_sam("medsam_vit_b", image_size=64).image_encoder.config)
    state = dict(stock.vision_encoder.state_dict())
    positions = state["pos_embed"].permute(0, 3, 1, 2)
    state["pos_embed"] = nn.functional.interpolate(positions, (4, 4), mode="bicubic").permute(0, 2, 3, 1)
    for name in ("rel_pos_h", "rel_pos_w"):  # keep the stored length: get_rel_pos resizes it in the forward
        setattr(reference.layers[1].attn, name, nn.Parameter(torch.empty_like(state[f"layers.1.attn.{name}"])))
    reference.load_state_dict(state)
    network = load_pretrained(tiny_sam("medsam_vit_b", image_size=64), stock_folder)
    outputs = network.forward_features(x)["embedding"]
    torch.testing.assert_close(outputs, reference.eval()(x).last_hidden_state, atol=1e-5, rtol=1e-5)
    assert network.image_encoder.layers[1].attn.rel_pos_h.shape == (7, 16)


def test_positions_at_the_stored_size_are_unchanged(vit, stock):
    for name, value in stock.vision_encoder.state_dict().items():
        assert torch.equal(vit.image_encoder.state_dict()[name], value), name


@torch.no_grad()
def test_grey_is_three_equal_channels(mobile):
    x = torch.rand(2, 1, 64, 64)
    assert torch.equal(mobile(x), mobile(x.repeat(1, 3, 1, 1)))


@torch.no_grad()
def test_shapes_and_upsampling(mobile):
    x = torch.rand(2, 1, 64, 96)
    out = mobile.forward_features(x)
    assert out["embedding"].shape == (2, 256, 4, 6)
    assert out["logits_low"].shape == (2, 3, 16, 24)
    expected = nn.functional.interpolate(out["logits_low"], (64, 96), mode="bilinear", align_corners=False)
    assert torch.equal(mobile(x), expected)


@torch.no_grad()
def test_lite_medsam_is_at_full_resolution_already():
    network, x = build_sam("lite_medsam", 3, 32), torch.rand(1, 1, 32, 32)
    out = network.forward_features(x)
    assert out["embedding"].shape == (1, 256, 8, 8)
    assert torch.equal(network(x), out["logits_low"])
    assert network(x).shape == (1, 3, 32, 32)


@torch.no_grad()
def test_items_of_a_batch_do_not_mix(mobile):
    x = torch.rand(3, 1, 64, 64)
    torch.testing.assert_close(mobile(x)[1:2], mobile(x[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["vit", "mobile"])
@torch.no_grad()
def test_trace_is_exact(name, request):
    network = request.getfixturevalue(name)
    size = network.image_size
    traced = torch.jit.trace(network, torch.rand(1, 1, size, size), check_trace=True)
    x = torch.rand(1, 1, size, size)
    assert torch.equal(traced(x), network(x))


@pytest.mark.parametrize("name", ["vit", "mobile"])
def test_every_trainable_parameter_gets_a_gradient(name, request):
    network = request.getfixturevalue(name)
    network(torch.rand(1, 1, network.image_size, network.image_size)).square().mean().backward()
    trainable = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    reached = {key for key, parameter in network.named_parameters() if parameter.grad is not None}
    network.zero_grad(set_to_none=True)
    assert trainable == reached  # DistributedDataParallel stops at a parameter without a gradient
    frozen = {key for key, _ in network.named_parameters()} - trainable
    assert frozen
    assert all(key.startswith("mask_decoder.iou_prediction_head.") for key in frozen)


def test_vit_gradient_checkpointing_changes_no_gradient(vit):
    x, gradients = torch.rand(1, 1, 128, 128), []
    vit.train()
    for enabled in (False, True):
        vit.set_gradient_checkpointing(enabled)
        vit.zero_grad(set_to_none=True)
        vit(x).square().mean().backward()
        gradients.append(vit.image_encoder.layers[0].attn.qkv.weight.grad.clone())
    vit.set_gradient_checkpointing(False)
    vit.zero_grad(set_to_none=True)
    vit.eval()
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_positions_keep_single_precision_under_autocast(mobile):
    exact = mobile._positional_grid(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mobile._positional_grid(8, 8), exact)
        assert torch.isfinite(mobile(torch.rand(1, 1, 64, 64))).all()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mobile", (1, 1, 64, 72), "multiple of the encoder's stride 16, found 64 x 72"),
        ("vit", (1, 1, 64, 64), "built for images of 128 x 128, found 64 x 64"),
        ("mobile", (1, 2, 64, 64), r"B x 1 x H x W or B x 3 x H x W, found \(1, 2, 64, 64\)"),
    ],
)
def test_wrong_inputs(name, shape, message, request):
    with pytest.raises(TskdError, match=message):
        request.getfixturevalue(name)(torch.rand(*shape))


@torch.no_grad()
def test_high_res_features_start_as_the_upsampled_answer_and_are_of_the_images_size():
    torch.manual_seed(0)
    plain, fine = build_sam("mobile_sam", 3, 64), build_sam("mobile_sam", 3, 64, high_res_features=True)
    missing, unexpected = fine.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"high_res"}
    x = torch.rand(2, 1, 64, 96)
    low = plain.eval().forward_features(x)["logits_low"]
    outputs = fine.eval().forward_features(x)["logits_low"]
    assert low.shape == (2, 3, 16, 24)
    assert outputs.shape == (2, 3, 64, 96)
    torch.testing.assert_close(outputs, nn.functional.interpolate(low, (64, 96), mode="bilinear"), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fine(x, low_resolution=True), outputs)


def test_high_res_features_see_the_pixels_that_a_quarter_of_the_side_averages_away():
    """Two images that differ by a stripe of alternating pixels: their answers differ at pixels, not in blocks of 4."""
    torch.manual_seed(0)
    network = build_sam("mobile_sam", 2, 64, high_res_features=True)
    network.requires_grad_(False).high_res.requires_grad_(True)
    x = torch.zeros(1, 1, 64, 64)
    x[..., 32, ::2] = 1
    label = x[:, 0].long()
    optimizer = torch.optim.Adam(network.high_res.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), label, torch.tensor([1.0, 30.0])).backward()
        optimizer.step()
    assert torch.equal(network(x).argmax(1), label)


@pytest.mark.parametrize("vfm", ["lite_medsam", "sam2_hiera_tiny"])
def test_high_res_features_are_refused_where_they_have_no_place(vfm):
    with pytest.raises(TskdError, match="high_res_features: expected false with vfm='" + vfm):
        build_sam(vfm, 2, 64, high_res_features=True)
