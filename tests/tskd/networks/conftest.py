"""Small SAM models: stock `transformers.SamModel` and the settings to build ours alike."""

import pytest
import torch
from transformers import SamConfig, SamModel

from tskd.networks import PromptFreeSam, build_sam

TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_indexes": [1], "window_size": 3,
}  # fmt: skip


def stock_sam(image_size: int) -> SamModel:
    """Stock SAM with random weights everywhere, also in the position embeddings that start at zero."""
    torch.manual_seed(0)
    model = SamModel(
        SamConfig(vision_config={**TINY, "image_size": image_size}, prompt_encoder_config={"image_size": image_size})
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slower on several threads, many times so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def stock() -> SamModel:
    return stock_sam(128)


@pytest.fixture(scope="session")
def stock_folder(stock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    stock.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny() -> dict:
    """SamVisionConfig fields of the small ViT."""
    return TINY


@pytest.fixture(scope="session")
def tiny_sam():
    """Builds ours like the stock model: (vfm, num_classes, image_size, further fields) to a network."""

    def build(vfm: str = "sam_vit_b", num_classes: int = 4, image_size: int = 64, **config) -> PromptFreeSam:
        network = build_sam(vfm, num_classes, image_size, config={**TINY, **config})
        assert isinstance(network, PromptFreeSam)
        return network

    return build
