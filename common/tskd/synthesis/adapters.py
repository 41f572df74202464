"""Adapt MONAI's engines and inferers to diffusers' networks and schedules."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from monai.data import MetaTensor
from monai.engines import DiffusionPrepareBatch, PrepareBatch, VPredictionPrepareBatch

from tskd.errors import TskdError
from tskd.inferers import autocast_dtype

AXES = {"x": -2, "y": -1}  # of arrays that are x first


def to_model_range(image: torch.Tensor) -> torch.Tensor:
    """Scale images from [0, 1], as the project stores them, to the diffusion model's range [-1, 1]."""
    return image * 2 - 1


def from_model_range(image: torch.Tensor) -> torch.Tensor:
    """Scale the diffusion model's images to [0, 1] and clip; inverse of `to_model_range`."""
    return ((image + 1) / 2).clamp(0, 1)


class DiffusionUNet(torch.nn.Module):
    """diffusers' UNet behind the call that MONAI's inferers make: `network(x=, timesteps=, context=)` -> tensor.

    The state dict is that of the UNet under the prefix `unet.`.

    Args:
        unet: network from B x C x X x Y and B timesteps to B x C' x X x Y. C is C' for images alone; what is more are
            the channels of a label map (`one_hot`), one a class, behind those of the image.
        amp_dtype: type of `torch.autocast` around the network, "bfloat16" or None for float32. Only the
            network runs in it: schedule, noise and loss stay in float32.
    """

    def __init__(self, unet: UNet2DModel, amp_dtype: str | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.amp_dtype = autocast_dtype(amp_dtype)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Predict noise (or velocity) in float32.

        Args:
            x: noisy images B x C x X x Y, with their label maps where the network takes one.
            timesteps: B whole numbers, or one for all.
            context: must be None; it is there for MONAI's call.

        Raises:
            TskdError: a context, another number of channels, or a size that the network cannot halve often enough.
        """
        if context is not None:
            raise TskdError("this diffusion model takes no context: expected None, found a tensor. Leave it out.")
        channels, classes = self.unet.config["in_channels"], label_classes(self)
        if x.shape[1] != channels:
            kind = f"{channels - classes} of the image and {classes} of its label map" if classes else "of the image"
            raise TskdError(f"expected {channels} channels ({kind}), found {x.shape[1]} (shape {tuple(x.shape)})")
        factor = 2 ** (len(self.unet.config["block_out_channels"]) - 1)
        if any(side % factor for side in x.shape[2:]):
            raise TskdError(
                f"expected an image size that is a multiple of {factor} (network_def#unet has "
                f"{len(self.unet.config['block_out_channels'])} levels), found {tuple(x.shape[2:])}. Change image_size."
            )
        with torch.autocast(x.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            return self.unet(x, timesteps.to(x.device), return_dict=False)[0].float()


def label_classes(network: Any) -> int:
    """Return the classes of the label map that a `DiffusionUNet` is conditioned on; 0 where it draws images alone."""
    config = getattr(network, "module", network).unet.config
    return config["in_channels"] - config["out_channels"]


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Encode label maps B x 1 x X x Y as B x classes x X x Y of 0 and 1; all 0 where a pixel has no class (255)."""
    indices = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return (labels == indices).float()


def preset_flips(augmentation: Any) -> list[str]:
    """Return the axes along which a student's augmentation mirrors, for `DiffusionBatch`.

    The rest of a preset is left out: a diffusion model would draw its noise, its colours and its bent borders.

    Args:
        augmentation: has the probabilities `flip` (of x) and `flip_y`, as `preset_augmentation` returns it.
    """
    return [axis for axis, probability in (("x", augmentation.flip), ("y", augmentation.flip_y)) if probability > 0]


class DiffusionBatch(PrepareBatch):
    """Make a diffusion training step from a batch of images in [0, 1].

    MONAI's `DiffusionPrepareBatch`, or `VPredictionPrepareBatch` where the schedule's `prediction_type` says so, on
    images in the model's range. The target is paired with the timesteps, which the loss may weigh by.

    Args:
        scheduler: training schedule.
        fixed_seed: None draws noise and timesteps anew each time. A number makes them a function of it and of the
            entry's `case`, so that one validation can be compared with the next.
        flips: axes ("x", "y") along which an image, with its label map, is mirrored half of the time. Only where
            anatomy allows: a mirrored abdomen has its liver on the wrong side.
        label_classes: classes of the label maps under the key `label` that the network is conditioned on, 0 for none.

    Raises:
        TskdError: an unknown axis, or another `prediction_type` of the schedule than epsilon or v_prediction.
    """

    def __init__(
        self,
        scheduler: DDPMScheduler,
        fixed_seed: int | None = None,
        flips: Sequence[str] = (),
        label_classes: int = 0,
    ) -> None:
        if unknown := [axis for axis in flips if axis not in AXES]:
            raise TskdError(f"flips: expected a list of some of {', '.join(AXES)}, found {str(unknown)[1:-1]}")
        steps = scheduler.config["num_train_timesteps"]
        kind = scheduler.config["prediction_type"]
        if kind not in ("epsilon", "v_prediction"):
            raise TskdError(f"prediction_type: expected epsilon or v_prediction, found {kind!r}")
        velocity = kind == "v_prediction"
        schedule: Any = scheduler  # MONAI's type hint asks for its own schedulers
        self.prepare = VPredictionPrepareBatch(schedule, steps) if velocity else DiffusionPrepareBatch(steps)
        self.steps = steps
        self.fixed_seed = fixed_seed
        self.flips = tuple(flips)
        self.label_classes = label_classes

    def __call__(  # type: ignore[override]
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], tuple, dict[str, Any]]:
        """Return images [-1, 1], (target, timesteps), no arguments, and what `DiffusionInferer` wants besides.

        That is {noise, timesteps} and, for label maps, {condition, mode}.
        """
        keys = ("image", "label") if self.label_classes else ("image",)
        values = self._mirror([_plain(batchdata[key]).to(device, non_blocking=non_blocking) for key in keys])
        batch = {"image": to_model_range(values[0].to(dtype=torch.float32))}
        images, target, args, named = self.prepare(batch, device, non_blocking, **kwargs)
        if self.fixed_seed is not None:
            named["noise"], named["timesteps"] = self._fixed(images, batchdata["case"])
            target = self.prepare.get_target(images, named["noise"], named["timesteps"])
        if self.label_classes:
            named["condition"] = one_hot(values[1], self.label_classes)
            named["mode"] = "concat"
        return images, (target, named["timesteps"]), args, named

    def _mirror(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        for name in self.flips:
            chosen = (torch.rand(len(values[0]), device=values[0].device) < 0.5).view(-1, 1, 1, 1)
            values = [torch.where(chosen, value.flip(AXES[name]), value) for value in values]
        return list(values)

    def _fixed(self, images: torch.Tensor, cases: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        noise, timesteps = [], []
        for case in cases:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.fixed_seed}/{case}".encode()))
            timesteps.append(torch.randint(0, self.steps, (), generator=generator))
            noise.append(torch.randn(images.shape[1:], generator=generator))
        return torch.stack(noise).to(images), torch.stack(timesteps).to(images.device)


def _plain(value: torch.Tensor) -> torch.Tensor:
    return value.as_tensor() if isinstance(value, MetaTensor) else value
