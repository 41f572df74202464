"""Predict masks with the bundle's own transforms, inferer and network, as `monai.bundle run` would."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from tskd.networks.bundle_imports import bundle_imports
from tskd.predict.shipped_bundle import ShippedBundle
from tskd.state import load_weights


class TorchBackend:
    """Backend of PyTorch: a bundle's inference.json without its reading and writing of files.

    Args:
        bundle: the shipped bundle.
        device: of the network; CUDA where there is one if None.
        batch_size: slices of a volume in one call.

    Raises:
        TskdError: the weights do not fit the network, which is checked strictly.
    """

    def __init__(self, bundle: ShippedBundle, device: str | None = None, batch_size: int = 8) -> None:
        parser = ConfigParser()
        parser.read_config(str(bundle.root / "configs" / "inference.json"))
        parser["bundle_root"], parser["batch_size"] = str(bundle.root), batch_size
        if device is not None:
            parser["device"] = f"$torch.device('{device}')"
        logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
        with bundle_imports(bundle.root), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's image readers tell of decoders that are not used here
            self.device = parser.get_parsed_content("device")
            self.network = load_weights(parser.get_parsed_content("network_def"), bundle.model).to(self.device).eval()
            self.inferer = parser.get_parsed_content("inferer")
            self.before = _without_loading(parser.get_parsed_content("preprocessing").transforms)
            after = parser.get_parsed_content("postprocessing").transforms
        self.after = [step for step in after if type(step).__name__ != "SaveImaged"]

    def mask(self, array: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
        """Return class indices of a volume [X, Y, Z] with affine, or of a picture [rows, columns(, 3)] without one."""
        picture = affine is None
        channels = np.atleast_3d(array).transpose(2, 1, 0) if picture else array[None]
        image = torch.from_numpy(np.ascontiguousarray(channels, np.float32))
        item: dict[str, Any] = {"image": MetaTensor(image, torch.eye(4) if picture else torch.as_tensor(affine))}
        for step in self.before:
            item = step(item)
        with torch.inference_mode():
            item["pred"] = self.inferer(item["image"][None].to(self.device), self.network)[0].cpu()
        for step in self.after:
            item = step(item)
        mask = np.asarray(item["pred"]).astype(np.uint8)
        mask = mask.reshape(channels.shape[1:])
        return mask.T if picture else mask


def _without_loading(transforms: tuple[Any, ...]) -> list[Any]:
    """Return the transforms that follow the reading of the file, which is an array by then."""
    return [step for step in transforms if type(step).__name__ not in ("LoadImaged", "EnsureChannelFirstd")]
