"""Files are whole or the old ones."""

import hashlib
import json

import pytest

from common.files import sha256, write_json, write_text


def test_what_is_written_is_read(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"seed": 0, "folder": tmp_path}, default=str)
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"seed": 0, "folder": str(tmp_path)}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_failed_writing_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "new \ud800")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_hash_of_a_file_of_several_blocks(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
