"""Codes stand for patients: the same for the same text and key, and not to be found by trying ids."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tskd.data.io import identities
from tskd.data.io.identities import code_of, identity_words, without_identity
from tskd.errors import TskdError
from tskd.predict.dicom_tree import Series


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(identities.VARIABLE, str(tmp_path / "new/key"))
    identities._key.cache_clear()
    yield tmp_path / "new/key"
    identities._key.cache_clear()


def test_codes_depend_on_the_key_alone(key: Path) -> None:
    first = code_of("7714")
    assert first == code_of("7714") != code_of("7715")
    assert key.stat().st_mode & 0o077 == 0
    identities._key.cache_clear()
    assert code_of("7714") == first  # another process of the same user
    assert first != hashlib.sha256(b"7714").hexdigest()[:8]
    key.unlink()
    identities._key.cache_clear()
    assert code_of("7714") != first


def test_words_of_a_header(key: Path) -> None:
    header = Dataset()
    header.PatientName, header.PatientID, header.PatientBirthDate = "Doe^Jane Ann", "77-14", "19610412"
    header.StudyDate, header.StudyInstanceUID = "20240131", "2.25.17"
    words = identity_words(header)
    assert {"Jane", "77-14", "19610412", "20240131", "2.25.17"} <= set(words)
    text = without_identity("archive/DOE^JANE_1961-04-12/T2 of jane; does", words)  # Doe alone is a name
    jane = code_of("Jane")
    assert text == f"archive/{code_of('Doe')}^{jane}_{code_of('19610412')}/T2 of {jane}; does"
    header.PatientID = "7"  # the header's other short numbers are none of its words
    header.StudyID = "2"
    assert "7" in identity_words(header)
    assert "2" not in identity_words(header)
    assert without_identity("pelvis_7/17_2.dcm", identity_words(header)) == f"pelvis_{code_of('7')}/17_2.dcm"
    header.PatientIdentityRemoved = "YES"
    assert identity_words(header) == ()


@pytest.mark.parametrize("patient", ["P1", "7", "P10", "0042"])
def test_a_short_patient_id_is_not_written(key: Path, patient: str) -> None:
    header = Dataset()
    header.PatientID = patient
    series = Series((Path("export/a.dcm"),), patient, "2", "T2", "1.2.3", identity_words(header) or ("2.25.17",))
    assert series.display_name == f"export: patient {patient}, series 2 T2"
    assert series.written_name == f"export: patient {code_of(patient)}, series 2 T2"
    assert series.stem.startswith(f"{code_of(patient)}_2_T2_")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("Weiß^Jan", "T2 WEISS, weiß", "T2 {Weiß}, {Weiß}"),
        ("Weiss^Jan", "T2 Weiß!", "T2 {Weiss}!"),
        ("Müller^Eva", "MRT Mu\u0308ller Abdomen", "MRT {Müller} Abdomen"),  # as folders of macOS spell it
        ("Mu\u0308ller^Eva", "MÜLLER/muller", "{Mu\u0308ller}/{Mu\u0308ller}"),
        ("ILHAN^X", "T2 İlhan", "T2 {ILHAN}"),
        ("İlhan^X", "ilhan_2", "{İlhan}_2"),
        ("Yamada=山田^太郎", "T2山田太郎", "T2{山田}{太郎}"),
        ("Lee^Ann", "sleeves of Lée", "sleeves of {Lee}"),  # three letters count where they stand alone
    ],
)
def test_a_name_is_found_in_whatever_letters(key: Path, name: str, text: str, expected: str) -> None:
    header = Dataset()
    header.PatientName = name
    codes = re.sub(r"{(.+?)}", lambda word: code_of(word[1]), expected)
    assert without_identity(text, identity_words(header)) == codes


@pytest.mark.parametrize(
    ("born", "date"),
    [
        *[("19500317", spelled) for spelled in (
            "19500317", "17031950", "03171950", "1950-03-17", "17.03.1950", "17.3.1950", "17/03/1950", "3/17/1950",
            "170350", "500317", "17.03.50", "17.3.50", "3/17/50", "50-03-17",
        )],
        *[("19500317", spelled) for spelled in (
            "17Mar1950", "17-MAR-1950", "17 March 1950", "March 17, 1950", "1950Mar17", "Mar_17_50", "17.mar.50",
            "MAR1750", "17 03 1950",
        )],
        *[("20050309", spelled) for spelled in (
            "9.3.05", "3/9/05", "05-3-9", "09.03.05", "9.03.05", "09-3-2005", "050309", "9.3.2005",
        )],
        *[("20000301", spelled) for spelled in ("1.3.00", "00-03-01", "000301", "2000_3_1")],
    ],
)  # fmt: skip
def test_a_birth_date_is_found_in_whatever_order(key: Path, born: str, date: str) -> None:
    header = Dataset()
    header.PatientBirthDate = born
    words = identity_words(header)
    for before, after in (("Abdomen ", " T2"), ("T2_", "_7"), ("3-" if "-" not in date else "3/", "x")):
        assert without_identity(f"{before}{date}{after}", words) == f"{before}{code_of(born)}{after}"


@pytest.mark.parametrize(
    ("born", "texts"),
    [
        ("20200309", ("1.2.9.3.20.4", "9.3.201", "19.3.20", "1.9.3.20", "9.3.20.1")),
        ("20000317", ("series_3_17_t2", "a/3/17", "17.3.5", "v17.3.")),
        ("20000301", ("protocol_v1.3.2", "1.3.12.2.1107", "1.3.00.1")),
    ],
)
def test_a_short_date_is_no_part_of_a_longer_number(key: Path, born: str, texts: tuple[str, ...]) -> None:
    header = Dataset()
    header.PatientBirthDate = born
    words = identity_words(header)
    for text in texts:
        assert without_identity(text, words) == text


def test_a_short_date_is_found_among_other_numbers_unless_they_may_be_one(key: Path) -> None:
    header = Dataset()
    header.PatientBirthDate = "20200309"
    text = without_identity("a_9.3.20_b9.3.2020. T2_9_3_20_1", identity_words(header))
    assert text == "a_{0}_b{0}. T2_{0}_1".format(code_of("20200309"))


def test_words_that_differ_in_accents_have_codes_of_their_own(key: Path) -> None:
    words = ("MULLER", "MÜLLER")
    assert without_identity("muller_A", words) == f"{code_of('MULLER')}_A"
    assert without_identity("mu\u0308ller_A", words) == f"{code_of('MÜLLER')}_A"
    assert code_of("MULLER") != code_of("MÜLLER")


def test_an_id_of_eight_digits_is_no_date(key: Path) -> None:
    header = Dataset()
    header.PatientID = "00001234"
    text = "/data/12/t1_12_34_x/1.2.840.12.34.5"
    assert without_identity(text, identity_words(header)) == text
    assert without_identity("a_00001234", identity_words(header)) == f"a_{code_of('00001234')}"


def test_processes_that_make_a_key_at_once_have_one(tmp_path: Path) -> None:
    """And no draft of a key is left."""
    command = [sys.executable, "-c", "from tskd.data.io.identities import code_of; print(code_of('P'))"]
    environment = {**os.environ, identities.VARIABLE: str(tmp_path / "new/key")}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [process.returncode for process in started] == [0] * 4
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["key"]
    assert (tmp_path / "new/key").stat().st_mode & 0o077 == 0


def test_where_a_key_is_there_already_it_stays(key: Path) -> None:
    key.parent.mkdir()
    key.write_text("a" * 64)
    identities._make_key(key)
    assert key.read_text() == "a" * 64


def test_a_key_that_is_none(key: Path) -> None:
    key.parent.mkdir()
    key.write_text("short")
    with pytest.raises(TskdError, match="expected a key of 16 characters"):
        code_of("a")
    key.unlink()
    key.mkdir()
    identities._key.cache_clear()
    with pytest.raises(TskdError, match=identities.VARIABLE):
        code_of("a")
