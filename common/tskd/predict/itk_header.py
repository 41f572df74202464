"""Headers of NRRD and MetaImage files: the unit and the orientation, of which SimpleITK does not say all."""

from __future__ import annotations

import re
from pathlib import Path

from tskd.errors import TskdError

_MILLIMETRES = {"", "?", "???", "mm", "millimeter", "millimeters", "millimetre", "millimetres"}  # none is mm by custom
_UNIT_FIELDS = ("spaceunits", "units", "DistanceUnits")
_ANATOMICAL = re.compile(r"(left|right)-(anterior|posterior)-superior|[lr][ap]s", re.IGNORECASE)
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")  # names of one field of MetaImage


def check_unit(path: Path) -> None:
    """Refuse a NRRD or MetaImage file in another unit than mm: SimpleITK takes the numbers as they are.

    `space units` of a NRRD file is of `space directions`, `units` of `spacings`; a file has one of the two pairs, as
    SimpleITK refuses both. An axis without a direction, as of one number a voxel, may have a unit of its own.

    Args:
        path: file that SimpleITK can read.

    Raises:
        TskdError: naming the field and its units.
    """
    fields = header_fields(path)
    for name in _UNIT_FIELDS:
        if name == "units" and "spacedirections" in fields:
            continue
        value = fields.get(name, "")
        units = re.findall(r'"([^"]*)"', value) if '"' in value else [value]
        if strange := sorted({unit for unit in units if unit.strip().lower() not in _MILLIMETRES}):
            field = "space units" if name == "spaceunits" else name
            raise TskdError(
                f"{path}: expected the unit mm, found {', '.join(strange)} in {field}. Write spacing and origin in mm."
            )


def says_orientation(path: Path) -> bool:
    """Return whether a NRRD or MetaImage file that SimpleITK can read says how it lies in the patient.

    NRRD does with a `space` of anatomical directions (not scanner-xyz, 3D-right-handed), MetaImage with a matrix;
    without one SimpleITK takes the axes to be those of `AnatomicalOrientation = RAI`.
    """
    fields = header_fields(path)
    if _is_nrrd(path):
        return _ANATOMICAL.fullmatch(fields.get("space", "")) is not None
    return any(name in fields for name in _MATRIX) or fields.get("AnatomicalOrientation") == "RAI"


def header_fields(path: Path) -> dict[str, str]:
    """Return the fields of the text before the voxels: name -> value.

    Names of NRRD are in lower case and without blanks, as its own library reads them; its `key:=value` pairs are none.
    """
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        for line in file:
            text = line.decode("utf-8", "replace").strip()
            if _is_nrrd(path):
                if not text:
                    break
                name, _, value = text.partition(":")
                if not (value.startswith("=") or text.startswith("#")):
                    fields["".join(name.lower().split())] = value.strip()
                continue
            name, value = (part.strip() for part in [*re.split("[=:]", text, maxsplit=1), ""][:2])
            fields[name] = value
            if name == "ElementDataFile":
                break
    return fields


def _is_nrrd(path: Path) -> bool:
    return path.name.lower().endswith((".nrrd", ".nhdr"))
