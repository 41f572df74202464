"""Predict masks with the bundle's own transforms, inferer and network, as `monai.bundle run` would."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from tskd.errors import TskdError
from tskd.networks.bundle_imports import bundle_imports
from tskd.predict.shipped_bundle import ShippedBundle
from tskd.state import load_weights


class TorchBackend:
    """Backend of PyTorch: a bundle's inference.json without its reading and writing of files.

    Args:
        bundle: the shipped bundle.
        device: of the network; CUDA where there is one if None.
        batch_size: slices of a volume in one call; of a 3-D network those of its patches.

    Raises:
        TskdError: no such device, or the weights do not fit the network, which is checked strictly.
    """

    def __init__(self, bundle: ShippedBundle, device: str | None = None, batch_size: int = 8) -> None:
        if device is not None:
            _check_device(device)
        parser = ConfigParser()
        parser.read_config(str(bundle.root / "configs" / "inference.json"))
        parser["bundle_root"], parser["batch_size"] = str(bundle.root), batch_size
        if device is not None:
            parser["device"] = f"$torch.device('{device}')"
        logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
        with bundle_imports(bundle.root), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's image readers tell of decoders that are not used here
            self.device = parser.get_parsed_content("device")
            self.network = load_weights(parser.get_parsed_content("network"), bundle.model).eval()
            self.inferer = parser.get_parsed_content("inferer")
            self.before = _without_loading(parser.get_parsed_content("preprocessing").transforms)
            after = parser.get_parsed_content("postprocessing").transforms
        self.after = [step for step in after if type(step).__name__ != "SaveImaged"]
        self.batch_size = batch_size
        inferer = bundle.config.get("slice_inferer", bundle.config.get("plain_inferer"))
        target = inferer.get("_target_") if isinstance(inferer, dict) else None
        known = target == "SliceInferer" or (target == "SlidingWindowInferer" and bundle.patch_size)
        self.resizing = _first_per_slice(self.before, self.after) if known else None
        self.whole = bool(bundle.neighbours or bundle.patch_size)  # the network sees more than one slice

    def mask(self, array: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
        """Return class indices of a volume [X, Y, Z] with affine, or of a picture [rows, columns(, 3)] without one."""
        picture = affine is None
        channels = np.atleast_3d(array).transpose(2, 1, 0) if picture else array[None]
        image = torch.from_numpy(np.ascontiguousarray(channels, np.float32))
        item: dict[str, Any] = {"image": MetaTensor(image, torch.eye(4) if picture else torch.as_tensor(affine))}
        item = self._predict(item) if picture or self.resizing is None else self._predict_slices(item, self.resizing)
        mask = np.asarray(item["pred"]).astype(np.uint8)
        mask = mask.reshape(channels.shape[1:])
        return mask.T if picture else mask

    def _predict(self, item: dict[str, Any]) -> dict[str, Any]:
        """Take an image through all steps at once."""
        item = self._infer(_through(self.before, item))
        return _through(self.after, item)

    def _predict_slices(self, item: dict[str, Any], resizing: int) -> dict[str, Any]:
        """Take a volume through the steps, batch by batch of slices between resizing and argmax.

        So the logits of one batch are kept, not those of the volume in float32 at its own size. The mask is the same.
        """
        softmax, invert, argmax, *following = self.after
        item = _through(self.before[:resizing], item)
        image = item["image"]
        mask = torch.empty((1, *image.shape[1:]), dtype=torch.uint8)
        per_slice = [softmax, _inverse_of(self.before[resizing:], invert), argmax]
        parts = self._infer_whole(image, resizing) if self.whole else self._infer_each(image, resizing)
        for start, part in zip(range(0, image.shape[-1], self.batch_size), parts, strict=True):
            mask[..., start : start + self.batch_size] = _through(per_slice, part)["pred"].as_tensor()
        item["pred"] = MetaTensor(mask, image.affine)
        return _through([_inverse_of(self.before[:resizing], invert), *following], item)

    def _resized(self, image: MetaTensor, resizing: int) -> Iterator[dict[str, Any]]:
        """Yield batches of slices as the network sees them."""
        for start in range(0, image.shape[-1], self.batch_size):
            part = MetaTensor(image.as_tensor()[..., start : start + self.batch_size].contiguous(), image.affine)
            yield _through(self.before[resizing:], {"image": part})

    def _infer_each(self, image: MetaTensor, resizing: int) -> Iterator[dict[str, Any]]:
        """Yield batches of slices with their logits."""
        return map(self._infer, self._resized(image, resizing))

    def _infer_whole(self, image: MetaTensor, resizing: int) -> Iterator[dict[str, Any]]:
        """Yield batches of slices with their logits, which depend on other slices, too."""
        parts = list(self._resized(image, resizing))
        volume = torch.cat([part["image"].as_tensor() for part in parts], dim=-1)
        logits = self._infer({"image": volume})["pred"].split(self.batch_size, dim=-1)
        for part, pred in zip(parts, logits, strict=True):
            yield {**part, "pred": MetaTensor(pred, meta=part["image"].meta)}

    def _infer(self, item: dict[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            item["pred"] = self.inferer(item["image"][None].to(self.device), self.network)[0].cpu()
        return item


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a name it does not know, or none here
        said = str(error).splitlines()[0]
        raise TskdError(f"--device: expected a device of PyTorch here, found {device!r} ({said}).") from error


def _through(steps: Sequence[Any], item: dict[str, Any]) -> dict[str, Any]:
    for step in steps:
        item = step(item)
    return item


def _inverse_of(steps: Sequence[Any], invert: Any) -> Any:
    """Return an `Invertd` with the options of another one, of these steps alone."""
    inverse = copy.copy(invert)
    inverse.transform = Compose(steps)
    return inverse


def _first_per_slice(before: Sequence[Any], after: Sequence[Any]) -> int | None:
    """Return the index of the first step from which on each slice is by itself, in the transforms of `tskd ship`.

    None for other transforms: they see the whole volume.
    """
    names = [type(step).__name__ for step in before]
    first = names.index("CopyItemsd") if "CopyItemsd" in names else names.index("Resized") if "Resized" in names else -1
    known = names[first:] in (["CopyItemsd", "Resized", "Lambda", "EnsureTyped"], ["Resized", "EnsureTyped"])
    decided = [type(step).__name__ for step in after[:3]] == ["Activationsd", "Invertd", "AsDiscreted"]
    return first if known and decided else None


def _without_loading(transforms: tuple[Any, ...]) -> list[Any]:
    """Return the transforms that follow the reading of the file, which is an array by then."""
    return [step for step in transforms if type(step).__name__ not in ("LoadImaged", "EnsureChannelFirstd")]
