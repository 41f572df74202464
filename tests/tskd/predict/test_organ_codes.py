"""The table of codes agrees with pydicom's copy of SNOMED CT."""

from pathlib import Path

import pytest
from pydicom.sr import _snomed_dict

from tskd.errors import TskdError
from tskd.predict import organ_codes
from tskd.predict.organ_codes import code_of, read_codes


def test_codes_are_known_to_pydicom() -> None:
    known_codes = {*organ_codes._ANATOMY.values(), *organ_codes._ABNORMAL.values()}
    assert len(known_codes) == len(organ_codes._ANATOMY) + len(organ_codes._ABNORMAL)
    sided = {"9846003", "18639004", "3341006", "44029006"}  # not in DICOM's subset, nor are these two
    assert known_codes - set(_snomed_dict.mapping["SCT"]) <= {*sided, "3057000", "74281007"}


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
