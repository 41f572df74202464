"""Masked autoencoder around the student's encoder."""

import pytest
import torch
from monai.networks.nets import SegResNet, ViT

from tskd.errors import TskdError
from tskd.pretraining import MaskedAutoencoder, MaskedPatchLoss
from tskd.pretraining.masked_autoencoder import to_patches

SMALL = {"hidden_size": 24, "num_layers": 1, "num_heads": 3}


def autoencoder(student, masking_ratio: float = 0.5) -> MaskedAutoencoder:
    return MaskedAutoencoder(student.vit, (32, 48), masking_ratio, **SMALL)


@torch.no_grad()
def test_with_nothing_masked_it_is_the_students_encoder(student):
    image = torch.rand(2, 1, 32, 48)
    features, visible = autoencoder(student, 0.0).eval().encode(image)
    assert torch.equal(visible, torch.arange(6).expand(2, 6))
    torch.testing.assert_close(features, student.vit(image)[0])


def test_hidden_patches_do_not_reach_the_encoder(student):
    network, image, noise = autoencoder(student).eval(), torch.rand(2, 1, 32, 48), torch.rand(2, 1, 32, 48)
    torch.manual_seed(1)
    first = network(image)
    assert torch.equal(first["mask"].sum(1), torch.full((2,), 3.0))
    hidden = first["mask"].reshape(2, 1, 2, 3).repeat_interleave(16, 2).repeat_interleave(16, 3)
    torch.manual_seed(1)
    second = network(torch.where(hidden.bool(), noise, image))
    assert torch.equal(first["patches"], second["patches"])
    torch.manual_seed(1)
    third = network(torch.where(hidden.bool(), image, noise))
    assert not torch.equal(first["patches"], third["patches"])


def test_every_item_has_its_own_mask(student):
    torch.manual_seed(0)
    mask = autoencoder(student)(torch.rand(20, 1, 32, 48))["mask"]
    assert len(mask.unique(dim=0)) > 5
    assert (mask.mean(0) > 0).all()


def test_patches_are_those_of_the_patch_convolution(student):
    """A linear layer with the convolution's weights, on the patches, gives the convolution's output."""
    image, convolution = torch.rand(2, 1, 32, 48), student.vit.patch_embedding.patch_embeddings
    tokens = to_patches(image, 16) @ convolution.weight.flatten(1).T + convolution.bias
    torch.testing.assert_close(tokens, convolution(image).flatten(2).transpose(1, 2))


def test_loss_counts_hidden_patches_only():
    image = torch.rand(2, 3, 32, 48)
    mask = torch.tensor([[1.0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    patches = to_patches(image, 16)
    perfect = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    loss = MaskedPatchLoss(16)
    assert loss({"patches": perfect, "mask": mask}, image) < 1e-9
    elsewhere = perfect + (1 - mask)[..., None] * torch.randn_like(perfect)
    assert loss({"patches": elsewhere, "mask": mask}, image) < 1e-9
    wrong = perfect + 2 * mask[..., None]
    torch.testing.assert_close(loss({"patches": wrong, "mask": mask}, image), torch.tensor(4.0))
    torch.testing.assert_close(
        loss({"patches": 0 * perfect, "mask": mask}, image), torch.tensor(767 / 768), rtol=1e-3, atol=0
    )


def test_loss_does_not_see_brightness_and_contrast_of_a_patch():
    image = torch.rand(1, 1, 32, 48)
    outputs = {"patches": torch.randn(1, 6, 256), "mask": torch.ones(1, 6)}
    loss = MaskedPatchLoss(16)
    torch.testing.assert_close(loss(outputs, image), loss(outputs, 0.5 * image + 0.2), rtol=1e-3, atol=0)


def test_learns_and_the_gradient_reaches_the_encoder(student):
    network, loss, image = autoencoder(student), MaskedPatchLoss(16), torch.rand(4, 1, 2, 3)
    image = torch.nn.functional.interpolate(image, size=(32, 48), mode="bilinear")  # smooth: can be guessed
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(network(image), image)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    untrained = {name for name, value in student.vit.named_parameters() if value.grad is None or not value.grad.any()}
    assert untrained <= {name for name, _ in student.vit.named_parameters() if "norm_cross_attn" in name}  # never run
    after = student.state_dict()  # trained in place
    assert torch.equal(
        after["vit.blocks.0.mlp.linear1.weight"], network.vit.state_dict()["blocks.0.mlp.linear1.weight"]
    )
    assert not torch.equal(before["vit.blocks.0.mlp.linear1.weight"], after["vit.blocks.0.mlp.linear1.weight"])
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("vit."))


def test_what_does_not_fit_is_refused(student):
    with pytest.raises(TskdError, match=r"image of 6 patches, found 0\.5 and 4 x 3 patches \(image_size \[64, 48\]\)"):
        MaskedAutoencoder(student.vit, (64, 48), 0.5, **SMALL)
    with pytest.raises(TskdError, match=r"found 1\.0 and 2 x 3 patches"):
        autoencoder(student, 1.0)
    with pytest.raises(TskdError, match="found SegResNet"):
        MaskedAutoencoder(SegResNet(spatial_dims=2), (32, 48), **SMALL)
    with pytest.raises(TskdError, match="without class token"):
        MaskedAutoencoder(ViT(1, 32, 16, 24, 32, 1, 3, spatial_dims=2, classification=True), (32, 32), **SMALL)
