"""FlexibleUNet with ImageNet's weights: MONAI's encoder, and the same features from images in [0, 1]."""

import re
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from monai.networks.nets import EfficientNetBN, FlexibleUNet
from torch import Tensor

from tskd.errors import TskdError
from tskd.networks import flexible_weights, load_flexible_encoder

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def unet(channels: int) -> FlexibleUNet:
    torch.manual_seed(5)
    return FlexibleUNet(channels, 2, "efficientnet-b0", pretrained=False, spatial_dims=2)


def published() -> tuple[EfficientNetBN, dict[str, Tensor]]:
    """A classifier with random weights and statistics, and its file: blocks are numbered through, no counters."""
    torch.manual_seed(3)
    classifier = EfficientNetBN("efficientnet-b0", pretrained=False).eval()
    for name, buffer in classifier.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    state = {re.sub(r"_blocks\.\d+\.", "_blocks.", name): value for name, value in classifier.state_dict().items()}
    return classifier, {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def inner(features: Tensor) -> Tensor:
    """Without the border, where the normalised image is padded with its mean and the other with black."""
    return features[..., 2:-2, 2:-2]


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_the_classifier_on_the_normalised_image(channels: int, tmp_path: Path) -> None:
    classifier, state = published()
    torch.save(state, tmp_path / "b0.pth")
    network = load_flexible_encoder(unet(channels), tmp_path / "b0.pth").eval()
    image = torch.rand(2, channels, 64, 64)
    with torch.no_grad():
        first = network.encoder._bn0(network.encoder._conv_stem(network.encoder._conv_stem_padding(image)))
        normalised = classifier._conv_stem_padding((image.expand(-1, 3, -1, -1) - MEAN) / STD)
        expected = classifier._bn0(classifier._conv_stem(normalised))
    torch.testing.assert_close(inner(first), inner(expected), atol=1e-4, rtol=1e-4)
    weights = classifier.state_dict()
    for name, value in network.encoder.state_dict().items():
        if not name.startswith(("_conv_stem", "_bn0.running_mean")):
            assert torch.equal(value, weights[name]), name
    assert torch.equal(network.decoder.state_dict().popitem()[1], unet(channels).decoder.state_dict().popitem()[1])


def test_random_or_a_student_to_begin_with_reads_nothing() -> None:
    random = unet(1).state_dict()
    for options in ({}, {"weights": "nowhere.pth", "init_weights": "student.pt"}):
        network = load_flexible_encoder(unet(1), **options)
        assert all(torch.equal(value, random[name]) for name, value in network.state_dict().items())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    _, state = published()
    del state["_blocks.3._bn1.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "b0.pth")
    with pytest.raises(TskdError, match=r"missing _blocks\.2\.3\._bn1\.bias; unexpected extra"):
        load_flexible_encoder(unet(3), tmp_path / "b0.pth")
    with pytest.raises(TskdError, match=r"expected a FlexibleUNet with one of efficientnet-b0, .*, found Linear"):
        load_flexible_encoder(torch.nn.Linear(1, 1), "imagenet")


def test_they_are_downloaded_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a server on this machine: the file's name holds the start of its checksum, as torch's hub has it."""
    classifier, state = published()
    served = tmp_path / "served"
    served.mkdir()
    torch.save(state, served / "draft.pth")
    digest = sha256((served / "draft.pth").read_bytes()).hexdigest()
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, directory=str(served), **options)

        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/b0-{{}}.pth"
        (served / "draft.pth").rename(served / f"b0-{digest[:8]}.pth")
        monkeypatch.setitem(flexible_weights.url_map, "efficientnet-b0", address.format(digest[:8]))
        for _ in range(2):
            network = load_flexible_encoder(unet(3), "imagenet")
            assert torch.equal(network.encoder._bn1.weight, classifier._bn1.weight)
        assert len(asked) == 1
        (served / f"b0-{digest[:8]}.pth").rename(served / "b0-00000000.pth")
        monkeypatch.setitem(flexible_weights.url_map, "efficientnet-b0", address.format("00000000"))
        with pytest.raises(TskdError, match=r"expected to download .*b0-00000000\.pth, found: invalid hash"):
            load_flexible_encoder(unet(3), "imagenet")
        server.shutdown()
    monkeypatch.setitem(flexible_weights.url_map, "efficientnet-b0", address.format("11111111"))
    with pytest.raises(TskdError, match=r"put it into .*checkpoints, or give its path"):
        load_flexible_encoder(unet(3), "imagenet")
