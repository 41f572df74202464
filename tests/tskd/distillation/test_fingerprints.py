"""What binds a student's checkpoint to the files that it learned from."""

from pathlib import Path

from tskd.data import fingerprint
from tskd.distillation import soft_labels_identity, training_fingerprints
from tskd.files import write_json


def soft_labels(folder: Path, teacher: str, *cases: str) -> list[str]:
    """Paths of the cases' soft labels, in a folder with the manifest of a teacher."""
    folder.mkdir()
    write_json(folder / "manifest.json", {"teacher": teacher, "preprocessing": {}, "cases": {}})
    return [str(folder / f"{case}.safetensors") for case in cases]


def test_images_and_teachers_are_told_apart(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    (tmp_path / "a.png").write_bytes(b"pixels")
    entry = {"image": str(tmp_path / "a.png"), "case": "a"}

    def found(*entries):
        return training_fingerprints(tmp_path / "dataset.json", entries)

    assert found(entry) == {"dataset": fingerprint(tmp_path / "dataset.json")}
    transfer = found({**entry, "part": "labelled"})
    assert transfer.keys() == {"dataset", "transfer"}
    assert found({**entry, "part": "unlabelled"})["transfer"] != transfer["transfer"]

    (first,), (second,) = (soft_labels(tmp_path / name, name, "a") for name in ("one", "two"))
    one = found({**entry, "part": "labelled", "soft_labels": first})
    assert one["soft_labels"] == soft_labels_identity(tmp_path / "one")
    assert found({**entry, "part": "labelled", "soft_labels": second})["soft_labels"] != one["soft_labels"]
    several = found({**entry, "soft_labels": [first, second]})["soft_labels"]
    assert several == soft_labels_identity([tmp_path / "one", tmp_path / "two"], [1, 1])
    assert found({**entry, "soft_labels": [second, first]})["soft_labels"] != several
