"""Files are whole or the old ones."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from tskd.errors import TskdError
from tskd.files import atomic, atomic_folder, files_below, lock_folder, remove_drafts, sha256, write_json, write_text


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
    with (
        pytest.raises(TskdError, match=r"/a\.txt: cannot write it .*Free disk space, or choose another folder"),
        atomic(tmp_path / "a.txt"),
    ):
        raise OSError(28, "No space left on device")


def test_a_file_where_a_folder_is_expected_is_called_so(tmp_path):
    file = tmp_path / "masks"
    file.write_text("")
    words = f"^{re.escape(str(file))}: expected a folder to write to, found a file. Choose another name, or remove it$"
    for path in (file / "a.txt", file / "below" / "a.txt"):
        with pytest.raises(TskdError, match=words):
            write_text(path, "new")
    with pytest.raises(TskdError, match=words), atomic_folder(file) as draft:
        draft.mkdir()
    with pytest.raises(TskdError, match=words):
        lock_folder(file)


def test_hash_of_a_file_of_several_blocks(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_folder_takes_the_place_of_the_old_one_whatever_killed_writers_left(tmp_path):
    target = tmp_path / "pipeline"
    for name in (f".draft-{os.getpid()}-pipeline", ".draft-old-pipeline", ".draft-1-pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "torn").write_text("half")
    for content in ("first", "second"):
        with atomic_folder(target) as draft:
            draft.mkdir()
            (draft / "a.txt").write_text(content)
        assert (target / "a.txt").read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]
        assert [path.name for path in target.iterdir()] == ["a.txt"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/a.txt").write_text("old")

    def interrupted():
        with atomic_folder(tmp_path / "pipeline") as draft:
            draft.mkdir()
            (draft / "a.txt").write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(TskdError, match="pipeline: cannot write it"):
        interrupted()
    assert (tmp_path / "pipeline/a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


def test_drafts_of_killed_writers_are_removed(tmp_path):
    for name in (".draft-7-last.pt", "last.pt", ".lock"):
        (tmp_path / name).write_text("")
    remove_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "last.pt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which this system lacks")
def test_a_child_that_outlives_its_killed_parent_does_not_hold_the_folder(tmp_path):
    """As the loading processes of a training do, for seconds."""
    program = (
        "import os, sys, time\nfrom tskd.files import lock_folder\n"
        "lock_folder(sys.argv[1])\nread, write = os.pipe()\n"
        "if os.fork() == 0: os.write(write, b'x'); time.sleep(60)\n"
        "os.read(read, 1); os.close(1); os.kill(os.getpid(), 9)\n"
    )
    output = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, stderr=subprocess.DEVNULL)
    assert output.returncode == -9
    lock_folder(tmp_path)


def test_parts_of_a_folder_are_claimed_apart(tmp_path):
    program = "import sys; from tskd.files import lock_folder\ntry: lock_folder(sys.argv[1], sys.argv[2])\n"
    program += "except ValueError as error: sys.exit(str(error))"
    lock_folder(tmp_path, ".0")
    found = {
        part: subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), part], capture_output=True, text=True, check=False
        )
        for part in (".0", ".1")
    }
    assert f"found process {os.getpid()} on" in found[".0"].stderr
    assert found[".1"].returncode == 0


def test_files_below_a_folder_are_those_of_linked_folders_too(tmp_path):
    """Each once, in order of folders, though links go round in a circle; hidden files and one folder are left out."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for name in ("b.png", "a/z.png", "a/._z.png", ".cache/c.png", "out/d.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep/e.png").touch()
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(root)
    (root / "same").symlink_to(root / "a")
    names = [path.relative_to(root).as_posix() for path in files_below(root)]
    assert names == ["b.png", "a/z.png", "linked/deep/e.png", "out/d.png"]
    assert [path.name for path in files_below(root, root / "out")] == ["b.png", "z.png", "e.png"]
