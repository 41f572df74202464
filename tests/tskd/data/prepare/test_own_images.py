"""One's own images and volumes: pairs, tables, patients, lists, and errors that say what to do."""

import json

import numpy as np
import pytest
from PIL import Image

from tskd.cli import main
from tskd.data import checks, datalist
from tskd.data.io.nifti import write_volume
from tskd.data.phantom.cohort import virtual_patient
from tskd.data.prepare import image_checks
from tskd.data.prepare.images import prepare_images_masks
from tskd.data.prepare.volumes import prepare_volumes_masks
from tskd.data.split import share_out
from tskd.errors import TskdError

PATTERN = r"^(p\d+)_"


@pytest.fixture
def folder(tmp_path):
    """Ten patients with two images each, and images/, masks/ with the ending _mask, more/ without masks."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "more"):
        (tmp_path / name).mkdir()
    for case in (f"p{patient}_{view}" for patient in range(10) for view in "ab"):
        mask = np.zeros((8, 11), np.uint8)
        mask[rng.integers(1, 6), 2:7] = 255
        Image.fromarray(rng.integers(0, 255, (8, 11), dtype=np.uint8)).save(tmp_path / f"images/{case}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{case}_mask.png")
    for case in (f"p{patient}_c" for patient in range(0, 12)):
        Image.fromarray(rng.integers(0, 255, (8, 11), dtype=np.uint8)).save(tmp_path / f"more/{case}.png")
    return tmp_path


def prepare(folder, output="out", **options):
    sources = {"images": folder / "images", "masks": folder / "masks", "mask_suffix": "_mask"}
    return prepare_images_masks(folder / output, **{"labels": ["nerve"], **sources, **options})


def table(folder, lines):
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return {"table": folder / "list.csv", "images": None, "masks": None}


def groups(data, name):
    return {entry["group"] for entry in data[name]}


def test_patients_from_names(folder):
    dataset_file = prepare(folder, group_pattern=PATTERN, unlabelled=folder / "more", modality="US", name="nerves")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert (data["name"], data["modality"], data["channels"]) == ("nerves", "US", 1)
    assert [len(groups(data, name)) for name in ("training", "validation", "test")] == [7, 1, 2]
    held_out = groups(data, "validation") | groups(data, "test")
    assert groups(data, "unlabelled") == {f"p{k}" for k in range(12)} - held_out
    assert data["provenance"]["left_out"] == "3 unlabelled images of validation and test patients"
    assert PATTERN in data["provenance"]["groups"]


def test_the_same_seed_gives_the_same_bytes(folder):
    files = [prepare(folder, output, name="x", seed=seed) for output, seed in (("a", 1), ("b", 1), ("c", 2))]
    trees = [{p.relative_to(f.parent): p.read_bytes() for p in f.parent.rglob("*") if p.is_file()} for f in files]
    assert trees[0] == trees[1]
    lists = [datalist.read(file) for file in files]
    assert groups(lists[0], "test") != groups(lists[2], "test")


def test_images_that_memory_does_not_hold_are_written_the_same(folder, monkeypatch):
    """Read once where there is room for them until they are written, twice otherwise."""
    files = [prepare(folder, "a", name="x")]
    monkeypatch.setattr(image_checks, "_KEPT", 8 * 11 * 9)
    files.append(prepare(folder, "b", name="x"))
    trees = [{p.relative_to(f.parent): p.read_bytes() for p in f.parent.rglob("*") if p.is_file()} for f in files]
    assert trees[0] == trees[1]


def test_without_a_pattern_identical_images_stay_together(folder):
    for view in "ab":
        (folder / f"images/p3_{view}.png").write_bytes((folder / "images/p0_a.png").read_bytes())
    data = datalist.read(prepare(folder))
    home = {entry["case"]: (name, entry["group"]) for name, entry in datalist.named_entries(data)}
    assert home["p0_a"] == home["p3_a"] == home["p3_b"]
    assert "each image counts as a patient of its own" in data["provenance"]["groups"]


def test_identical_images_of_two_patients_are_a_leak(folder):
    lists = {"training": 0, "validation": 1, "test": 2}
    lines = ["image,label,group,split"]
    lines += [f"images/p{k}_a.png,masks/p{k}_a_mask.png,p{k},{name}" for name, k in lists.items()]
    options = table(folder, lines)
    prepare(folder, "fine", **options)
    (folder / "images/p2_a.png").write_bytes((folder / "images/p0_a.png").read_bytes())
    with pytest.raises(TskdError, match=r"p0_a\.png \(training\) and .*p2_a\.png \(test\)"):
        prepare(folder, "leak", **options)
    lines[0], lines[1:] = "image,label,split", [",".join(np.array(line.split(","))[[0, 1, 3]]) for line in lines[1:]]
    with pytest.raises(TskdError, match=r"p0_a\.png \(training\) and .*p2_a\.png \(test\)"):
        prepare(folder, "leak", **table(folder, lines))
    assert not (folder / "leak").exists()


def test_table_gives_patients_lists_and_unlabelled_images(folder):
    lines = ["\ufeffimage;label;group;split"]  # as Excel writes it
    lines += [f"images/p{k}_{v}.png;masks/p{k}_{v}_mask.png;Q{k};training" for k in range(3) for v in "ab"]
    lines += ["images/p3_a.png;;Q3;training", "images/p4_a.png;masks/p4_a_mask.png;Q4;validation"]
    lines += ["images/p5_a.png;masks/p5_a_mask.png;Q5;test"]
    data = datalist.read(prepare(folder, **table(folder, lines)))
    found = [groups(data, name) for name in datalist.LISTS]
    assert found == [{"Q0", "Q1", "Q2"}, {"Q3"}, {"Q4"}, {"Q5"}]
    assert data["provenance"]["split"] == "as the table says"


@pytest.mark.parametrize(
    ("line", "message"),
    [("images/none.png,,p9,training", "line 3: no file images/none.png"),
     ("images/p1_a.png,,p1,test", "line 3: an image of the test list needs a label"),
     ("images/p1_a.png,,p1,trial", "line 3: split 'trial' is none of training, validation, test"),
     ("images/p1_a.png,,,training", "line 3: no group"),
     ("images/p1_a.png,,  ,training", "line 3: no group"),
     (",,p1,training", "line 3: no image"),
     ("images/p0_b.png,masks/p0_b_mask.png,p0,test", "split: expected each patient in one list, found p0 in two"),
     ("images/p0_a.png,,p0,training", r"p0_a.png: expected a file name of its own, found .*p0_a.png too")],
)  # fmt: skip
def test_bad_rows(folder, line, message):
    lines = ["image,label,group,split", "images/p0_a.png,masks/p0_a_mask.png,p0,training", line]
    with pytest.raises(TskdError, match=message):
        prepare(folder, **table(folder, lines))


def test_bad_tables(folder):
    with pytest.raises(TskdError, match=r"expected the columns image, label .*found 'picture,mask' and 1 rows"):
        prepare(folder, **table(folder, ["picture,mask", "a,b"]))
    with pytest.raises(TskdError, match="and 0 rows"):
        prepare(folder, **table(folder, ["image,label"]))
    with pytest.raises(TskdError, match=r"none\.csv: expected a CSV file"):
        prepare(folder, table=folder / "none.csv", images=None, masks=None)
    for wrong in ({"table": folder / "none.csv"}, {"masks": None}, {"images": None, "masks": None}):
        with pytest.raises(TskdError, match="expected --images and --masks, or --table instead"):
            prepare(folder, **wrong)


def test_a_table_in_another_encoding(folder):
    (folder / "table.csv").write_bytes("image,label,group\na,b,Müller\n".encode("cp1252"))
    with pytest.raises(TskdError, match=r"table\.csv: expected UTF-8.* Save it as"):
        prepare(folder, table=folder / "table.csv", images=None, masks=None)


def test_all_problems_at_once_and_nothing_written(folder):
    Image.fromarray(np.array([[0, 3, 7]], np.uint8)).save(folder / "masks/p1_a_mask.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "masks/p2_a_mask.png")
    (folder / "images/p3_a.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((8, 11, 3), np.uint8)).save(folder / "images/p4_a.png")
    with pytest.raises(TskdError) as error:
        prepare(folder)
    message = str(error.value)
    assert message.startswith("4 problems")
    for part in ("p1_a_mask.png: expected class indices 0 to 1", "p2_a_mask.png: expected the size of its image",
                 "p3_a.png: expected a readable image", "p4_a.png RGB. Say which with --channels"):  # fmt: skip
        assert part in message
    assert not (folder / "out").exists()


def test_channels_convert(folder):
    rgb = np.random.default_rng(1).integers(0, 255, (8, 11, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(folder / "images/p4_a.png")
    for channels in (1, 3):
        dataset_file = prepare(folder, f"c{channels}", channels=channels)
        checks.check(dataset_file)
        assert datalist.read(dataset_file)["channels"] == channels
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "c3/images/p4_a.png")), rgb)


def test_255_must_not_mean_two_things(folder):
    mask = np.zeros((8, 11), np.uint8)
    mask[2], mask[3] = 1, 255
    Image.fromarray(mask).save(folder / "masks/p1_a_mask.png")
    with pytest.raises(TskdError, match=r"one meaning of 255, .*structure in p0_a_mask\.png .*label in p1_a_mask\.png"):
        prepare(folder)


def test_class_indices_of_one_structure_do_not_mix_with_black_and_white(folder):
    mask = np.zeros((8, 11), np.uint8)
    mask[2] = 1
    Image.fromarray(mask).save(folder / "masks/p1_a_mask.png")
    with pytest.raises(TskdError, match=r"structure in p0_a_mask\.png and as .*1 is the structure\) in p1_a_mask\.png"):
        prepare(folder)
    for path in (folder / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    assert prepare(folder).is_file()


def test_patterns_and_shares_that_do_not_fit(folder):
    with pytest.raises(TskdError, match=r"p0_a\.png: expected a patient in the name by the pattern 'case"):
        prepare(folder, group_pattern=r"case(\d+)")
    with pytest.raises(TskdError, match=r"expected a regular expression, found .*unterminated"):
        prepare(folder, group_pattern="(p")
    with pytest.raises(TskdError, match=r"shares of the patients .* found 0\.9 and 0\.2"):
        prepare(folder, test=0.9, validation=0.2)
    for number in (1, 2):
        with pytest.raises(TskdError, match=f"enough for training, validation and test, found {number} with labels"):
            share_out([f"p{k}" for k in range(number)], 0.2, 0.1, 0)
    with pytest.raises(TskdError, match=r"fold: expected 0 to 2, found 3"):
        prepare(folder, fold=3)
    assert not datalist.read(prepare(folder, test=0, validation=0))["test"]


def test_every_patient_is_tested_in_one_fold(folder):
    tested = []
    for fold in range(2):
        data = datalist.read(prepare(folder, f"fold{fold}", group_pattern=PATTERN, fold=fold, folds=2))
        tested += sorted(groups(data, "test"))
        assert len(groups(data, "validation")) == 1
        assert data["provenance"]["split"] == f"fold {fold} of 2, seed 0"
    assert sorted(tested) == [f"p{number}" for number in range(10)]
    lists = table(folder, ["image,label,split", "images/p0_a.png,masks/p0_a_mask.png,training"])
    with pytest.raises(TskdError, match="lists in the column split, or --fold; found both"):
        prepare(folder, "both", fold=0, **lists)


def test_command_line(folder, capsys):
    command = ["prepare", "images-masks", "--images", f"{folder}/images", "--masks", f"{folder}/masks", "--output"]
    assert main([*command, f"{folder}/out", "--mask-suffix", "_mask", "--labels", "nerve", "--test", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "12 training, 2 validation, 6 test" in said
    assert "patients: unknown: each image counts" in said
    assert main([*command, f"{folder}/other", "--labels", "nerve"]) == 2
    assert "--mask-suffix" in capsys.readouterr().err


def test_volumes(tmp_path, capsys):
    for number in range(5):
        image, label, affine = virtual_patient(0, number, image_size=24, num_slices=3)
        write_volume(tmp_path / f"imagesTr/case{number}_0000.nii.gz", image, affine)
        write_volume(tmp_path / f"labelsTr/case{number}.nii.gz", label, affine)
    image, _, affine = virtual_patient(0, 9, image_size=24, num_slices=3)
    write_volume(tmp_path / "imagesTs/case9_0000.nii.gz", image, affine)
    sources = {"images": tmp_path / "imagesTr", "masks": tmp_path / "labelsTr", "unlabelled": tmp_path / "imagesTs"}
    names = ["liver", "right kidney", "left kidney", "spleen"]
    dataset_file = prepare_volumes_masks(tmp_path / "out", names, **sources, image_suffix="_0000", modality="MR")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert [len(groups(data, name)) for name in datalist.LISTS] == [3, 1, 1, 1]
    assert groups(data, "unlabelled") == {"case9"}
    assert str(tmp_path) not in json.dumps(data)
    with pytest.raises(TskdError, match=r"found none for case0, case0_0000.*--image-suffix"):
        prepare_volumes_masks(tmp_path / "x", names, **sources)
    assert "intensity" in data
    command = ["prepare", "volumes", "--images", f"{tmp_path}/imagesTr", "--masks", f"{tmp_path}/labelsTr", "--labels"]
    command += [",".join(names), "--image-suffix", "_0000", "--window", "-50", "100.5", "--output"]
    assert main([*command, str(tmp_path / "windowed")]) == 0
    assert datalist.read(tmp_path / "windowed/dataset.json")["intensity"] == {"window": [-50, 100.5]}
    folds = [tmp_path / f"fold{fold}" for fold in range(5)]
    for fold, output in enumerate(folds):
        assert main([*command, str(output), "--fold", str(fold), "--folds", "5"]) == 0
    assert {group for output in folds for group in groups(datalist.read(output / "dataset.json"), "test")} == {
        f"case{number}" for number in range(5)
    }
    assert main([*command, str(tmp_path / "out")]) == 2  # another window is another preparation
    assert "intensity" in capsys.readouterr().err
