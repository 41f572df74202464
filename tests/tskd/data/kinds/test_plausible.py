"""What was said is compared with what is there: names, structures, windows, units, sizes. Every warning fires."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tskd.data.kinds.studies import image_of, label_of, make, prepare, refusal, said, save_picture, save_volume
from tskd.data import checks, datalist
from tskd.errors import user_message


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("background", "liver"), "0 is the background"),
        (("Background",), "0 is the background"),
        (("liver", "BG"), "0 is the background"),
        (("liver", "liver"), "each name once"),
        (("left kidney", "Left_Kidney"), "each name once"),
        (("liver", ""), "expected a name for the mask value 2"),
    ],
)
@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_names(tmp_path: Path, kind: str, labels: tuple[str, ...], words: str) -> None:
    assert words in refusal(make(tmp_path, kind), kind, labels=labels)


@pytest.mark.parametrize("kind", ["pictures", "volumes", "dicom"])
def test_a_structure_that_no_training_label_shows(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    text = said(caplog, prepare(make(tmp_path, kind), kind, labels=("liver", "spleen")))
    assert "spleen (mask value 2): in no label of the training list" in text
    assert "liver" not in text


def test_a_structure_in_none_of_the_labels_of_a_budget(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the start of a training."""
    folder = make(tmp_path, "pictures")
    path = prepare(folder, "pictures", labels=("liver", "spleen"))
    data = datalist.read(path)
    last = data["training"][-1]
    label = label_of(0)[..., 0]
    label[5:] = 2
    save_picture(path.parent / last["label"], label)
    caplog.clear()
    checks.check_for_training(path, num_classes=3, in_channels=1, num_labelled=len(data["training"]))
    assert not caplog.records
    checks.check_for_training(path, num_classes=3, in_channels=1, num_labelled=2)
    assert "spleen (mask value 2): in none of the first 2 training labels" in caplog.text
    assert "training 1 (1 patient)" in caplog.text
    caplog.clear()
    checks.check_for_training(path, num_labelled=0)  # a distillation without labels
    assert not caplog.records


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_empty_masks_are_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path, kind)
    for path in (folder / "masks").iterdir():
        empty = np.zeros_like(label_of(0))
        save_picture(path, empty[..., 0]) if kind == "pictures" else save_volume(path, empty)
    assert "masks: expected a structure in at least one, found the background alone" in refusal(folder, kind)
    assert not list(tmp_path.rglob("dataset.json"))


def test_a_structure_that_a_list_does_not_measure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "pictures")
    path = prepare(folder, "pictures")
    for entry in datalist.read(path)["test"]:
        save_picture(path.parent / entry["label"], np.zeros_like(label_of(0)[..., 0]))
    caplog.clear()
    checks.check(path)
    assert "liver (mask value 1): in no label of the test list, so nothing is measured of it there" in caplog.text


@pytest.mark.parametrize("end", ["black", "white"])
def test_a_window_that_cuts_a_structure_off(tmp_path: Path, end: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "volumes")
    for number in range(6):
        image = np.where(label_of(number), -600 if end == "black" else 900, image_of(number)).astype(np.int16)
        save_volume(folder / f"images/p{number}.nii.gz", image)
    text = said(caplog, prepare(folder, "volumes", window=(-160, 240)))
    assert "liver: expected intensities inside the scaling (window -160 to 240)" in text
    assert f"{end} end in" in text


@pytest.mark.parametrize(("factor", "offset"), [(0.01, 0), (100, 0), (1, 1024)])
def test_a_patient_in_another_unit(
    tmp_path: Path, factor: float, offset: float, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path, "volumes")
    save_volume(folder / "images/p3.nii.gz", (image_of(3) * factor + offset).astype(np.float32))
    text = said(caplog, prepare(folder, "volumes"))
    assert "intensities: expected one unit in all images" in text
    assert "p3 (" in text


def test_a_picture_of_0_to_1_among_those_of_0_to_255(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "pictures")
    save_picture(folder / "images/p3.png", image_of(3)[..., 0] > 60)
    assert "p3 (" in said(caplog, prepare(folder, "pictures"))


def test_brighter_pictures_are_no_other_unit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "pictures")
    save_picture(folder / "images/p3.png", image_of(3)[..., 0] // 2 + 120)
    assert "intensities" not in said(caplog, prepare(folder, "pictures"))


@pytest.mark.parametrize("norm", [torch.nn.BatchNorm2d(4), torch.nn.InstanceNorm2d(4)])
def test_one_value_for_a_normalisation_names_the_two_keys(norm: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="Expected more than 1") as caught:
        norm(torch.zeros(1, 4, 1, 1))
    message = user_message(caught.value)
    assert message is not None
    assert "batch_size, image_size: expected more than one value" in message
    assert "[1, 4, 1, 1]" in message
