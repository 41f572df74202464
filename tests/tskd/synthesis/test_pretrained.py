"""A pretrained pipeline is taken over exactly, fitted to other channels, adapted, and shipped as a stock pipeline."""

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from safetensors.torch import load_file, save_file

from tskd.errors import TskdError
from tskd.synthesis import DiffusionUNet, export_model, initial_network, label_classes, load_network

SCHEDULER = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
TIMES = torch.tensor([10, 900])


@pytest.fixture
def pretrained(make_network, tmp_path):
    """A function (channels) -> folder of a pipeline with other weights than `make_network` gives."""

    def pretrained(channels=1):
        network = make_network(channels=channels)
        for parameter in network.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        return export_model(network, SCHEDULER, tmp_path / f"pretrained_{channels}")

    return pretrained


def wider(network: DiffusionUNet, classes: int) -> DiffusionUNet:
    """The network of a config with label maps."""
    unet = type(network.unet).from_config({**network.unet.config, "in_channels": 1 + classes})
    return DiffusionUNet(unet)


def test_without_a_pipeline_the_network_is_the_configs(make_network):
    network = make_network()
    assert initial_network(network, SCHEDULER) is network
    with pytest.raises(TskdError, match="lora_rank: expected None"):
        initial_network(network, SCHEDULER, lora_rank=4)


def test_all_weights_and_the_configs_image_size_are_taken(make_network, pretrained):
    folder = pretrained()
    network = initial_network(make_network(size=32), SCHEDULER, folder)
    assert network.unet.config["sample_size"] == 32
    assert all(parameter.requires_grad for parameter in network.parameters())
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(network.eval()(images, TIMES), load_network(folder)(images, TIMES))


def test_a_colour_pipeline_treats_grey_as_equal_colours(make_network, pretrained):
    folder, images = pretrained(3), torch.randn(2, 1, 16, 16)
    network = initial_network(make_network(channels=1), SCHEDULER, folder).eval()
    expected = load_network(folder)(images.expand(-1, 3, -1, -1), TIMES).mean(1, keepdim=True)
    torch.testing.assert_close(network(images, TIMES), expected, atol=1e-5, rtol=0)


def test_a_grey_pipeline_gives_equal_colours(make_network, pretrained):
    folder, images = pretrained(1), torch.randn(2, 1, 16, 16)
    network = initial_network(make_network(channels=3), SCHEDULER, folder).eval()
    expected = load_network(folder)(images, TIMES).expand(-1, 3, -1, -1)
    torch.testing.assert_close(network(images.expand(-1, 3, -1, -1), TIMES), expected, atol=1e-5, rtol=0)


def test_label_maps_begin_without_effect(make_network, pretrained):
    folder, images = pretrained(), torch.randn(2, 1, 16, 16)
    network = initial_network(wider(make_network(), 4), SCHEDULER, folder).eval()
    assert label_classes(network) == 4
    expected = load_network(folder)(images, TIMES)
    torch.testing.assert_close(network(torch.cat([images, torch.rand(2, 4, 16, 16)], 1), TIMES), expected)


@pytest.mark.parametrize("classes", [0, 4])
def test_lora_starts_equal_trains_the_attention_and_ships_merged(make_network, pretrained, tmp_path, classes):
    folder, images = pretrained(), torch.randn(2, 1 + classes, 16, 16)
    network = initial_network(wider(make_network(), classes), SCHEDULER, folder, lora_rank=2).eval()
    torch.testing.assert_close(network(images, TIMES), load_network(folder)(images[:, :1], TIMES))
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert all(("lora_" in name and "attentions" in name) or "conv_in" in name for name in trained)
    assert any("conv_in" in name for name in trained) == (classes > 0)

    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the first step moves one of each adapter's two matrices only
        network(images, TIMES).square().mean().backward()
        optimizer.step()
    shipped = load_network(export_model(network, SCHEDULER, tmp_path / "shipped"))
    assert not torch.allclose(shipped(images, TIMES), load_network(folder)(images[:, :1], TIMES), atol=1e-3)
    torch.testing.assert_close(shipped(images, TIMES), network(images, TIMES), atol=1e-4, rtol=1e-4)
    assert set(torch.load(tmp_path / "shipped" / "model.pt", weights_only=True)) == set(shipped.state_dict())
    assert type(DDPMPipeline.from_pretrained(tmp_path / "shipped" / "pipeline").unet) is type(shipped.unet)


def test_another_noise_schedule_is_refused_with_the_keys_to_set(make_network, pretrained):
    with pytest.raises(TskdError, match="--prediction_type v_prediction --beta_schedule squaredcos_cap_v2"):
        initial_network(make_network(), DDPMScheduler(1000), pretrained())


def test_channels_that_cannot_be_fitted_are_refused(make_network, pretrained):
    with pytest.raises(TskdError, match="1 or 3 channels"):
        initial_network(make_network(channels=2), SCHEDULER, pretrained())


def test_a_flat_folder_is_taken_as_the_stock_pipeline_takes_it(make_network, pretrained, tmp_path):
    folder, flat, images = pretrained(), tmp_path / "flat", torch.randn(2, 1, 16, 16)
    flat.mkdir()
    for path in (*folder.glob("*.json"), *folder.glob("unet/*"), *folder.glob("scheduler/*")):
        (flat / path.name).write_bytes(path.read_bytes())
    stock = DDPMPipeline.from_pretrained(flat).unet
    network = initial_network(make_network(), SCHEDULER, flat).eval()
    torch.testing.assert_close(network(images, TIMES), stock(images, TIMES).sample)
    with pytest.raises(TskdError, match="--prediction_type v_prediction"):
        initial_network(make_network(), DDPMScheduler(1000), flat)


def test_weights_that_lack_some_of_the_network_are_refused(make_network, pretrained):
    weights = pretrained() / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if "conv_out" not in name}, weights)
    with pytest.raises(TskdError, match=r"init_from: .* other weights .* missing_keys conv_out"):
        initial_network(make_network(), SCHEDULER, weights.parents[1])


def test_a_folder_without_weights_is_named(make_network, pretrained):
    folder = pretrained()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(TskdError, match=r"init_from: expected .*a UNet2DModel with its weights"):
        initial_network(make_network(), SCHEDULER, folder)
    with pytest.raises(TskdError, match="nowhere"):
        initial_network(make_network(), SCHEDULER, folder.parent / "nowhere")
