"""Soft labels of several teachers: the ensemble's probabilities, whatever the logits' scale and resolution."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tskd.distillation import (
    AverageSoftLabelsd,
    add_soft_labels,
    add_teachers,
    soft_labels_identity,
)
from tskd.distillation.soft_labels.ensemble import averaged
from tskd.errors import TskdError
from tskd.networks import build_sam


@pytest.fixture
def folders(write, tmp_path):
    """Soft labels of the teacher in `soft`, of another with other weights in `other`."""
    write()
    torch.manual_seed(1)
    (tmp_path / "other.pt").write_bytes(b"other weights")
    write(
        output_dir=tmp_path / "other", network=build_sam("mobile_sam", 3, 64).eval(), teacher=tmp_path / "other.pt",
        embedding=False,
    )  # fmt: skip
    return [tmp_path / "soft", tmp_path / "other"]


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(0, keepdims=True)


def test_averages_the_probabilities_and_takes_the_first_embedding(folders, entries):
    found = [AverageSoftLabelsd([1, 3])(entry) for entry in add_teachers(entries, folders, [1, 3])]
    assert len(found) == 5
    for entry, read in zip(entries, found, strict=True):
        files = [load_file(folder / f"{entry['case']}.safetensors") for folder in folders]
        one, other = (softmax(file["logits"].double().numpy()) for file in files)
        np.testing.assert_allclose(read["logits"].float().softmax(0), 0.25 * one + 0.75 * other, atol=2e-3)
        assert torch.equal(read["embedding"], files[0]["embedding"])
        assert (read["image"], read["case"]) == (entry["image"], entry["case"])


def test_logits_of_another_scale_or_offset_have_no_more_say():
    """A logit shifted for all classes is the same prediction; the mean of logits would not see that."""
    one, other = torch.tensor([4.0, 0.0])[:, None, None], torch.tensor([-100.0, -96.0])[:, None, None]
    assert averaged([one, other], [0.5, 0.5]).float().softmax(0).flatten().tolist() == pytest.approx([0.5, 0.5])


def test_a_teacher_averaged_with_itself_is_itself():
    """Far tails count once a temperature is put to them."""
    logits = torch.tensor([20.0, -20.0, 0.0]).view(3, 1, 1)
    both = averaged([logits, logits], [0.3, 0.7]).float()
    torch.testing.assert_close((both / 4).softmax(0), (logits / 4).softmax(0), atol=0, rtol=0.01)


def test_another_resolution_is_brought_to_the_largest():
    small, large = torch.randn(3, 2, 2), torch.randn(3, 8, 8)
    result = averaged([small, large], [1.0, 1.0])
    assert result.shape == (3, 8, 8)
    up = torch.nn.functional.interpolate(small.softmax(0)[None], (8, 8), mode="bilinear")[0]
    torch.testing.assert_close(result.float().softmax(0), (up + large.softmax(0)) / 2, atol=2e-3, rtol=2e-3)


def test_one_teacher_is_read_as_it_is(folders, entries):
    (first, *_), (expected, *_) = add_teachers(entries, folders[0]), add_soft_labels(entries, folders[0])
    assert first == expected
    read, plain = AverageSoftLabelsd()(first), load_file(expected["soft_labels"])
    assert all(torch.equal(read[key], plain[key]) for key in ("logits", "embedding"))


def test_only_what_is_wanted(folders, entries):
    entry = add_teachers(entries, folders, [1, 1])[0]
    assert "embedding" not in AverageSoftLabelsd([1, 1], embedding=False)(entry)
    assert "logits" not in AverageSoftLabelsd([1, 1], logits=False)(entry)
    with pytest.raises(TskdError, match="expected 'embedding', found"):  # the first teacher has none
        AverageSoftLabelsd([1, 1])(add_teachers(entries, folders[::-1], [1, 1])[0])


def test_a_teacher_may_have_several_folders(folders, entries, weights, write, tmp_path):
    expected = [AverageSoftLabelsd([1, 3])(entry) for entry in add_teachers(entries, folders, [1, 3])]
    write(output_dir=tmp_path / "half", entries=entries[:2])
    write(output_dir=tmp_path / "rest", entries=entries[2:])
    halves = [[tmp_path / "half", tmp_path / "rest"], folders[1]]
    found = [AverageSoftLabelsd([1, 3])(entry) for entry in add_teachers(entries, halves, [1, 3])]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one["logits"], other["logits"], rtol=0, atol=2e-2)  # batches of other images
    assert soft_labels_identity(halves, [1, 3]) == soft_labels_identity(folders, [1, 3])
    with pytest.raises(TskdError, match=r"half.* do not cover the data: case_2: no soft labels"):
        add_teachers(entries, [[tmp_path / "half"], folders[1]], [1, 1])
    with pytest.raises(TskdError, match=r"expected the folder or folders of one teacher, found .* teacher_weights"):
        add_teachers(entries, halves)


def test_the_identity_knows_which_teacher_has_which_weight(folders):
    assert soft_labels_identity(folders, [1, 3]) != soft_labels_identity(folders[::-1], [1, 3])
    assert soft_labels_identity(folders) == soft_labels_identity(folders[::-1])  # of one teacher in several folders


@pytest.mark.parametrize("shares", [[1.0], [1.0, 0.0], [1.0, 1.0, 1.0]])
def test_a_weight_for_each_folder(folders, entries, shares):
    with pytest.raises(TskdError, match="teacher_weights: expected a number above 0 for each folder"):
        add_teachers(entries, folders, shares)


def test_refused(folders, entries, weights, write, tmp_path, teacher):
    with pytest.raises(TskdError, match="teacher_model: expected None"):
        add_teachers(entries, folders, [1, 1], teacher=weights)
    (folders[1] / "case_3.safetensors").unlink()
    with pytest.raises(TskdError, match=r"other do not cover the data: case_3: .* is gone"):
        add_teachers(entries, folders, [1, 1])
    write(output_dir=tmp_path / "five", network=build_sam("mobile_sam", 5, 64).eval())
    entry = add_teachers(entries[:1], [folders[0], tmp_path / "five"], [1, 1])[0]
    with pytest.raises(TskdError, match=r"the same classes of every teacher, found \[3, 5\] classes"):
        AverageSoftLabelsd([1, 1])(entry)
