"""How the intensities of a volume become [0, 1]: said once, in dataset.json, and followed by all that reads volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tskd.data.datalist import read
from tskd.errors import TskdError

KEY = "intensity"  # of dataset.json
KINDS = ("percentiles", "window", "body")
BODY = 0.1  # of the 90th percentile: what is brighter belongs to the body


@dataclass(frozen=True)
class Intensity:
    """A linear scaling of a volume to [0, 1], clipped.

    In dataset.json it is the key `intensity` with one of

    - {"percentiles": [0.5, 99.5]}: from one percentile of the volume to the other (MR, ultrasound; where there is no
      key, it is this);
    - {"window": [-160, 240]}: fixed values, such as Hounsfield units of CT;
    - {"body": [0.5, 4.0]}: from a percentile of the volume to a multiple of the median of the body above that, so that
      one bright lesion does not make all organs dark. The body is what is brighter than a tenth of the 90th percentile.

    Args:
        kind: one of `KINDS`.
        low: what becomes 0.
        high: what becomes 1.

    Raises:
        TskdError: another kind, or numbers that are not in order.
    """

    kind: str = "percentiles"
    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TskdError(f"{KEY}: expected one of {', '.join(KINDS)}, found {self.kind!r}")
        lowest, highest = (-np.inf, np.inf) if self.kind == "window" else (0, 100)
        if not lowest <= self.low < self.high <= highest:
            raise TskdError(f"{KEY}: expected {self.kind} [low, high] in order, found [{self.low}, {self.high}]")

    @classmethod
    def of(cls, dataset_file: str | os.PathLike[str]) -> Intensity:
        """Return the scaling of a dataset.json's volumes; the default where there is no file (MONAI Label trains so).

        Raises:
            TskdError: a key that says something else.
        """
        return cls.from_json(read(dataset_file)) if Path(dataset_file).is_file() else cls()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Intensity:
        """Return the scaling from the content of a dataset.json."""
        if KEY not in data:
            return cls()
        try:
            ((kind, (low, high)),) = data[KEY].items()
            low, high = float(low), float(high)
        except (AttributeError, TypeError, ValueError) as error:
            raise TskdError(
                f"{KEY}: expected one of {', '.join(KINDS)} with its [low, high], found {data[KEY]!r}."
            ) from error
        return cls(kind, low, high)

    def to_json(self) -> dict[str, list[float]]:
        """Return what dataset.json says."""
        return {self.kind: [self.low, self.high]}

    def scale(self, array: np.ndarray) -> np.ndarray:
        """Return a volume as float32 in [0, 1]."""
        low, high = self._limits(array)
        if high <= low:  # almost nothing in the volume: as MONAI's transforms scale it, and clipped
            return np.clip(array.astype(np.float32) - np.float32(low), 0, 1)
        return np.clip((array.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)

    def transform(self, keys: str = "image") -> dict[str, Any]:
        """Return the same as the config of a stock MONAI transform, for bundles."""
        scaled = {"keys": keys, "b_min": 0, "b_max": 1, "clip": True}
        if self.kind == "window":
            return {"_target_": "ScaleIntensityRanged", "a_min": self.low, "a_max": self.high, **scaled}
        if self.kind == "percentiles":
            return {"_target_": "ScaleIntensityRangePercentilesd", "lower": self.low, "upper": self.high, **scaled}
        above = f"(x - monai.transforms.percentile(x, {self.low}))"
        median = f"y[y > {BODY} * monai.transforms.percentile(y, 90)].median()"
        return {
            "_target_": "Lambdad",
            "keys": keys,
            "func": f"$lambda x: (lambda y: (y / ({self.high} * {median})).clamp(0, 1).nan_to_num(0))({above})",
        }

    def _limits(self, array: np.ndarray) -> tuple[float, float]:
        """Return the intensities that become 0 and 1."""
        if self.kind == "window":
            return self.low, self.high
        if self.kind == "percentiles":
            low, high = np.percentile(array, [self.low, self.high])
            return low, high
        low = np.percentile(array, self.low)
        above = array - low
        body = above[above > BODY * np.percentile(above, 90)]
        return low, low + self.high * float(np.median(body)) if body.size else low


def scale_intensity(dataset_file: str | os.PathLike[str]) -> Callable[..., Any]:
    """Return the MONAI transform that scales the image of a volume as its dataset.json says."""
    from monai.bundle import ConfigParser

    config = {"imports": ["$import monai"], "transform": Intensity.of(dataset_file).transform()}
    return ConfigParser(config).get_parsed_content("transform")


def preset(name: str) -> Intensity:
    """Return one of `PRESETS`.

    Raises:
        TskdError: another name.
    """
    if name not in PRESETS:
        raise TskdError(f"{KEY}: expected one of {', '.join(PRESETS)}, found {name!r}")
    return PRESETS[name]


PERCENTILES = Intensity()  # where nothing else is said
PRESETS = {"percentiles": PERCENTILES, "body": Intensity("body", 0.5, 4.0)}  # by the name that commands take
