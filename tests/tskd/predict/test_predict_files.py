"""Masks of a mixture of files: geometry, names, damaged files, nothing overwritten, nothing heavy imported."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.bundles.standalone import write_volumes
from tskd.data.io.dicom_series import read_series
from tskd.data.io.identities import code_of
from tskd.data.io.image_files import colour_note
from tskd.errors import TskdError
from tskd.predict.find_cases import find_cases
from tskd.predict.itk_header import header_fields, says_orientation
from tskd.predict.predict_files import predict

pytestmark = pytest.mark.bundle

PYPROJECT = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")


def _rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "summary.csv").read_text(encoding="utf-8").splitlines()))


def test_a_damaged_file_costs_a_line_and_the_rest_goes_on(
    tmp_path: Path, volumes_bundle: Path, series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "archive"
    write_volumes(images)
    good = (images / "RAS.nii.gz").read_bytes()
    (images / "cut.nii.gz").write_bytes(good[: len(good) // 2])
    Image.new("L", (20, 20)).save(images / "p.png")
    output = tmp_path / "masks"
    assert predict(volumes_bundle, [images], output, backend="onnx", overlay=True) == 1
    rows = {Path(row["input"].split(":")[0]).name: row for row in _rows(output)}
    assert set(rows) == {"RAS.nii.gz", "SRP.nii.gz", "cut.nii.gz", "p.png", "series"}
    assert [name for name, row in rows.items() if row["error"]] == ["cut.nii.gz", "p.png"]
    said = capsys.readouterr()
    assert "cut.nii.gz" in said.out + said.err
    for name in ("RAS.nii.gz", "SRP.nii.gz", "series"):
        mask = nib.load(output / rows[name]["mask"])
        volume = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        for index, structure in enumerate(("liver", "right kidney", "left kidney"), start=1):
            count = int((np.asarray(mask.dataobj) == index).sum())
            assert int(rows[name][f"{structure} voxels"]) == count
            assert float(rows[name][f"{structure} ml"]) == pytest.approx(count * volume, abs=1e-3)
    assert len(list(output.glob("*_overlay.png"))) == 3


def test_a_series_and_the_same_volume_as_nifti_have_one_mask(
    tmp_path: Path, volumes_bundle: Path, series: Path
) -> None:
    array, affine = read_series(series)
    nib.save(nib.Nifti1Image(array.astype(np.int16), affine), tmp_path / "same.nii.gz")
    assert predict(volumes_bundle, [series, tmp_path / "same.nii.gz"], tmp_path / "masks", backend="onnx") == 0
    first, second = (nib.load(tmp_path / "masks" / row["mask"]) for row in _rows(tmp_path / "masks"))
    np.testing.assert_array_equal(np.asarray(first.dataobj), np.asarray(second.dataobj))
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-4)


@pytest.mark.parametrize("patient", ["1", "12", "one", "P1"])
def test_the_summary_names_the_mask_of_a_patient_with_a_short_id(
    tmp_path: Path, volumes_bundle: Path, series: Path, patient: str
) -> None:
    for path in series.iterdir():
        image = pydicom.dcmread(path)
        image.PatientID, image.SeriesDescription = patient, f"of {patient}"
        image.SeriesNumber = patient if patient.isdigit() else 1
        image.save_as(path)
    assert predict(volumes_bundle, [series], tmp_path / "masks", backend="onnx") == 0
    (row,) = _rows(tmp_path / "masks")
    assert [row["mask"]] == [path.name for path in tmp_path.glob("masks/*.nii.gz")]
    code, number = code_of(patient), patient if patient.isdigit() else "1"
    assert row["mask"].startswith(f"{code}_{number}_of-{code}_")
    assert row["input"] == find_cases([series], tmp_path / "none").cases[0].written_name
    assert f"patient {code}, series " in row["input"]


def test_errors_in_the_summary_have_codes(tmp_path: Path, volumes_bundle: Path, series: Path) -> None:
    for path in series.iterdir():
        image = pydicom.dcmread(path)
        image.PatientID = image.SeriesNumber = "7"
        image.PatientName = "Roe^Jane"
        image.PixelSpacing = None
        image.save_as(path.rename(path.with_name(f"Jane {path.name}")))
    with pytest.raises(TskdError) as error:
        read_series(series)
    assert "Jane" in str(error.value)
    assert predict(volumes_bundle, [series], tmp_path / "masks", backend="onnx") == 1
    (row,) = _rows(tmp_path / "masks")
    assert row["mask"] == ""
    assert row["error"].startswith(f"{row['input']}: ")
    assert f"{code_of('Jane')} IM000" in row["error"]
    assert "Jane" not in row["error"]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_one_slice_stays_a_volume(tmp_path: Path, volumes_bundle: Path, backend: str) -> None:
    write_volumes(tmp_path)
    volume = nib.load(tmp_path / "RAS.nii.gz")
    one = volume.slicer[:, :, 2:3]
    nib.save(one, tmp_path / "one.nii.gz")
    assert predict(volumes_bundle, [tmp_path / "one.nii.gz"], tmp_path / "masks", backend=backend) == 0
    mask = nib.load(tmp_path / "masks/one_seg.nii.gz")
    assert mask.shape == (*volume.shape[:2], 1)
    np.testing.assert_allclose(mask.affine, one.affine, atol=1e-4)


def test_metaimage_and_nrrd_keep_their_grid(tmp_path: Path, volumes_bundle: Path) -> None:
    itk = pytest.importorskip("SimpleITK", reason="needs SimpleITK, an optional dependency")
    path = write_volumes(tmp_path)[0]
    image = itk.ReadImage(str(path))
    itk.WriteImage(image, str(tmp_path / "a.mha"))
    assert predict(volumes_bundle, [path, tmp_path / "a.mha"], tmp_path / "m", mask_format="same", backend="onnx") == 0
    mask, reference = (itk.ReadImage(str(tmp_path / "m" / name)) for name in ("a_seg.mha", "RAS_seg.nii.gz"))
    np.testing.assert_array_equal(itk.GetArrayFromImage(mask), itk.GetArrayFromImage(reference))
    for one in (mask, reference):
        np.testing.assert_allclose(one.GetOrigin(), image.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(one.GetDirection(), image.GetDirection(), atol=1e-4)


NRRD = "NRRD0005\ntype: short\ndimension: 3\nsizes: 40 40 4\nendian: little\nencoding: raw\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
DIRECTIONS = "space directions: (1.5,0,0) (0,1.5,0) (0,0,4)\n"
LPS = f"space: left-posterior-superior\n{DIRECTIONS}"
SPACING, MATRIX = "ElementSpacing = 1.5 1.5 4\n", "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"


def _itk_file(folder: Path, fields: str) -> Path:
    """A volume of 40 x 40 x 4 voxels, MetaImage where the fields are its, else NRRD."""
    voxels = np.random.default_rng(0).integers(0, 900, (4, 40, 40)).astype("<i2").tobytes()
    head = f"{NRRD}{fields}\n"
    if " = " in fields:
        head = f"{META}{fields}DimSize = 40 40 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path = folder / ("a.mha" if " = " in fields else "a.nrrd")
    path.write_bytes(head.encode() + voxels)
    return path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (LPS + 'space units: "cm" "cm" "cm"\n', "found cm in space units"),
        (LPS + 'spaceUnits: "mm" "mm" "microns"\n', "found microns in space units"),
        ('spacings: 1.5 1.5 4\nunits: "cm" "cm" "mm"\n', "found cm in units"),
        (SPACING + MATRIX + "DistanceUnits = um\n", "found um in DistanceUnits"),
        (SPACING + MATRIX + "DistanceUnits = m\n", "found m in DistanceUnits"),
    ],
)
def test_nrrd_and_metaimage_in_another_unit_are_refused(
    tmp_path: Path, volumes_bundle: Path, fields: str, said: str
) -> None:
    pytest.importorskip("SimpleITK", reason="needs SimpleITK, an optional dependency")
    path = _itk_file(tmp_path, fields)
    assert predict(volumes_bundle, [path], tmp_path / "masks", backend="onnx") == 1
    (row,) = _rows(tmp_path / "masks")
    assert row["error"].startswith(f"{path}: expected the unit mm, {said}. ")
    assert [each.name for each in (tmp_path / "masks").iterdir()] == ["summary.csv"]


@pytest.mark.parametrize(
    ("fields", "oriented"),
    [
        (LPS + 'space units: "mm" "mm" "mm"\n', True),
        (f"# of a scanner\nSpace: RAS\n{DIRECTIONS}" + 'units:="cm" "cm" "cm"\nspace units: "" "" ""\n', True),
        ('spacings: 1.5 1.5 4\nunits: "mm" "mm" "mm"\n', False),
        ("spacings: 1.5 1.5 4\n", False),
        (f"space dimension: 3\n{DIRECTIONS}", False),
        (f"space: scanner-xyz\n{DIRECTIONS}", False),
        (SPACING + MATRIX + "DistanceUnits = mm\n", True),
        (SPACING + MATRIX.replace("TransformMatrix", "Rotation"), True),
        (SPACING + "AnatomicalOrientation = RAI\n", True),
        (SPACING, False),
        (SPACING + "AnatomicalOrientation = LPS\n", False),
    ],
)
def test_nrrd_and_metaimage_in_mm_have_their_volume_and_warn_without_orientation(
    tmp_path: Path, volumes_bundle: Path, fields: str, oriented: bool
) -> None:
    pytest.importorskip("SimpleITK", reason="needs SimpleITK, an optional dependency")
    assert predict(volumes_bundle, [_itk_file(tmp_path, fields)], tmp_path / "masks", backend="onnx") == 0
    (row,) = _rows(tmp_path / "masks")
    assert ("the file does not say how it lies in the patient" in row["warnings"]) is not oriented
    voxels, millilitres = (float(row[f"liver {unit}"]) for unit in ("voxels", "ml"))
    assert voxels > 0
    assert millilitres == pytest.approx(voxels * 1.5 * 1.5 * 4 / 1000, abs=1e-3)


def test_the_header_of_a_detached_nrrd_ends_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nhdr"
    path.write_bytes(f"{NRRD}{LPS}data file: a.raw\n".replace("\n", "\r\n").encode())
    fields = header_fields(path)
    assert (fields["sizes"], fields["space"], fields["datafile"]) == ("40 40 4", "left-posterior-superior", "a.raw")
    assert says_orientation(path)


def test_a_picture_of_other_colours_is_segmented_with_a_warning(tmp_path: Path, pictures_bundle: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "colour.png")
    Image.fromarray(colours[..., 0]).save(tmp_path / "grey.png")
    assert predict(pictures_bundle, [tmp_path / "colour.png", tmp_path / "grey.png"], tmp_path / "masks") == 0
    warnings = {Path(row["input"]).name: row["warnings"] for row in _rows(tmp_path / "masks")}
    assert "colour" not in warnings["colour.png"]
    assert "a grey picture, where the network has learned from colours" in warnings["grey.png"]
    assert (
        colour_note(tmp_path / "colour.png", 1) == "a picture in colour, where the network has learned from grey ones"
    )
    Image.fromarray(np.dstack([colours[..., 0]] * 3)).save(tmp_path / "alike.png")
    assert colour_note(tmp_path / "alike.png", 1) == ""


def test_no_slice_at_a_time_is_refused_before_the_first_image(tmp_path: Path, pictures_bundle: Path) -> None:
    with pytest.raises(TskdError, match="--batch-size: expected at least 1 slice, found 0"):
        predict(pictures_bundle, [tmp_path], tmp_path / "masks", batch_size=0)


def test_nothing_is_overwritten_unasked(tmp_path: Path, pictures_bundle: Path) -> None:
    Image.new("RGB", (30, 20), (90, 20, 30)).save(tmp_path / "a.jpg")
    masks = tmp_path / "masks"
    assert predict(pictures_bundle, [tmp_path / "a.jpg"], masks, backend="onnx") == 0
    with pytest.raises(TskdError, match="--overwrite"):
        predict(pictures_bundle, [tmp_path / "a.jpg"], masks, backend="onnx")
    assert predict(pictures_bundle, [tmp_path / "a.jpg"], masks, backend="onnx", overwrite=True) == 0
    assert _rows(masks)[0]["mask"] == "a_seg.png"


def test_rows_of_earlier_runs_stay_as_long_as_their_masks(
    tmp_path: Path, pictures_bundle: Path, volumes_bundle: Path
) -> None:
    masks, inputs = tmp_path / "masks", tmp_path / "in"
    for name in ("a/one.png", "a/two.png", "b/three.png"):
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (90, 20, 30)).save(inputs / name)
    (inputs / "a/cut.png").write_bytes(b"")
    assert predict(pictures_bundle, [inputs / "a"], masks, backend="onnx") == 1
    summary = masks / "summary.csv"  # as of a bundle with another structure
    summary.write_text(summary.read_text(encoding="utf-8").replace("liver", "lesion"), encoding="utf-8")
    first = {row["input"]: row for row in _rows(masks)}
    assert len(first) == 3
    (masks / "two_seg.png").unlink()
    write_volumes(tmp_path / "v")
    assert predict(volumes_bundle, [tmp_path / "v/RAS.nii.gz"], masks, backend="onnx") == 0
    Image.new("RGB", (30, 20), (90, 20, 30)).save(inputs / "a/cut.png")
    assert predict(pictures_bundle, [inputs / "b"], masks, backend="onnx") == 0
    rows = _rows(masks)
    assert [Path(row["input"]).name for row in rows] == ["cut.png", "one.png", "RAS.nii.gz", "three.png"]
    for row in rows[:2]:
        assert row == first[row["input"]] | {"liver voxels": "", "liver ml": ""}
    assert [row["lesion voxels"] != "" for row in rows] == [False, True, False, False]
    assert [row["liver voxels"] != "" for row in rows] == [False, False, True, True]
    sides = [f"{side} kidney {unit}" for side in ("right", "left") for unit in ("voxels", "ml")]
    assert list(rows[0])[5:] == ["lesion voxels", "lesion ml", *sides, "liver voxels", "liver ml"]
    files = [inputs / "a/cut.png", inputs / "b/three.png"]
    assert predict(pictures_bundle, files, masks, backend="onnx", overwrite=True) == 0
    assert [row["mask"] for row in _rows(masks)] == ["one_seg.png", "RAS_seg.nii.gz", "cut_seg.png", "three_seg.png"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,age\na,1\n", "found the columns name, age. Move it away"),
        (b"", "found the columns of an empty file"),
        (b"input,mask,seconds,warnings,error\na.png\n", "found lines that have not 5 columns"),
        (b"input,mask,\xff\xfe", "found 'utf-8' codec"),
    ],
)
def test_a_summary_of_another_kind_is_refused_before_the_first_image(
    tmp_path: Path, pictures_bundle: Path, content: bytes, said: str
) -> None:
    Image.new("RGB", (30, 20), (90, 20, 30)).save(tmp_path / "a.png")
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "summary.csv").write_bytes(content)
    with pytest.raises(TskdError, match=rf"summary\.csv: expected no such file, .*{re.escape(said)}") as error:
        predict(pictures_bundle, [tmp_path / "a.png"], masks, backend="onnx", overwrite=True)
    assert "\n" not in str(error.value)
    assert [path.name for path in masks.iterdir()] == ["summary.csv"]
    assert (masks / "summary.csv").read_bytes() == content


def test_onnx_needs_no_package_of_training(tmp_path: Path, volumes_bundle: Path, series: Path) -> None:
    (train,) = re.findall(r"^train = \[(.*?)^\]", PYPROJECT, re.DOTALL | re.MULTILINE)
    names = re.findall(r'"([\w-]+)', train)
    modules = [{"pytorch-ignite": "ignite", "scikit-image": "skimage", "pyyaml": "yaml"}.get(n, n) for n in names]
    assert {"torch", "monai", "peft", "diffusers"} < set(modules)
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({[m.replace('-', '_') for m in modules]}));"  # as not installed
        "from tskd.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    options = ["predict", str(volumes_bundle), str(series), "--output", str(tmp_path / "m"), "--backend"]
    command = [sys.executable, "-W", "ignore", "-c", program, *options]
    run = subprocess.run([*command, "onnx", "--overlay"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-500:]
    assert len(_rows(tmp_path / "m")) == 1
    run = subprocess.run([*command, "auto", "--overwrite"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-500:]
    assert "computed by ONNX Runtime\n" in run.stdout
    run = subprocess.run([*command, "torch", "--overwrite"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert run.stderr.startswith("error: this needs the package ")
    assert "pip install 'tskd[train]'" in run.stderr
