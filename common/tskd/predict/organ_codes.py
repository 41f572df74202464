"""SNOMED CT codes of structures by their name in the data set, for DICOM SEG."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tskd.errors import TskdError


class Code(NamedTuple):
    """Coded concept: its value, its scheme (SCT: SNOMED CT), and its meaning in words."""

    value: str
    scheme: str
    meaning: str


ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")

# A test compares them with the code dictionary of pydicom (DICOM part 16 and its subset of SNOMED CT). These six are
# not in it; their names in SNOMED CT are "Left kidney structure", ..., "Myocardium structure", "Nerve structure".
NOT_IN_PYDICOM = ("left kidney", "right kidney", "left lung", "right lung", "myocardium", "nerve")
_ANATOMY = {
    "aorta": "15825003",
    "artery": "51114001",
    "bladder": "89837001",
    "bone": "272673000",
    "brain": "12738006",
    "breast": "76752008",
    "colon": "71854001",
    "duodenum": "38848004",
    "esophagus": "32849002",
    "gallbladder": "28231008",
    "heart": "80891009",
    "inferior vena cava": "64131007",
    "kidney": "64033007",
    "left atrium": "82471001",
    "left kidney": "18639004",
    "left lung": "44029006",
    "left ventricle": "87878005",
    "liver": "10200004",
    "lung": "39607008",
    "myocardium": "74281007",
    "nerve": "3057000",
    "pancreas": "15776009",
    "portal vein": "32764006",
    "prostate": "41216001",
    "right atrium": "73829009",
    "right kidney": "9846003",
    "right lung": "3341006",
    "right ventricle": "53085002",
    "skin": "39937001",
    "small intestine": "30315005",
    "spinal cord": "2748008",
    "spleen": "78961009",
    "stomach": "69695003",
    "thyroid": "69748006",
    "trachea": "44567001",
    "uterus": "35039007",
    "vein": "29092000",
    "vessel": "59820001",
}
_ABNORMAL = {"cyst": "367643001", "lesion": "52988006", "tumor": "108369006"}
_SAME = {"tumour": "tumor", "oesophagus": "esophagus", "urinary bladder": "bladder", "blood vessel": "vessel"}


def code_of(name: str, user_codes: Mapping[str, Code] | None = None) -> tuple[Code, Code]:
    """Return the codes of category and type of a structure.

    Args:
        name: of the structure, such as "Right Kidney" or "kidney_right".
        user_codes: the user's codes by name, in lower case.

    Returns:
        The category's code and the structure's; of a name that nobody knows, a private code ("99TSKD") made of it.
    """
    key = re.sub(r"[\s_-]+", " ", name.strip().lower())
    side = re.fullmatch(r"(.+) (left|right)", key)
    key = f"{side[2]} {side[1]}" if side else key
    key = _SAME.get(key, key).removesuffix(" structure")
    if user_codes and (code := user_codes.get(name.lower(), user_codes.get(key))) is not None:
        return (ABNORMAL if key in _ABNORMAL else ANATOMY), code
    for table, category in ((_ANATOMY, ANATOMY), (_ABNORMAL, ABNORMAL)):
        for known in (key, key.removesuffix("s")):
            if known in table:
                return category, Code(table[known], "SCT", known.capitalize())
    return ANATOMY, Code(hashlib.sha256(key.encode()).hexdigest()[:12], "99TSKD", name[:64])


def read_codes(path: str | Path) -> dict[str, Code]:
    """Read the user's table: JSON of name -> [value, scheme, meaning], as in the message below.

    Raises:
        TskdError: not such a table.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        return {name.lower(): Code(*(str(part) for part in code)) for name, code in table.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TskdError(
            f'{path}: expected JSON of the form {{"lymph node": ["59441001", "SCT", "Lymph node"]}}, found {error}.'
        ) from error
