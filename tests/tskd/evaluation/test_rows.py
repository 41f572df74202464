"""metrics.csv survives a round trip and becomes one value a patient in one way."""

import gzip
from pathlib import Path

import pytest

from tskd.errors import TskdError
from tskd.evaluation.rows import MetricRow, natural, organs, patient_values, read_rows, write_rows


def row(group: str, case: str, label: str, value: float, metric: str = "dice") -> MetricRow:
    return MetricRow("set", "80", "net", "0", group, case, label, metric, value)


def test_round_trip_keeps_every_digit(tmp_path: Path) -> None:
    rows = [row("1", 'odd, "case"', "left kidney", 1 / 3), row("2", "b", "Leber ü", 1e-17)]
    write_rows(tmp_path / "sub" / "metrics.csv", rows)
    assert read_rows(tmp_path / "sub" / "metrics.csv") == rows


def test_a_compressed_table_is_the_same_each_time(tmp_path: Path) -> None:
    rows = [row(str(k), "a", "liver", 1 / (k + 1)) for k in range(200)]
    for name in ("one.csv", "one.csv.gz", "two.csv.gz"):
        write_rows(tmp_path / name, rows)
        assert read_rows(tmp_path / name) == rows
    packed = (tmp_path / "one.csv.gz").read_bytes()
    assert packed == (tmp_path / "two.csv.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "one.csv").read_bytes()
    (tmp_path / "two.csv.gz").write_bytes(packed[:-20])
    with pytest.raises(TskdError, match="expected a CSV table"):
        read_rows(tmp_path / "two.csv.gz")


def test_cases_then_organs_are_averaged_within_a_patient() -> None:
    rows = [row("10", "a", "liver", 0.2), row("10", "b", "liver", 0.4), row("10", "a", "spleen", 0.9)]
    rows += [row("2", "c", "liver", 1.0), row("2", "c", "liver", 50.0, "hd95")]
    assert patient_values(rows, "dice") == pytest.approx({"2": 1.0, "10": 0.6})
    assert list(patient_values(rows, "dice")) == ["2", "10"]
    assert patient_values(rows, "dice", "spleen") == {"10": 0.9}
    assert patient_values(rows, "hd95", "liver") == {"2": 50.0}
    assert organs(rows) == ["liver", "spleen"]


def test_natural_order() -> None:
    assert sorted(["p10", "p9", "a", "10", "9b", "9"], key=natural) == ["9", "9b", "10", "a", "p9", "p10"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset,budget\n", "missing method, seed"),
        ("dataset,budget,method,seed,group,case,label,metric,value\n", "only a header"),
        ("dataset,budget,method,seed,group,case,label,metric,value\na,1,m,0,g,c,l,dice,nan\n", "line 2"),
        ("dataset,budget,method,seed,group,case,label,metric,value\na,1,m,0,g,c,l,dice\n", "line 2"),
    ],
)
def test_errors_name_file_and_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(TskdError) as error:
        read_rows(tmp_path / "metrics.csv")
    assert words in str(error.value)
    assert "metrics.csv" in str(error.value)
