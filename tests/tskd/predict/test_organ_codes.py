"""The table of codes agrees with pydicom's copy of SNOMED CT."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts

from tskd.errors import TskdError
from tskd.predict import organ_codes
from tskd.predict.organ_codes import code_of, read_codes


@pytest.mark.parametrize(
    ("name", "value"),
    [("Liver", "10200004"), ("kidney_right", "9846003"), ("Left Kidney", "18639004"), ("tumour", "108369006"),
     ("vessels", "59820001")],
)  # fmt: skip
def test_names_as_data_sets_write_them(name: str, value: str) -> None:
    assert code_of(name)[1].value == value


def test_an_unknown_name_has_a_private_code_of_its_own() -> None:
    first, second = code_of("structure A")[1], code_of("structure B")[1]
    assert first.scheme == second.scheme == "99TSKD"
    assert first.value != second.value
    assert len(first.value) <= 16


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "codes.json").write_text('{"a": "b"}')
    with pytest.raises(TskdError, match="lymph node"):
        read_codes(tmp_path / "codes.json")


def test_codes_are_those_of_pydicoms_dictionary() -> None:
    """By name, in one of the spellings that SNOMED CT has for an organ: "Liver structure", "Splenic structure", ..."""
    meanings: dict[str, set[str]] = {}
    dictionary: Any = concepts["SCT"]
    for entries in dictionary.values():
        for code, (meaning, _) in entries.items():
            meanings.setdefault(code, set()).add(meaning.lower())
    stems = {"bladder": "urinary bladder", "spleen": "splenic", "trachea": "tracheal", "tumor": "tumor"}
    unknown = []
    for name, code in {**organ_codes._ANATOMY, **organ_codes._ABNORMAL}.items():
        if code not in meanings:
            unknown.append(name)
            continue
        known = meanings[code]
        assert any(word in text for text in known for word in (name, stems.get(name, name))), (name, known)
    assert sorted(unknown) == sorted(organ_codes.NOT_IN_PYDICOM)
