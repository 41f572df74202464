"""Read a shipped bundle's settings from its JSON files, without MONAI."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd.errors import TskdError


@dataclass(frozen=True)
class ShippedBundle:
    """Settings of a shipped bundle.

    Args:
        root: the bundle's folder.
        name: what metadata.json calls it.
        version: of the bundle.
        labels: class index -> name, background included.
        channels: of the images, 1 (grey) or 3 (RGB); `input_shape` has those of the network.
        pictures: whether it takes 2-D images; else volumes.
        image_size: side in pixels of what the network sees.
        config: inference.json as it is.
        exported: file, such as "models/model.onnx" -> sha256 that `tskd export` noted in metadata.json.
    """

    root: Path
    name: str
    version: str
    labels: dict[int, str]
    channels: int
    pictures: bool
    image_size: int
    config: dict[str, Any]
    exported: Mapping[str, str] = field(default_factory=dict)

    @property
    def structures(self) -> dict[int, str]:
        """Class index -> name without the background."""
        return {index: name for index, name in self.labels.items() if index}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return what the network takes as `input_shape` does."""
        return input_shape(self.config)

    @property
    def neighbours(self) -> int:
        """Slices on each side that the network sees as further channels (2.5-D)."""
        return int(self.config.get("neighbour_slices", 0))

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Voxels that a 3-D network sees at once; empty for one that sees slices."""
        return tuple(self.config.get("patch_size", ()))

    @property
    def model(self) -> Path:
        """The weights."""
        return self.root / "models" / "model.pt"

    def resolve(self, value: Any) -> Any:
        """Return a value of inference.json with "@key" replaced by the value of that key, in lists, too."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if isinstance(value, str) and value.startswith("@") and value[1:] in self.config:
            return self.resolve(self.config[value[1:]])
        return value

    def transforms(self, chain: str) -> list[dict[str, Any]]:
        """Return the transforms of "preprocessing" or "postprocessing", as configurations with values filled in."""
        try:
            steps = [self.resolve(item) for item in self.config[chain]["transforms"]]
            return [{key: self.resolve(value) for key, value in step.items()} for step in steps]
        except (KeyError, TypeError, AttributeError) as error:
            raise TskdError(
                f"{self.root}/configs/inference.json: expected a list of transforms under {chain}, found none "
                f"({error!r}). Ship the run again."
            ) from error


def input_shape(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return what the network of an inference.json takes: channels, then pixels or voxels along each axis."""
    spatial = config.get("patch_size", [config["image_size"]] * 2)
    return (int(config.get("network_channels", config["in_channels"])), *map(int, spatial))


def read_bundle(folder: str | os.PathLike[str]) -> ShippedBundle:
    """Read a shipped bundle's inference.json and metadata.json.

    Raises:
        TskdError: files or keys that a shipped bundle has are not there.
    """
    root = Path(folder)
    config, metadata = (_json(root / "configs" / name) for name in ("inference.json", "metadata.json"))
    try:
        tensors = metadata["network_data_format"]
        names = tensors["outputs"]["pred"]["channel_def"]
        return ShippedBundle(
            root=root,
            name=metadata.get("name", root.name),
            version=metadata.get("version", "unknown"),
            labels={int(index): str(name) for index, name in names.items()},
            channels=int(config["in_channels"]),
            pictures=metadata.get("data_type", "nifti") == "png",
            image_size=int(config["image_size"]),
            config=config,
            exported={name: entry["sha256"] for name, entry in metadata.get("exported", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TskdError(
            f"{root}: expected a student's bundle as `tskd ship` writes it, found inference.json and metadata.json "
            f"without {error}. Ship the run again."
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TskdError(
            f"{path}: expected a shipped bundle, found no such file. Give the folder that `tskd ship` wrote."
        ) from error
    except ValueError as error:
        raise TskdError(f"{path}: expected JSON, found {error}. Ship the run again.") from error
