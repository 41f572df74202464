"""A ViT at another size is what loading its weights at that size gives."""

import pytest
import torch

from tests.tskd.small_sam import fresh
from tskd.networks import load_pretrained
from tskd.networks.resize import at_size


@torch.no_grad()
@pytest.mark.parametrize("size", [48, 96])
def test_equals_loading_at_that_size(size, stock_folder, tiny_sam):
    network = load_pretrained(tiny_sam(image_size=128), stock_folder).eval()
    expected = load_pretrained(tiny_sam(image_size=size), stock_folder).eval()
    x = torch.rand(1, 1, size, size)
    resized = at_size(network, size)
    assert torch.equal(resized(x), expected(x))
    assert resized.mask_decoder is not network.mask_decoder
    assert network.image_size == 128
    assert network(torch.rand(1, 1, 128, 128)).shape == (1, 4, 128, 128)


def test_what_needs_no_change_is_returned(tiny_sam):
    vit, tiny_vit = tiny_sam(image_size=64), fresh("mobile_sam")
    assert at_size(vit, 64) is vit
    assert at_size(tiny_vit, 96) is tiny_vit
