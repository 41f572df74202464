"""Merge adapters into the fine-tuned image encoder, and write it in the layout of the encoder's own project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tskd.errors import TskdError
from tskd.files import atomic
from tskd.lora import load_adapter
from tskd.networks import Teacher, build_sam, load_pretrained, pretrained_file, read_checkpoint
from tskd.networks.qkv import fuse_qkv
from tskd.state import load_weights

PREFIX = "image_encoder."
HEAD = ("norm_head.", "head.")  # ImageNet classes of a published TinyViT; no part of the embedding


def merge_run(run: str | Path, output: str | Path, model: str | Path | None = None) -> Path:
    """Write the encoder of the network that a training exported.

    Args:
        run: the training's output_dir, with versions.json.
        output: file to write, `.safetensors`.
        model: the run's model.pt; None for `run`/models/model.pt.

    Raises:
        TskdError: when there is no such run, or its weights do not fit its settings.
    """
    settings = _run_settings(Path(run))
    high_res = bool(settings.get("network_def#high_res_features"))
    network = build_sam(settings["vfm"], settings["num_classes"], settings["image_size"], high_res_features=high_res)
    load_weights(network, model or Path(run) / "models" / "model.pt")
    return _write(encoder_state(network), network, output)


def merge_adapter(
    adapter: str | Path, weights: str | Path | None, vfm: str, output: str | Path, image_size: int = 1024
) -> Path:
    """Write the encoder of the foundation model with an adapter merged into it.

    Args:
        adapter: folder in peft's layout, as `train.json` writes it to `models/adapter`.
        weights: the foundation model's weights, as `load_pretrained` takes them; None for their default source.
        vfm: name of the foundation model.
        output: file to write, `.safetensors`.
        image_size: size that the position embeddings are for; at 1024, SAM's own, they are the foundation model's.

    Raises:
        TskdError: as `load_pretrained` and `load_adapter`.
    """
    network = build_sam(vfm, 2, image_size)
    load_pretrained(network, weights)
    head = _imagenet_head(pretrained_file(vfm, weights)) if network.any_size else {}
    return _write({**merged_encoder(network, adapter), **head}, network, output)


def merged_encoder(network: Teacher, adapter: str | Path) -> dict[str, Tensor]:
    """Return stock weights of `network`'s encoder (changed in place) with the adapter merged into them."""
    tuned: Any = load_adapter(network.image_encoder, adapter)
    network.image_encoder = fuse_qkv(tuned.merge_and_unload())  # type: ignore[assignment]
    return encoder_state(network)


def encoder_state(network: Teacher) -> dict[str, Tensor]:
    """Return the state dict of the encoder in the stock architecture.

    For a ViT the keys are those of `transformers.SamModel().vision_encoder`, for a TinyViT those of the `image_encoder`
    of MobileSAM and LiteMedSAM.
    """
    return {name: value.detach().cpu().contiguous() for name, value in network.image_encoder.state_dict().items()}


def _imagenet_head(weights: str | Path) -> dict[str, Tensor]:
    """Return the ImageNet head that the foundation model's file has, so that the published TinyViT loads strictly."""
    names = tuple(PREFIX + name for name in HEAD)
    checkpoint = read_checkpoint(weights)
    return {
        name.removeprefix(PREFIX): value.contiguous() for name, value in checkpoint.items() if name.startswith(names)
    }


def _run_settings(run: Path) -> dict[str, Any]:
    path = run / "versions.json"
    if not path.is_file():
        raise TskdError(f"{path}: expected the file that a training writes, found none. Give the training's output_dir")
    made_with = json.loads(path.read_text())
    settings = {**made_with.get("settings", {}), **made_with.get("network_keys", {})}
    if missing := [key for key in ("vfm", "num_classes", "image_size") if key not in settings]:
        raise TskdError(f"{path}: expected a teacher's settings, found none for {', '.join(missing)}")
    return settings


def _write(state: dict[str, Tensor], network: Teacher, output: str | Path) -> Path:
    output = Path(output)
    if output.suffix != ".safetensors":
        raise TskdError(f"{output}: expected a name that ends in .safetensors")
    with atomic(output) as draft:
        save_file(state, draft, metadata={"vfm": network.vfm, "image_size": str(network.image_size)})
    return output
