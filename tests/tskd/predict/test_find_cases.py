"""Every image is found once, under a name of its own, and what is skipped is named."""

from pathlib import Path

import pydicom
import pytest

from tskd.data.io.identities import code_of
from tskd.errors import TskdError
from tskd.predict.find_cases import find_cases


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"0")


def test_names_do_not_collide(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.nii.gz", "x/a.nii", "x/A.nrrd", "y/a.nii.gz", "y/.hidden.nii", "y/b.txt", "y/d.nii.gz.part")
    case_list = find_cases([tmp_path / "x", tmp_path / "y", tmp_path / "x/a.nii.gz"], tmp_path / "out")
    stems = [case.stem.lower() for case in case_list.cases]
    assert len(stems) == len(set(stems)) == 4
    assert sorted(map(len, case_list.skipped.values())) == [2]


def test_voxels_beside_their_header_are_not_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "a.nhdr", "a.raw", "b.c.mhd", "b.c.zraw", "d.nhdr", "d.raw.gz", "alone.raw")
    case_list = find_cases([tmp_path], tmp_path / "out")
    assert [case.stem for case in case_list.cases] == ["a", "b.c", "d"]
    assert case_list.skipped == {"file of another kind": [str(tmp_path / "alone.raw")]}


def test_the_output_is_no_input(tmp_path: Path) -> None:
    _touch(tmp_path, "a.nii.gz", "masks/a_seg.nii.gz")
    assert [case.stem for case in find_cases([tmp_path], tmp_path / "masks").cases] == ["a"]


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(target, target_is_directory=True)
    except OSError as error:
        pytest.skip(f"no links to folders here: {error}")


def test_linked_folders_are_searched_once_and_in_no_circle(tmp_path: Path) -> None:
    _touch(tmp_path, "in/z/a.nii.gz", "store/deep/b.nii.gz", "in/.hidden/c.nii.gz", "in/.hidden/d/e.nii.gz", "f.nii.gz")
    links = {"in/p2": "store", "in/p3": "store", "in/b/round": "in", "store/deep/back": "store", "in/a": "in/z",
             "in/data": "in/.hidden/d", "in/.away": "store", "in/gone": "nowhere"}  # fmt: skip
    for link, target in links.items():
        _link(tmp_path / link, tmp_path / target)
    case_list = find_cases([tmp_path / "in"], tmp_path / "out")
    assert [case.stem for case in case_list.cases] == ["data/e", "p2/deep/b", "z/a"]
    assert not case_list.skipped
    _link(tmp_path / "root", tmp_path / "store")
    assert [case.stem for case in find_cases([tmp_path / "root"], tmp_path / "out").cases] == ["deep/b"]


def test_a_link_to_the_output_is_no_input(tmp_path: Path) -> None:
    _touch(tmp_path, "in/a.nii.gz", "masks/a_seg.nii.gz", "masks/more/b_seg.nii.gz")
    for link, target in {"in/m": "masks", "in/n": "masks/more", "in/all": "."}.items():
        _link(tmp_path / link, tmp_path / target)
    case_list = find_cases([tmp_path / "in"], tmp_path / "masks")
    assert [case.stem for case in case_list.cases] == ["a"]
    assert not case_list.skipped


@pytest.mark.parametrize("output", ["", "scans"])
def test_images_beside_their_masks_are_segmented_and_earlier_masks_named(tmp_path: Path, output: str) -> None:
    masks = ["scans/a_seg.nii.gz", "scans/b_seg.PNG", "scans/b_overlay.png", "scans/more/c_seg.dcm"]
    _touch(tmp_path, "scans/a.nii.gz", "scans/b.png", "scans/segments.nii", "scans/summary.csv", *masks)
    case_list = find_cases([tmp_path / "scans"], tmp_path / output)
    assert [case.stem for case in case_list.cases] == ["a", "b", "segments"]
    (skipped,) = case_list.skipped.values()
    assert case_list.skipped.keys() == {"mask in the folder that masks are written to"}
    assert sorted(skipped) == sorted(str(tmp_path / name) for name in masks)


def test_series_are_told_apart_and_scouts_left_out(tmp_path: Path, series: Path) -> None:
    image = pydicom.dcmread(next(series.iterdir()))
    changes: dict[str, dict[str, object]] = {
        "scout": {"SeriesDescription": "3-plane LOC scout"},
        "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        "second": {"SeriesDescription": "T2 / fat sat"},
    }
    for name, change in changes.items():
        image = pydicom.dcmread(series / "IM0000.dcm")
        image.SeriesInstanceUID = f"1.2.3.{len(name)}"
        for tag, value in change.items():
            setattr(image, tag, value)
        image.save_as(series / name)  # among the other files, without an ending
    case_list = find_cases([tmp_path / "archive"], tmp_path / "out")
    assert [len(case.files) for case in case_list.cases] in ([5, 1], [1, 5])
    assert {reason: len(names) for reason, names in case_list.skipped.items()} == {
        "localizer": 2,
        "secondary capture": 1,
    }
    assert all(case.stem.startswith(f"{code_of('P1')}_1") and "/" not in case.stem for case in case_list.cases)


def test_nothing_to_segment(tmp_path: Path) -> None:
    with pytest.raises(TskdError, match="found none"):
        find_cases([tmp_path / "no"], tmp_path / "out")
    _touch(tmp_path, "a.txt")
    with pytest.raises(TskdError, match=r"a\.txt"):
        find_cases([tmp_path], tmp_path / "out")
