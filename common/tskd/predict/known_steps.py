"""Check that a shipped bundle's inference.json holds what NumPy computes as MONAI does: steps, inferer and options.

What somebody has changed is for MONAI alone: it is refused here, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.predict.shipped_bundle import ShippedBundle
from tskd.predict.shipped_inferer import AXES, FLIPPED_X, known_inferer

ANTIALIAS = (  # the function that inference.json resizes with
    "$lambda item: (lambda image, full: (image.copy_(torch.nn.functional.interpolate(full.reshape(*full.shape[:3], -1)"
    ".movedim(3, 0), image.shape[1:3], mode='bilinear', antialias=True).movedim(0, 3).reshape(image.shape)), item)[1])"
    "(item['image'], item.pop('full').as_tensor())"
)
CLIP = "$lambda x: x.clamp(0, 1)"
KEEP = "$bool(@largest_component)"  # keep_largest_component, where nobody chose
_NUMBER = r"([-+0-9.e]+)"
_UNIT = {"b_min": 0, "b_max": 1, "clip": True}
_ELSEWHERE = {"LoadImaged", "EnsureChannelFirstd", "SaveImaged", "SqueezeDimd"}  # reading and writing of files
_ARGUMENTS: dict[str, tuple[dict[str, Any], ...]] = {  # those a step may have, beside `keys`; `...`: a number
    "EnsureTyped": ({}, {"dtype": "$torch.float32"}),
    "Orientationd": ({"axcodes": "LPS"},),
    "SignalFillEmptyd": ({},),
    "ScaleIntensityRanged": ({"a_min": ..., "a_max": ..., **_UNIT},),
    "ScaleIntensityRangePercentilesd": ({"lower": ..., "upper": ..., **_UNIT},),
    "CopyItemsd": ({"names": "full"},),
    "Resized": tuple(
        {"spatial_size": size, "mode": mode, **smoothing}
        for size, mode in ((["@image_size"] * 2, "bilinear"), (["@image_size", "@image_size", -1], "trilinear"))
        for smoothing in ({}, {"anti_aliasing": True})
    ),
    "Lambda": ({"func": ANTIALIAS},),
    "Activationsd": ({"softmax": True},),
    "Invertd": ({"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False, "to_tensor": True},),
    "AsDiscreted": ({"argmax": True},),
    "KeepLargestConnectedComponentd": (
        {
            "applied_labels": "$@largest_component or list(range(1, @num_classes))", "is_onehot": False,
            "_disabled_": "$not @displayable_configs#keep_largest_component",
        },
        {"applied_labels": "@largest_component", "is_onehot": False, "_disabled_": "$not @largest_component"},
    ),
    "CastToTyped": ({"dtype": "$torch.uint8"},),
}  # fmt: skip
_SCALED = r"(ScaleIntensityRanged|ScaleIntensityRangePercentilesd|Lambdad) (clip )?"
_RESIZED = r"(CopyItemsd Resized Lambda|Resized) EnsureTyped "
_ORDER = {
    "volumes": rf"LoadImaged EnsureChannelFirstd EnsureTyped Orientationd (SignalFillEmptyd )?{_SCALED}{_RESIZED}",
    "pictures": rf"LoadImaged EnsureChannelFirstd {_SCALED}{_RESIZED}",
    "postprocessing": r"Activationsd Invertd AsDiscreted (KeepLargestConnectedComponentd )?(CastToTyped )?"
    r"(SaveImaged )?(SqueezeDimd )?",
}


def check_known(bundle: ShippedBundle) -> None:
    """Refuse a bundle whose masks MONAI alone can compute.

    Raises:
        TskdError: with the transforms, the inferer or the option that `tskd ship` does not write.
    """
    for chain, order in (
        ("preprocessing", "pictures" if bundle.pictures else "volumes"), ("postprocessing", "postprocessing"),
    ):  # fmt: skip
        steps = bundle.transforms(chain)
        names = ["clip" if step.get("func") == CLIP else step["_target_"] for step in steps]
        if unknown := [_described(step) for step in steps if not _known(step, bundle)]:
            raise unknown_steps(bundle, sorted(set(unknown)))
        if not re.fullmatch(_ORDER[order], "".join(f"{name} " for name in names)):
            raise unknown_steps(bundle, [f"{chain} of {', '.join(names)}"])
    if not known_inferer(bundle.config):
        raise unknown_steps(bundle, ["an inferer of its own"])
    _check_options(bundle)


def unknown_steps(bundle: ShippedBundle, names: list[str]) -> TskdError:
    """Return the error that names what only MONAI can run."""
    return TskdError(
        f"{bundle.root}/configs/inference.json: expected transforms and options that `tskd ship` writes, found "
        f"{'; '.join(names)}, which only MONAI can run. Use --backend torch."
    )


def body_intensity(function: str) -> Intensity | None:
    """Return the scaling by the body's median that an expression of inference.json computes; None for another one."""
    numbers = re.search(rf"\(y / \({_NUMBER} \* .*percentile\(x, {_NUMBER}\)", str(function))
    body = Intensity("body", float(numbers[2]), float(numbers[1])) if numbers else None
    return body if body is not None and body.transform()["func"] == function else None


def _known(step: Mapping[str, Any], bundle: ShippedBundle) -> bool:
    name = step["_target_"]
    if name in _ELSEWHERE:
        return "_disabled_" not in step
    if name != "Lambda" and step.get("keys") not in ("image", ["image"], "pred", ["pred"]):
        return False
    given = {key: value for key, value in step.items() if key not in ("_target_", "keys") and key[:6] != "_desc_"}
    if name == "Lambdad":
        return given.keys() == {"func"} and (given["func"] == CLIP or body_intensity(given["func"]) is not None)
    allowed = _ARGUMENTS.get(name, ())
    return any(_equal(given, {key: bundle.resolve(value) for key, value in each.items()}) for each in allowed)


def _equal(given: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return given.keys() == expected.keys() and all(
        isinstance(given[key], int | float) if value is ... else given[key] == value for key, value in expected.items()
    )


def _described(step: Mapping[str, Any]) -> str:
    """Return a step with those of its arguments that are plain values."""
    plain = [
        f"{key}={value}" for key, value in step.items()
        if key not in ("_target_", "keys") and not isinstance(value, dict) and key[:6] != "_desc_"
    ]  # fmt: skip
    return f"{step['_target_']}({', '.join(plain)})"


def _check_options(bundle: ShippedBundle) -> None:
    options = bundle.config.get("displayable_configs", {})
    for name, default in (("keep_largest_component", KEEP), ("average_mirrored", FLIPPED_X)):
        if not isinstance(options.get(name, False), bool) and options[name] != default:
            raise unknown_steps(bundle, [f"{name} {options[name]!r}"])
    flips = bundle.config.get("flips", [])
    if not isinstance(flips, list) or set(flips) - set(AXES):
        raise unknown_steps(bundle, [f"flips {flips!r}"])
    largest = bundle.config.get("largest_component", [])
    if not isinstance(largest, list) or not all(isinstance(index, int) for index in largest):
        raise unknown_steps(bundle, [f"largest_component {largest!r}"])
