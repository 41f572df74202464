"""Which images are labelled, unlabelled and synthetic, what the student sees of them, and in which numbers."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from tskd.data import read, write
from tskd.data.hashing import content_hashes, volume_slices
from tskd.distillation import FillLabeld, batch_counts, half_labelled, transfer_entries, transfer_identity
from tskd.errors import TskdError
from tskd.workflow.sublist import first_images

LABELS = {"0": "background", "1": "liver"}


def dataset(path: Path, training: int, unlabelled: int, source: str = "a clinic") -> Path:
    name = path.parent.name

    def entry(number: int, label: bool) -> dict[str, str]:
        case = f"{name}_{number}"
        return {"image": f"{case}.png", "group": name, "case": case} | ({"label": f"{case}_l.png"} if label else {})

    data = {
        "name": name, "modality": "MR", "channels": 1, "labels": LABELS, "validation": [], "test": [],
        "training": [entry(i, True) for i in range(training)],
        "unlabelled": [entry(i, False) for i in range(training, training + unlabelled)],
        "provenance": {"source": source},
    }  # fmt: skip
    write(path, data)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [
        dataset(tmp_path / "drawn" / "dataset.json", 0, 3, "synthetic: sampled from a diffusion model"),
        dataset(tmp_path / "study" / "dataset.json", 6, 2),
        dataset(tmp_path / "archive" / "dataset.json", 1, 4),
    ]


def parts(data: list[dict[str, str]]) -> list[str]:
    return [f"{entry['part']} {entry['case']}" for entry in data]


def test_parts_one_after_the_other(files):
    data = transfer_entries(files, files[1], 2)
    assert parts(data) == [
        "labelled study_0", "labelled study_1",
        *(f"unlabelled study_{i}" for i in range(2, 8)), *(f"unlabelled archive_{i}" for i in range(5)),
        *(f"synthetic drawn_{i}" for i in range(3)),
    ]  # fmt: skip
    assert not any("label" in entry for entry in data)


def test_only_the_budgets_labels_are_seen(files):
    data = transfer_entries(files, files[1], 2, with_labels=True)
    assert [entry["case"] for entry in data if "label" in entry] == ["study_0", "study_1"]
    assert data[0]["label"] == str(files[1].parent / "study_0_l.png")
    for listed, budget in ((files, 0), (files[:1], 2)):
        with pytest.raises(TskdError, match=r"labelled_weight: expected labelled images among .*, found none"):
            transfer_entries(listed, files[1], budget, with_labels=True)
    # a data set whose images are not learned from has no labelled part
    assert {entry["part"] for entry in transfer_entries(files[:1], files[1])} == {"synthetic"}


def test_an_image_is_the_same_through_another_list_and_a_link(files, tmp_path):
    """As the list of the labelled images alone, which a study writes into a folder of its own."""
    (tmp_path / "link").symlink_to(files[1].parent)
    source = tmp_path / "link" / "dataset.json"
    first_images(source, 3, tmp_path / "few" / "dataset.json")
    data = transfer_entries([tmp_path / "few" / "dataset.json"], files[1], 2, with_labels=True)
    assert parts(data) == ["labelled study_0", "labelled study_1", "unlabelled study_2"]
    assert [entry["case"] for entry in data if "label" in entry] == ["study_0", "study_1"]
    with pytest.raises(TskdError, match=r"expected each image once, found 3 twice"):
        transfer_entries([tmp_path / "few" / "dataset.json", files[1]], files[1], 2)


def test_the_list_of_all_labelled_images(files, tmp_path):
    content = read(files[1])
    content["unlabelled"] = [{key: value for key, value in content["training"].pop().items() if key != "label"}]
    write(files[1], content)
    first_images(files[1], None, tmp_path / "few" / "dataset.json")
    found = read(tmp_path / "few" / "dataset.json")
    assert len(found["training"]) == len(content["training"]) > 0
    assert not found["unlabelled"]


def test_a_shorter_list_keeps_what_is_held_out(tmp_path):
    source = dataset(tmp_path / "study" / "dataset.json", 3, 1)
    content = read(source)
    content["test"] = [{**content["training"].pop(), "group": "held out"}]
    write(source, content)
    first_images(source, 1, tmp_path / "few" / "dataset.json")
    found = read(tmp_path / "few" / "dataset.json")
    assert [entry["case"] for entry in found["training"]] == ["study_0"]
    assert found["test"] == [{**content["test"][0], "image": "../study/study_2.png", "label": "../study/study_2_l.png"}]


def test_a_second_observers_label_is_found_from_another_list(files, tmp_path):
    data = read(files[1])
    data["training"][0]["label_2nd"] = data["training"][0]["label"]
    write(files[1], data)
    first_images(files[1], 1, tmp_path / "few" / "dataset.json")
    (entry,) = read(tmp_path / "few" / "dataset.json")["training"]
    assert entry["label_2nd"] == entry["label"] != data["training"][0]["label"]


def test_counts_of_a_batch(files):
    data = transfer_entries(files, files[1], 2)
    assert batch_counts(data, {"labelled": 2, "unlabelled": 4, "synthetic": 2}, 8) == [(2, 2), (11, 4), (3, 2)]
    assert batch_counts(data, {"synthetic": 1, "labelled": 1}, 2) == [(2, 1), (11, 0), (3, 1)]
    assert batch_counts(data, None, 8) is None


@pytest.mark.parametrize("ratio", [{"labelled": 2, "other": 6}, {"labelled": 4}, {"labelled": 9, "unlabelled": -1}])
def test_numbers_that_do_not_fit(files, ratio):
    with pytest.raises(TskdError, match=r"batch_ratio: .* sum to the batch_size 8, found"):
        batch_counts(transfer_entries(files, files[1], 2), ratio, 8)


def test_a_part_without_images(files):
    data = transfer_entries(files[1:], files[1], 2)
    with pytest.raises(TskdError, match="found none that are synthetic"):
        batch_counts(data, {"labelled": 2, "synthetic": 6}, 8)


@pytest.mark.parametrize(
    ("parts", "ratio"),
    [
        (["labelled", "unlabelled"], {"labelled": 4, "unlabelled": 5}),
        (["labelled", "unlabelled", "synthetic"], {"labelled": 4, "unlabelled": 3, "synthetic": 2}),
        (["labelled", "synthetic"], {"labelled": 4, "synthetic": 5}),
        (["labelled"], {"labelled": 9}),
    ],
)
def test_half_of_a_batch_is_labelled_where_there_are_further_images(parts, ratio):
    data = [{"part": part} for part in parts for _ in range(3)]
    assert half_labelled(data, 9) == ratio
    assert batch_counts(data, half_labelled(data, 9), 9) is not None


def test_missing_labels_say_so():
    image = torch.rand(3, 5, 7)
    filled = FillLabeld()({"image": image})
    assert filled["label"].shape == (1, 5, 7)
    assert filled["label"].dtype == torch.uint8
    assert bool((filled["label"] == 255).all())
    label = torch.zeros(1, 5, 7)
    assert FillLabeld()({"image": image, "label": label})["label"] is label


def test_the_identity_tells_which_images_these_are_and_not_where_they_lie(tmp_path):
    def identity(folder: str, pixels: bytes = b"pixels", **more) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.png").write_bytes(pixels)
        entry = {"image": str(tmp_path / folder / "a.png"), "group": "g", "case": "a", "part": "unlabelled", **more}
        return transfer_identity([entry])

    here = identity("here")
    assert identity("there") == here
    assert len({here, identity("here", b"others"), identity("here", case="b"), identity("here", part="labelled")}) == 4


def split(path: Path, name: str, **lists: list[str]) -> Path:
    """A data set of 2-D images that are as their case names say, one a patient."""
    path.parent.mkdir()
    data: dict[str, Any] = {
        "name": name,
        "modality": "MR",
        "channels": 1,
        "labels": LABELS,
        "training": [],
        "validation": [],
        "test": [],
    }
    for key, cases in lists.items():
        data[key] = [
            {"image": f"{case}.png", "group": f"patient {case}", "case": f"{path.parent.name}_{case}"} for case in cases
        ]
        for case in cases:
            Image.new("L", (4, 4), ord(case)).save(path.parent / f"{case}.png")
            if key != "unlabelled":
                data[key][cases.index(case)]["label"] = "label.png"
    write(path, data)
    return path


def test_an_image_twice_and_other_channels_are_refused(files):
    with pytest.raises(TskdError, match=r"each image once, found 8 twice, such as .*study_0\.png"):
        transfer_entries([files[1], files[1]], files[1])
    write(files[0], {**read(files[0]), "channels": 3})
    with pytest.raises(TskdError, match=r"drawn/dataset\.json: expected images of 1 channels .*, found 3"):
        transfer_entries(files, files[1])


def test_images_drawn_by_a_model_that_has_seen_a_held_out_patient_are_refused(tmp_path, files):
    own = split(tmp_path / "own" / "dataset.json", "study", training=["a"], test=["b"])
    for number, case in enumerate("ab"):
        Image.new("L", (4, 4), 100 + number).save(own.parent / f"{case}.png")
    for entry in read(files[0])["unlabelled"]:
        Image.new("L", (4, 4), 7).save(files[0].parent / entry["image"])
    seen = {case: list(content_hashes(own.parent / f"{case}.png")) for case in "ab"}
    drawn = read(files[0])
    for case in "ab":
        write(files[0], {**drawn, "provenance": {**drawn["provenance"], "trained_on": seen[case]}})
        if case == "a":
            assert len(transfer_entries([own, files[0]], own)) == 4
        else:
            with pytest.raises(TskdError, match=r"drawn by a model that was trained on .*b\.png \(in 'test'\)"):
                transfer_entries([own, files[0]], own)


def test_a_generator_that_does_not_say_what_it_has_seen_is_named(files, caplog):
    assert "drawn" in str(files[0])
    transfer_entries(files, files[1])
    assert "drawn/dataset.json does not say which images its generator was trained on" in caplog.text
    assert caplog.text.count("does not say") == 1


def test_images_of_the_validation_and_test_lists_are_refused(tmp_path):
    own = split(tmp_path / "own" / "dataset.json", "study", training=["a", "b"], validation=["c"], test=["d", "e"])
    again = split(tmp_path / "again" / "dataset.json", "collection", unlabelled=["a", "c", "x"], training=["d"])
    with pytest.raises(TskdError) as error:
        transfer_entries([own, again], own, 1)
    for text in (
        f"{again}: expected nothing of the validation and test lists of {own}, found ",
        f"'again_c', which is {own.parent}/c.png (in 'validation')",
        f"'again_d', which is {own.parent}/d.png (in 'test')",
    ):  # fmt: skip
        assert text in str(error.value)
    assert "own_a" not in str(error.value)
    other = split(tmp_path / "other" / "dataset.json", "collection", unlabelled=["a", "x"], test=["c", "d"])
    assert len(transfer_entries([own, other], own, 1)) == 4  # what it holds out itself is not learned from


def test_patients_of_the_validation_and_test_lists_of_another_fold_are_refused(tmp_path):
    """Their slices are other files than the volumes of these lists."""
    own = split(tmp_path / "fold0" / "dataset.json", "study", training=["a"])
    data = read(own)
    data["test"] = [{"image": "d.nii.gz", "label": "d_label.nii.gz", "group": "patient d", "case": "fold0_d"}]
    write(own, data)
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.uniform(0, 900, (8, 6, 5)).astype(np.float32), np.eye(4)), own.parent / "d.nii.gz")
    fold = split(tmp_path / "fold1" / "dataset.json", "study", training=["a", "d"])
    with pytest.raises(TskdError, match=r"found patient 'patient d' of 'test'\. Learning from them"):
        transfer_entries([own, fold], own)
    elsewhere = split(tmp_path / "archive" / "dataset.json", "archive", training=["a", "d"])  # a namesake
    assert len(transfer_entries([own, elsewhere], own)) == 3
    for _, grey in volume_slices(own.parent / "d.nii.gz"):
        Image.fromarray(np.ascontiguousarray(grey.T)).save(elsewhere.parent / "d.png")  # and the patient indeed
    with pytest.raises(TskdError, match=r"'archive_d', which is .*/fold0/d\.nii\.gz \(in 'test'\)"):
        transfer_entries([own, elsewhere], own)


def test_a_test_image_saved_again_is_refused(tmp_path):
    own = split(tmp_path / "own" / "dataset.json", "study", training=["a"], test=["d"])
    other = split(tmp_path / "other" / "dataset.json", "collection", unlabelled=["x"])
    Image.open(own.parent / "d.png").convert("RGB").save(other.parent / "x.png", compress_level=0)
    with pytest.raises(TskdError, match=r"'other_x', which is .*d\.png \(in 'test'\)"):
        transfer_entries([own, other], own)
