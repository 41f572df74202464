"""What a file, an archive or another process must not do: fill the memory, run code, name somebody, share a folder."""

import errno
import gzip
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from tests.tskd.data.kinds.studies import image_of, make, prepare, refusal, save_picture
from tskd.data import checks, datalist, load_volume
from tskd.data.io.identities import code_of
from tskd.data.io.picture_header import open_picture
from tskd.errors import TskdError
from tskd.files import lock_folder
from tskd.networks.weights import read_checkpoint
from tskd.state import read_tensors

NAMES = ("Rumpelstiltskin", "19610412", "7714-SECRET", "St. Elsewhere", "2.25.4711")


class _Code:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("read", [read_tensors, read_checkpoint])
@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.safetensors"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_weights_with_code_are_refused_and_run_nothing(tmp_path: Path, read, name: str, how: str) -> None:
    planted = {"weight": torch.zeros(2), "more": _Code(tmp_path / "ran")}
    if how == "torch":
        torch.save(planted, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(planted))
    with pytest.raises(TskdError, match=re.escape(name)):
        read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_volume_that_unpacks_to_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(np.zeros((200, 200, 50), np.int16), np.eye(4)).to_bytes()))
    load_volume(path)
    monkeypatch.setenv("TSKD_MAX_GIB", "0.001")
    with pytest.raises(TskdError, match=r"bomb\.nii\.gz: expected at most 0.001 GiB, found more when unpacked"):
        load_volume(path)
    monkeypatch.setenv("TSKD_MAX_GIB", "much")
    with pytest.raises(TskdError, match="TSKD_MAX_GIB: expected a number"):
        load_volume(path)


def test_a_picture_that_unpacks_to_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")  # 0.8 GiB, from 110 kB
    with pytest.raises(TskdError, match=r"bomb\.png: expected at most 0.5 GiB"):
        open_picture(tmp_path / "bomb.png")
    save_picture(tmp_path / "a.png", np.zeros((40, 50)))
    monkeypatch.setenv("TSKD_MAX_GIB", "0.000001")
    with pytest.raises(TskdError, match="TSKD_MAX_GIB"):
        open_picture(tmp_path / "a.png")


def test_a_dicom_frame_that_unpacks_to_more_than_the_limit(tmp_path: Path) -> None:
    folder = make(tmp_path, "dicom")
    for file in (folder / "images/p1").iterdir():
        data = pydicom.dcmread(file)
        data.Rows = data.Columns = 60_000
        data.save_as(file)
    assert "found more when unpacked" in refusal(folder, "dicom")


def test_files_outside_the_folder_of_the_list_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = prepare(make(tmp_path / "study", "pictures"), "pictures")
    (path.parent / "images/p1.png").rename(tmp_path / "p1.png")
    path.write_text(path.read_text().replace('"images/p1.png"', '"../../p1.png"'))
    checks.check(path)
    assert "1 files lie outside the folder of the dataset" in caplog.text
    assert "../../p1.png" in caplog.text


def test_nobody_is_named_in_any_byte_that_is_written(tmp_path: Path) -> None:
    folder = make(tmp_path, "dicom")
    for series in (folder / "images").iterdir():
        for file in series.iterdir():
            data = pydicom.dcmread(file)
            data.PatientName, data.PatientBirthDate, data.InstitutionName = NAMES[0], NAMES[1], NAMES[3]
            data.PatientID = f"{NAMES[2]}-{series.name}"
            data.StudyInstanceUID = f"{NAMES[4]}.1"
            data.SeriesInstanceUID = f"{NAMES[4]}.{int(series.name[1:]) + 2}"
            data.save_as(file)
    path = prepare(folder, "dicom")
    _search(path.parent)


def test_folders_that_are_called_by_their_patients_have_codes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "dicom")
    for number, series in enumerate(sorted((folder / "images").iterdir())):
        for file in series.iterdir():
            data = pydicom.dcmread(file)
            data.PatientName, data.PatientBirthDate, data.PatientID = f"{NAMES[0]}^{number}", NAMES[1], NAMES[2]
            data.save_as(file)
        name = f"{NAMES[0].upper()}_{NAMES[1]}_{number}"
        series.rename(series.with_name(name))
        (folder / f"masks/p{number}.nii.gz").rename(folder / f"masks/{name}.nii.gz")
    (folder / f"images/{NAMES[0]}.txt").write_text("")
    path = prepare(folder, "dicom")
    _search(path.parent)
    assert "6 DICOM series are called by a name, an id or a date of their patient" in caplog.text
    entries = [entry for _, entry in datalist.named_entries(datalist.read(path))]
    assert len({entry["group"] for entry in entries}) == 6
    assert {entry["group"][-2:] for entry in entries} == {f"_{number}" for number in range(6)}


def test_folders_that_are_called_by_short_numbers_of_patients_have_codes(tmp_path: Path) -> None:
    folder = make(tmp_path, "dicom")
    for number, series in enumerate(sorted((folder / "images").iterdir()), start=3):
        for file in series.iterdir():
            data = pydicom.dcmread(file)
            data.PatientID = str(number)
            data.save_as(file)
        series.rename(series.with_name(f"T2_{number}"))
        (folder / f"masks/p{number - 3}.nii.gz").rename(folder / f"masks/T2_{number}.nii.gz")
    entries = [entry for _, entry in datalist.named_entries(datalist.read(prepare(folder, "dicom")))]
    codes = {f"T2_{code_of(str(number))}" for number in range(3, 9)}
    assert {entry["group"] for entry in entries} == codes


def test_nobody_is_named_of_pictures_and_volumes(tmp_path: Path) -> None:
    folder = make(tmp_path / "pictures", "pictures")
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = NAMES[0], NAMES[3]
    for file in (folder / "images").iterdir():
        Image.open(file).save(file, exif=exif, comment=NAMES[2])
    _search(prepare(folder, "pictures").parent)
    folder = make(tmp_path / "volumes", "volumes")
    for file in (folder / "images").iterdir():
        image = nib.load(file)
        image.header["descrip"], image.header["db_name"] = NAMES[0].encode(), NAMES[2].encode()[:18]
        image.header["aux_file"] = NAMES[1].encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAMES[3].encode()))
        nib.save(nib.Nifti1Image(image_of(int(file.name[1])), image.affine, image.header), file)
    _search(prepare(folder, "volumes").parent)


def _search(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    for file in files:
        content = file.read_bytes()
        content += gzip.decompress(content) if file.suffix == ".gz" else b""
        for name in NAMES:
            assert name.encode().lower() not in content.lower(), (file, name)
            assert name.lower() not in str(file.relative_to(folder)).lower()


def test_a_second_run_in_a_folder_is_refused_with_host_and_process(tmp_path: Path) -> None:
    lock_folder(tmp_path / "run")
    lock_folder(tmp_path / "run")  # this process has it
    program = f"import sys; from tskd.files import lock_folder\ntry: lock_folder({str(tmp_path / 'run')!r})\n"
    program += "except ValueError as error: sys.exit(str(error))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"found process {os.getpid()} on {socket.gethostname()}" in done.stderr
    other = program.replace("/run'", "/other'")
    killed = subprocess.Popen([sys.executable, "-c", other + "\nprint('held', flush=True); input()"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert killed.stdout is not None
    assert killed.stdout.readline() == "held\n"
    with pytest.raises(TskdError, match=f"process {killed.pid} on"):
        lock_folder(tmp_path / "other")
    killed.kill()
    killed.wait()
    lock_folder(tmp_path / "other")  # whoever had it is gone, and left nothing to clear away


def test_nothing_is_claimed_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network drive without them: a run begins, and so does the next."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(pytest.importorskip("fcntl", reason="Windows has locks of its own"), "flock", no_locks)
    for _ in range(2):
        lock_folder(tmp_path / "run")
        assert (tmp_path / "run/.lock").read_text() == ""


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TskdError, match=r"file: expected a folder to write to, found a file"):
        lock_folder(tmp_path / "file/run")
