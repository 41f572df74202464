"""Files are whole or the old ones."""

import hashlib
import json

import pytest

from tskd.errors import TskdError
from tskd.files import atomic, sha256, write_json, write_text


def test_what_is_written_is_read(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"seed": 0, "folder": tmp_path}, default=str)
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"seed": 0, "folder": str(tmp_path)}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_failed_writing_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "new \ud800")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_interrupted_write_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / "file.txt").write_text("old")

    def interrupted():
        with atomic(tmp_path / "file.txt") as draft:
            draft.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "file.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TskdError, match=r"file/a\.txt: cannot write it .*Free disk space, or choose another folder"):
        write_text(tmp_path / "file" / "a.txt", "new")


def test_hash_of_a_file_of_several_blocks(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
