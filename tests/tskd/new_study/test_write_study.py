"""`tskd init`: the study that it writes fits the folder, in every layout that the field uses."""

import json
import shutil
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tskd import data
from tskd.cli import main
from tskd.data.io.nifti import write_volume
from tskd.data.phantom.dicom_writer import write_series
from tskd.machine_file import Measured, Way, processor_name, write_measured
from tskd.new_study.write_study import new_study
from tskd.workflow import check_study, read_yaml

AFFINE = np.diag([1.5, 1.5, 4.0, 1.0])


def ball(shape: tuple[int, ...], values: int = 1) -> NDArray[np.uint8]:
    """A disk or ball for each value, side by side."""
    grid = np.indices(shape)
    mask = np.zeros(shape, np.uint8)
    for value in range(1, values + 1):
        centre = [shape[0] * value / (values + 1), *(size / 2 for size in shape[1:])]
        distance = sum(((g - c) / (0.4 * s)) ** 2 for g, c, s in zip(grid, centre, shape, strict=True))
        mask[distance < (1 / (values + 1)) ** 2 + 0.02] = value
    return mask


def picture(path: Path, seed: int, colour: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (40, 48, 3) if colour else (40, 48)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)


def drawn(path: Path, values: int = 1, scale: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ball((40, 48), values) * np.uint8(scale)).save(path)


def volume(path: Path, seed: int, low: int = 0, high: int = 900) -> None:
    array = np.random.default_rng(seed).integers(low, high, (24, 20, 5)).astype(np.int16)
    write_volume(path, array, AFFINE)


def label(path: Path, values: int = 2) -> None:
    write_volume(path, ball((24, 20, 5), values), AFFINE)


def made(folder: Path, *arguments: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `tskd init` has written, and the data set that the study's first step makes of it."""
    weights = folder / "w.pth"
    weights.touch()
    assert main(["init", *map(str, arguments), "--output", str(folder / "study.yaml"), "--weights", str(weights)]) == 0
    config = read_yaml(folder / "study.yaml")
    assert config["teachers"]["mobile_sam"]["overrides"]["weights"] == str(weights.resolve())
    study = check_study(config, "study.yaml")
    step = study.prepare(next(study.cells("mine")))
    assert step.folder
    command = [str(folder / step.folder) if part == step.folder else part for part in step.command[1:]]
    assert main(command) == 0
    content = data.read(folder / step.folder / "dataset.json")
    assert config["datasets"]["mine"]["num_classes"] == len(content["labels"])
    assert config["datasets"]["mine"]["in_channels"] == content["channels"]
    volumes = content["test"][0]["image"].endswith(".nii.gz")
    assert config["datasets"]["mine"].get("images_2d", False) is not volumes
    assert all(content[name] for name in ("training", "validation", "test"))
    return config, content


def test_two_folders_of_pictures_are_named_as_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10):
        picture(tmp_path / f"scans/lesion{number}.jpg", number, colour=True)
        drawn(tmp_path / f"drawn/lesion{number}_segmentation.png", scale=255)
    config, content = made(tmp_path, tmp_path / "scans", tmp_path / "drawn")
    said = capsys.readouterr().out
    assert "10 pictures with masks" in said
    assert "labels: what the structures are; written as structure 1" in said
    assert "patients: each image counts as one" in said
    options = config["datasets"]["mine"]["prepare"]["options"]
    assert options["images"] == "{data_root}/scans"
    assert options["mask-suffix"] == "_segmentation"
    assert (content["channels"], content["labels"]) == (3, {"0": "background", "1": "structure 1"})
    text = (tmp_path / "study.yaml").read_text()
    assert "#   10 pictures with masks" in text
    assert "# ? names of the mask values" in text


def test_nnunet_version_2_in_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "Dataset007_Two"
    for number in range(6):
        for channel in range(2):
            volume(root / f"imagesTr/two_{number:03d}_{channel:04d}.nii.gz", number + 100 * channel)
        label(root / f"labelsTr/two_{number:03d}.nii.gz")
    for channel in range(2):
        volume(root / f"imagesTs/two_900_{channel:04d}.nii.gz", 900 + channel)
    described = {
        "channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "gland": 1, "tumour, any": 2},
        "numTraining": 6, "file_ending": ".nii.gz",
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(described))
    config, content = made(tmp_path, root, "--channel", "1")
    said = capsys.readouterr().out
    assert "nnU-Net's layout" in said
    assert "2 channels (T2, ADC): channel 1 is taken" in said
    assert content["labels"] == {"0": "background", "1": "gland", "2": "tumour  any"}
    assert content["modality"] == "MR"
    assert "unlabelled" in content
    assert {entry["group"] for entry in content["unlabelled"]} == {"two_900_0001"}
    assert config["name"] == "Dataset007_Two"


def test_what_has_no_mask_beside_two_folders_is_named(decathlon: Path, tmp_path: Path) -> None:
    for folder, masks in ((decathlon / "imagesTr", decathlon / "labelsTr"), (decathlon, None)):
        said = new_study(folder, masks, tmp_path / "study.yaml", overwrite=True)
        beside = f"{decathlon / 'imagesTs'} was not looked at; for its images without masks: tskd init {decathlon}"
        assert (beside in said.notes) == (masks is not None)
    shutil.rmtree(decathlon / "imagesTs")
    assert any(
        note.startswith("every image has a mask") for note in new_study(decathlon, None, tmp_path / "b.yaml").notes
    )


def test_nnunet_of_coloured_pictures(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / f"set/imagesTr/a_{number}_0000.png", number, colour=True)
        drawn(tmp_path / f"set/labelsTr/a_{number}.png", 2)
    described = {
        "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "road": 1, "car": 2},
        "file_ending": ".png",
    }  # fmt: skip
    (tmp_path / "set/dataset.json").write_text(json.dumps(described))
    config, content = made(tmp_path, tmp_path / "set")
    assert content["labels"]["2"] == "car"
    assert config["datasets"]["mine"]["in_channels"] == 3


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    """CT of six patients, with one structure in one piece and one in two."""
    root = tmp_path / "Task09_Spleen"
    for number in range(6):
        volume(root / f"imagesTr/spleen_{number}.nii.gz", number, -1000, 400)
        truth = ball((24, 20, 5), 2)
        truth[:2, :2], truth[-2:, -2:] = 2, 2
        write_volume(root / f"labelsTr/spleen_{number}.nii.gz", truth, AFFINE)
        (root / f"imagesTr/._spleen_{number}.nii.gz").write_bytes(b"Mac OS X")
    volume(root / "imagesTs/spleen_20.nii.gz", 20, -1000, 400)
    entries = [{"image": f"./imagesTr/spleen_{n}.nii.gz", "label": f"./labelsTr/spleen_{n}.nii.gz"} for n in range(6)]
    described = {
        "name": "Spleen", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen", "2": "vessel"},
        "training": entries, "test": ["./imagesTs/spleen_20.nii.gz"],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def test_decathlon_ct_has_a_window_and_knows_what_is_one_piece(
    decathlon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, content = made(tmp_path, decathlon)
    assert (config["name"], content["modality"]) == ("Spleen", "CT")
    options = config["datasets"]["mine"]["prepare"]["options"]
    low, high = options["window"]
    assert low < -900 < 300 < high  # the noise inside the masks goes from -1000 to 400
    assert config["overrides"]["all"]["largest_component"] == [1]
    assert options["unlabelled"] == "{data_root}/imagesTs"
    assert "largest_component: [1]  # ? only the largest piece of each" in (tmp_path / "study.yaml").read_text()
    unknown = capsys.readouterr().out.partition("not known, look at these lines of the file:\n")[2]
    assert "\n  largest_component: [1], as each is one piece in every mask that was read: only the largest" in unknown


def test_tumours_and_vessels_are_not_cut_to_one_piece_though_the_masks_show_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        volume(tmp_path / f"images/{number}.nii.gz", number)
        label(tmp_path / f"masks/{number}.nii.gz", 3)
    config, _ = made(tmp_path, tmp_path / "images", tmp_path / "masks", "--labels", "liver,liver tumour,portal vein")
    assert config["overrides"]["all"]["largest_component"] == [1]
    capsys.readouterr()
    folders, file = [str(tmp_path / "images"), str(tmp_path / "masks")], tmp_path / "second.yaml"
    assert main(["init", *folders, "--labels", "lesion,Tumor,vessels", "--output", str(file)]) == 0
    assert read_yaml(file)["overrides"]["all"]["largest_component"] == []
    assert "largest_component" not in capsys.readouterr().out


@pytest.fixture
def stray(tmp_path: Path) -> Path:
    """Eight pictures with the values 1 and 2, of which one mask holds 5, too."""
    for number in range(8):
        picture(tmp_path / f"photos/{number}.png", number)
        mask = ball((40, 48), 2)
        mask[0, 0] = 5 * (number == 3)
        drawn(tmp_path / f"masks/{number}.png", 2)
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    return tmp_path


def test_the_mask_that_alone_holds_a_value_is_named(stray: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(stray, stray / "photos", stray / "masks")
    said = capsys.readouterr().out
    assert f"note: only {stray}/masks/3.png holds 5: where that is no structure, correct the mask" in said
    assert "hold 2" not in said
    assert "note: no mask that was read shows structure 3, structure 4\n" in said


def test_too_few_names_tell_which_masks_hold_the_other_values(stray: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["init", str(stray / "photos"), str(stray / "masks"), "--output", str(stray / "study.yaml"), "--labels"]
    assert main([*command, "lesion"]) == 2
    assert (
        f"--labels: expected 5 names, as masks have, found 1: 8 of 8 masks hold 2; only {stray}/masks/3.png holds 5. "
        "Name as many structures as there are, or correct the masks."
    ) in capsys.readouterr().err
    assert main([*command, "a,b,c,d,e"]) == 0
    assert "holds" not in capsys.readouterr().out  # a value with a name is meant


@pytest.mark.parametrize("names", ["{}{}", "{}/{}"])
def test_sub_folders_that_were_taken_as_patients_are_named(
    tmp_path: Path, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two sub-folders no study can be made, of the same files in one folder it can."""
    for number in range(8):
        picture(tmp_path / f"photos/{names.format('ab'[number % 2], number)}.png", number)
        drawn(tmp_path / f"masks/{names.format('ab'[number % 2], number)}.png")
    status = main(["init", str(tmp_path / "photos"), str(tmp_path / "masks"), "--output", str(tmp_path / "s.yaml")])
    assert status == (2 if "/" in names else 0)
    if status:
        assert (
            "patients: expected enough for training, validation and test, found 2 with labels. Each sub-folder (a, b) "
            "was taken as a patient: put all files into one folder if that is wrong, or add patients."
        ) in capsys.readouterr().err


def test_a_tree_of_dicom_series_with_masks_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(7):
        array = np.random.default_rng(number).integers(0, 900, (24, 20, 5)).astype(np.int16)
        who = min(number, 5)  # the last two series are of one patient
        write_series(tmp_path / f"in/P{number}/ST0/SE1", array, AFFINE, f"X{who}", str(number))
        label(tmp_path / f"masks/P{number}.nii.gz", 1)
    _, content = made(tmp_path, tmp_path / "in", tmp_path / "masks")
    assert content["modality"] == "MR"
    groups = {entry["group"] for name in ("training", "validation", "test") for entry in content[name]}
    assert len(groups) == 6
    said = capsys.readouterr().out
    assert "7 DICOM series with masks" in said
    assert "6 patients with masks, by DICOM's PatientID" in said
    assert not [file for file in tmp_path.glob("study.*") if "X3" in file.read_text()]


def test_lists_that_folders_name_are_kept_and_validation_is_drawn(tmp_path: Path) -> None:
    for section, count in (("train", 12), ("test", 3)):
        for number in range(count):
            picture(tmp_path / f"us/{section}/images/{section}{number}.png", number + 50 * (section == "test"))
            drawn(tmp_path / f"us/{section}/masks/{section}{number}.png", 2)
    config, content = made(tmp_path, tmp_path / "us")
    assert {entry["case"] for entry in content["test"]} == {"test0", "test1", "test2"}
    assert (len(content["training"]), len(content["validation"])) == (11, 1)
    assert content["modality"] == "US"
    assert config["datasets"]["mine"]["prepare"]["options"]["table"] == "{data_root}/study.csv"


def test_both_eyes_are_one_patients_and_a_second_observer_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        for eye in "LR":
            picture(tmp_path / f"in/Image_{number:02d}{eye}.jpg", number + 20 * (eye == "L"), colour=True)
            drawn(tmp_path / f"in/Image_{number:02d}{eye}_1stHO.png")
            drawn(tmp_path / f"in/Image_{number:02d}{eye}_2ndHO.png")
    _, content = made(tmp_path, tmp_path / "in")
    groups = {entry["group"] for name in ("training", "validation", "test") for entry in content[name]}
    assert groups == {f"Image_{number:02d}" for number in range(6)}
    said = capsys.readouterr().out
    assert "12 masks of a second observer" in said
    assert "6 patients with masks" in said


def test_a_folder_for_each_patient(tmp_path: Path) -> None:
    for number in range(6):
        for name in ("a", "b"):
            picture(tmp_path / f"set/P{number}/{name}.png", 2 * number + (name == "b"))
            drawn(tmp_path / f"set/P{number}/{name}_mask.png")
        picture(tmp_path / f"set/P{number}/c.png", 100 + number)
    _, content = made(tmp_path, tmp_path / "set")
    groups = {entry["group"] for name in ("training", "validation", "test") for entry in content[name]}
    assert groups == {f"P{number}" for number in range(6)}
    assert content["unlabelled"]
    assert {entry["case"][-1] for entry in content["unlabelled"]} == {"c"}


def test_thin_structures_ask_for_a_larger_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(5):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (600, 600), dtype=np.uint8)).save(tmp_path / f"images/{number}.png")
        mask = np.zeros((600, 600), np.uint8)
        mask[:, 100 + number :: 97] = mask[:, 101 + number :: 97] = mask[:, 102 + number :: 97] = 255
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    assert main(["init", str(tmp_path), "--output", str(tmp_path / "study.yaml")]) == 0
    shared = read_yaml(tmp_path / "study.yaml")["overrides"]
    assert shared["student"]["image_size"] == shared["teacher"]["image_size"] == 256


@pytest.mark.parametrize(
    ("milliseconds", "active", "remarks"),
    [
        ({"bfloat16": 0.6}, None, ["amp_dtype: bfloat16  # 0.60 of the time an image"]),
        ({"contiguous_format": 0.9}, "contiguous_format", []),
        ({"contiguous_format": 0.97, "bfloat16": 0.97}, None, []),
    ],
)
def test_what_was_measured_here_is_followed_where_no_result_changes_and_else_told(
    milliseconds: dict[str, float], active: str | None, remarks: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TSKD_CACHE", str(tmp_path / "cache"))
    times = {
        Way(*each): 50 * milliseconds.get(each[0], 1.0) * milliseconds.get(each[2], 1.0)
        for each in product(("float32", "bfloat16"), (8,), ("channels_last", "contiguous_format"))
    }
    write_measured(Measured("cpu", "a processor", 1, version("torch"), "lite_unet", 128, times, processor_name()))
    for k in range(12):
        picture(tmp_path / f"images/{k}.png", k)
        drawn(tmp_path / f"masks/{k}.png")
    config, _ = made(tmp_path, tmp_path / "images", tmp_path / "masks")
    assert config["overrides"]["student"].get("memory_format") == active
    assert "amp_dtype" not in config["overrides"]["student"]
    lines = [line.strip() for line in (tmp_path / "study.yaml").read_text().splitlines()]
    below = lines[next(n for n, line in enumerate(lines) if line.startswith("student: {")) + 1 :]
    assert below[0].startswith("# faster here for a student (a processor, at 128 px") is bool(remarks)
    assert all(any(line.startswith(f"#   {remark}") for line in below[:3]) for remark in remarks)


def test_a_file_is_written_over_only_if_that_is_asked_for(
    decathlon: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSKD_CACHE", str(decathlon / "cache"))
    file = decathlon / "study.yaml"
    file.write_text("mine")
    assert main(["init", str(decathlon), "--output", str(file)]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main(["init", str(decathlon), "--output", str(file), "--overwrite", "--labels", "a,b"]) == 0
    said = capsys.readouterr().out
    assert "the teacher's weights (MobileSAM, 39 MB) are downloaded" in said
    assert said.splitlines()[-1] == f"next: tskd train {file} --dry-run"
    assert read_yaml(file)["datasets"]["mine"]["prepare"]["options"]["labels"] == "a,b"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: shutil.rmtree(root / "labelsTr"), "expected masks beside the 7 images"),
        (lambda root: shutil.rmtree(root / "imagesTr"), "found no pair"),
        (lambda root: (root / "dataset.json").write_text("{"), "expected JSON"),
        (lambda root: (root / "dataset.json").write_text('{"labels": {"a": 1, "ignore": 2}}'), "ignore as 2"),
        (lambda root: write_volume(root / "labelsTr/spleen_1.nii.gz", ball((24, 20, 5)) * 63, AFFINE), "63"),
        (lambda root: (root / "labelsTr/spleen_1.nii.gz").write_bytes(b"x"), "expected a readable NIfTI file"),
        (
            lambda root: nib.save(
                nib.Nifti1Image(ball((24, 20, 5)) * np.float32(0.5), AFFINE), root / "labelsTr/spleen_1.nii.gz"
            ),
            "spleen_1.nii.gz: expected label values that are whole numbers from 0 to 255, found [0.5]. A scale factor "
            "in the header (scl_slope, scl_inter) may be the cause: write the values unscaled.",
        ),
        (lambda root: label(root / "labelsTr/spleen_1_seg.nii.gz"), "expected one mask file an image"),
        (lambda root: [p.unlink() for n in range(2, 6) for p in root.glob(f"*Tr/spleen_{n}*")], "patients"),
    ],
)
def test_what_no_study_can_be_made_of_is_named(
    decathlon: Path, break_it: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it(decathlon)
    assert main(["init", str(decathlon), "--output", str(decathlon / "study.yaml")]) == 2
    assert message in capsys.readouterr().err
    assert not (decathlon / "study.yaml").exists()


def test_masks_in_jpeg_are_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        picture(tmp_path / f"images/{number}.png", number)
        drawn(tmp_path / f"masks/{number}.jpg", scale=200)
    assert main(["init", str(tmp_path), "--output", str(tmp_path / "study.yaml")]) == 2
    assert "JPEG stores grey values that nobody drew" in capsys.readouterr().err
