"""A second observer is scored as a network with the same masks would be."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tskd.cli import main
from tskd.data import datalist, to_lps, write_volume
from tskd.errors import TskdError
from tskd.evaluation import case_metrics, read_rows, write_report
from tskd.evaluation.observers import score_labels
from tskd.evaluation.report.runs import load_run

LABELS = {"0": "background", "1": "vessel"}


@pytest.fixture
def dataset_file(tmp_path):
    """Three test images of 30 x 20 pixels, two of one patient, whose rightmost third nobody labelled."""
    rng = np.random.default_rng(0)
    test = []
    for number, group in enumerate(("a", "a", "b")):
        entry = {"group": group, "case": f"c{number}"}
        truth = np.zeros((20, 30), np.uint8)
        truth[5:12, 4 : 15 + number] = 1
        second = np.roll(truth, number + 1, axis=0)
        truth[:, 20:] = second[:, 20:] = 255
        grey = rng.integers(0, 255, (20, 30), dtype=np.uint8)
        for key, pixels in (("image", grey), ("label", truth), ("label_2nd", second)):
            entry[key] = f"{number}_{key}.png"
            Image.fromarray(pixels).save(tmp_path / entry[key])
        test.append(entry)
    header = {"name": "eyes", "modality": "fundus", "channels": 1, "labels": LABELS}
    datalist.write(tmp_path / "dataset.json", {**header, "training": [], "validation": [], "test": test})
    return tmp_path / "dataset.json"


def pixels(dataset_file, name):
    return np.asarray(Image.open(dataset_file.parent / name)).T


def test_rows_are_the_metrics_of_the_two_files(dataset_file, tmp_path):
    rows = read_rows(score_labels(dataset_file, "label_2nd", "second_observer", tmp_path / "run"))
    test = datalist.read(dataset_file)["test"]
    for entry in test:
        scores = {(row.label, row.metric): row.value for row in rows if row.case == entry["case"]}
        masks = [pixels(dataset_file, entry[key]) for key in ("label_2nd", "label")]
        assert scores == {
            (organ, metric): value for organ, metric, value in case_metrics(masks[0], masks[1], LABELS, (1, 1))
        }
    assert {(row.dataset, row.budget, row.method) for row in rows} == {("eyes", "no", "second_observer")}
    assert {row.group for row in rows} == {"a", "b"}
    saved = json.loads((tmp_path / "run/cases.json").read_text())["c0"]["prediction"]
    truth, second = (pixels(dataset_file, test[0][key]) for key in ("label", "label_2nd"))
    np.testing.assert_array_equal(np.asarray(Image.open(saved)).T, np.where(truth == 255, 0, second))
    report = write_report([tmp_path / "run"], tmp_path / "report")
    assert "second_observer" in report.read_text()


def test_the_first_observer_agrees_with_itself(dataset_file, tmp_path, capsys):
    options = ["--prediction-key", "label", "--method", "first", "--output", f"{tmp_path}/run", "--budget", "20"]
    assert main(["score", f"{dataset_file}", *options]) == 0
    assert str(tmp_path / "run/metrics.csv") in capsys.readouterr().out
    assert load_run(tmp_path / "run").summary["mean_dice"] == 1
    assert {row.budget for row in load_run(tmp_path / "run").rows} == {"20"}


def test_what_cannot_be_scored_is_named(dataset_file, tmp_path):
    with pytest.raises(
        TskdError, match=r"key 'label_3rd' in every entry of 'test', found none in c0, c1, c2 \(3 of 3\)"
    ):
        score_labels(dataset_file, "label_3rd", "x", tmp_path / "run")
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "1_label_2nd.png")
    with pytest.raises(Exception, match=r"prediction: expected class indices among .*found \[255\]"):
        score_labels(dataset_file, "label_2nd", "x", tmp_path / "run")


def test_a_second_label_in_other_axes_is_not_scored_voxel_by_voxel(tmp_path):
    mask, affine = np.zeros((6, 7, 4), np.uint8), np.diag([-1.0, -1.0, 3.0, 1.0])
    mask[:3, :2, 1:3] = 1
    write_volume(tmp_path / "image.nii.gz", np.arange(168, dtype=np.int16).reshape(6, 7, 4), affine)
    write_volume(tmp_path / "label.nii.gz", mask, affine)
    turned = nib.as_closest_canonical(nib.Nifti1Image(mask, affine))
    write_volume(tmp_path / "second.nii.gz", np.asarray(turned.dataobj), turned.affine)
    entry = {"image": "image.nii.gz", "label": "label.nii.gz", "label_2nd": "second.nii.gz", "group": "a", "case": "a"}
    header = {"name": "livers", "modality": "MR", "channels": 1, "labels": LABELS}
    datalist.write(tmp_path / "dataset.json", {**header, "training": [], "validation": [], "test": [entry]})
    with pytest.raises(Exception, match=r"second\.nii\.gz: expected the axes and the place of its image"):
        score_labels(tmp_path / "dataset.json", "label_2nd", "x", tmp_path / "run")


def test_masks_of_another_program_are_found_by_their_case(dataset_file, tmp_path):
    (tmp_path / "masks").mkdir()
    for number in range(3):
        shutil.copy(tmp_path / f"{number}_label_2nd.png", tmp_path / f"masks/c{number}.png")
    rows = read_rows(score_labels(dataset_file, None, "b", tmp_path / "b", predictions=tmp_path / "masks"))
    expected = read_rows(score_labels(dataset_file, "label_2nd", "b", tmp_path / "a"))
    assert rows == expected
    (tmp_path / "masks/c1.png").rename(tmp_path / "masks/c9.png")
    with pytest.raises(TskdError, match=r"expected a mask of every case, .* found none of c1 \(1 of 3\)"):
        score_labels(dataset_file, None, "b", tmp_path / "b", predictions=tmp_path / "masks")
    (tmp_path / "masks/c0_seg.png").write_bytes((tmp_path / "masks/c0.png").read_bytes())
    with pytest.raises(TskdError, match="expected one mask of c0, found"):
        score_labels(dataset_file, None, "b", tmp_path / "b", predictions=tmp_path / "masks")
    assert main(["score", f"{dataset_file}", "--method", "b", "--output", f"{tmp_path}/b"]) == 2


@pytest.mark.parametrize("form", ["turned", "slices"])
def test_masks_of_volumes_come_in_any_axes_or_as_axial_slices(form, tmp_path):
    """An oblique corner in a volume whose axes are neither LPS nor in order: any turn or mirror would move it."""
    truth, affine = (
        np.zeros((6, 4, 7), np.uint8),
        np.array([[0, 0, 2.0, 3], [-1.5, 0, 0, 9], [0, 3.0, 0, 1], [0, 0, 0, 1]]),
    )
    truth[:2, 1:3, :3] = 1
    truth[2, 1, 0] = 1
    write_volume(tmp_path / "image.nii.gz", np.arange(168, dtype=np.int16).reshape(6, 4, 7), affine)
    write_volume(tmp_path / "label.nii.gz", truth, affine)
    entry = {"image": "image.nii.gz", "label": "label.nii.gz", "group": "a", "case": "a"}
    header = {"name": "livers", "modality": "MR", "channels": 1, "labels": LABELS}
    datalist.write(tmp_path / "dataset.json", {**header, "training": [], "validation": [], "test": [entry]})
    (tmp_path / "masks/deep").mkdir(parents=True)
    turned, turned_affine = to_lps(truth, affine)
    assert turned.shape == (7, 6, 4)
    if form == "turned":
        write_volume(tmp_path / "masks/deep/a_seg.nii.gz", turned, turned_affine)
    else:
        for k in range(turned.shape[2]):
            if turned[:, :, k].any():  # a slice without a structure may be left out
                Image.fromarray(turned[:, :, k].T).save(tmp_path / f"masks/deep/a_{k:03d}.png")
    rows = read_rows(
        score_labels(tmp_path / "dataset.json", None, "b", tmp_path / "run", predictions=tmp_path / "masks")
    )
    assert {row.value for row in rows if row.metric == "dice"} == {1.0}


def _predictions(folder, masks):
    folder.mkdir()
    for case, mask in masks.items():
        Image.fromarray(mask).save(folder / f"{case}.png")
    return folder


def _seconds(dataset_file):
    """The second masks without what nobody labelled, [rows, columns]."""
    return {
        entry["case"]: np.where((mask := pixels(dataset_file, entry["label_2nd"]).T) == 255, 0, mask)
        for entry in datalist.read(dataset_file)["test"]
    }


@pytest.mark.parametrize("kind", ["relative", "white", "white of 16 bits", "palette"])
def test_masks_of_another_program_mean_what_a_viewer_shows(dataset_file, tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = _predictions(tmp_path / "masks", _seconds(dataset_file))
    for path in folder.iterdir():
        mask = np.asarray(Image.open(path))
        if kind == "white":
            Image.fromarray(mask * 255).save(path)
        elif kind == "white of 16 bits":
            Image.fromarray(mask.astype(np.uint16) * 65535).save(path)
        elif kind == "palette":  # position 0 is grey 1, position 1 grey 0
            turned = Image.fromarray(1 - mask)
            turned.putpalette([1, 1, 1, 0, 0, 0])
            turned.save(path)
    rows = read_rows(score_labels(dataset_file, None, "b", tmp_path / "b", predictions="masks"))
    assert rows == read_rows(score_labels(dataset_file, "label_2nd", "b", tmp_path / "a"))


def test_a_mask_with_another_value_is_named(dataset_file, tmp_path):
    masks = _seconds(dataset_file)
    folder = _predictions(tmp_path / "masks", {**masks, "c1": masks["c1"] * 4})
    with pytest.raises(TskdError, match=r"masks/c1\.png: expected class indices 0 to 1, .* found 0, 4\. Write"):
        score_labels(dataset_file, None, "b", tmp_path / "b", predictions=folder)
    masks["c2"][8, 6] = 255  # beside class 1, and where the truth has a label
    shutil.rmtree(folder)
    with pytest.raises(TskdError, match=r"prediction: expected class indices .* found \[255\]"):
        score_labels(dataset_file, None, "b", tmp_path / "b", predictions=_predictions(folder, masks))


def test_palettes_of_other_orders_are_refused(dataset_file, tmp_path):
    folder = _predictions(tmp_path / "masks", _seconds(dataset_file))
    for path, palette in zip(sorted(folder.iterdir()), ([0, 0, 0, 255, 0, 0], [0, 0, 0, 0, 255, 0]), strict=False):
        picture = Image.open(path)
        picture.putpalette(palette)
        picture.save(path)
    with pytest.raises(TskdError, match=r"c1\.png: expected the palette of c0\.png"):
        score_labels(dataset_file, None, "b", tmp_path / "b", predictions=folder)


@pytest.fixture
def volume(tmp_path):
    """One test volume of 6 x 7 x 4 voxels in RAS order, and its true mask."""
    truth, affine = np.zeros((6, 7, 4), np.uint8), np.diag([1.0, 1.0, 3.0, 1.0])
    truth[:3, :2, 1:3] = 1
    truth[4:, 5:, 2] = 2
    write_volume(tmp_path / "image.nii.gz", np.arange(168, dtype=np.int16).reshape(6, 7, 4), affine)
    write_volume(tmp_path / "label.nii.gz", truth, affine)
    entry = {"image": "image.nii.gz", "label": "label.nii.gz", "group": "a", "case": "a"}
    header = {"name": "livers", "modality": "MR", "channels": 1, "labels": {**LABELS, "2": "duct"}}
    datalist.write(tmp_path / "dataset.json", {**header, "training": [], "validation": [], "test": [entry]})
    return tmp_path / "dataset.json", to_lps(truth, affine)[0]


@pytest.mark.parametrize("palette", [False, True])
def test_slices_are_stacked_as_the_volume_lies(volume, tmp_path, palette, caplog):
    dataset_file, truth = volume
    slices = {f"a_{k:03d}": truth[:, :, k].T for k in range(1, 4)}
    folder = _predictions(tmp_path / "masks", slices)
    if palette:  # a grey palette in another order
        for path in folder.iterdir():
            picture = Image.fromarray(2 - np.asarray(Image.open(path)))
            picture.putpalette([2, 2, 2, 1, 1, 1, 0, 0, 0])
            picture.save(path)
    rows = read_rows(score_labels(dataset_file, None, "b", tmp_path / "b", predictions=folder))
    assert {(row.label, row.value) for row in rows if row.metric == "dice"} == {("vessel", 1.0), ("duct", 1.0)}
    assert "a: 1 of 4 axial slices are not there (0), and count as without a structure" in caplog.text
