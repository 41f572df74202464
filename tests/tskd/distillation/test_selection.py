"""Synthetic images that the teacher cannot read are left out, others never."""

import pytest
import torch
from safetensors.torch import save_file

from tskd.distillation import select_confident
from tskd.distillation.selection import mean_entropy
from tskd.errors import TskdError


def logits(certainty: float, organ: float = 0.25) -> torch.Tensor:
    """Two classes, 8 x 8: a structure in so large a part of the image, `certainty` logits apart from the background."""
    rows = torch.arange(64).reshape(8, 8) < organ * 64
    structure = torch.where(rows, certainty, -8.0)
    return torch.stack([torch.zeros_like(structure), structure]).half()


@pytest.fixture
def entries(tmp_path):
    """A labelled image that is read badly, then four synthetic ones; one of these shows nothing."""
    made = {
        "real": ("labelled", logits(0.1)),
        "a": ("synthetic", logits(2.0)),
        "b": ("synthetic", logits(0.2)),
        "empty": ("synthetic", logits(9.0, organ=0)),
        "c": ("synthetic", logits(6.0)),
    }
    listed = []
    for case, (part, array) in made.items():
        save_file({"logits": array}, tmp_path / f"{case}.safetensors")
        listed.append(
            {"image": f"{case}.png", "case": case, "part": part, "soft_labels": str(tmp_path / f"{case}.safetensors")}
        )
    return listed


@pytest.mark.parametrize(
    ("count", "kept"), [(None, "real a b empty c"), (2, "real a c"), (3, "real a b c"), (4, "real a b empty c")]
)
def test_the_most_confident_are_kept_in_their_order_and_real_images_always(entries, count, kept):
    assert [entry["case"] for entry in select_confident(entries, count)] == kept.split()


def test_images_of_two_generators_may_have_one_name(entries):
    unread = {**entries[2], "case": entries[4]["case"]}  # read badly, and called as the most confident one
    assert [entry["image"] for entry in select_confident([unread, entries[4]], 1)] == ["c.png"]


def test_mean_entropy_is_taken_where_a_structure_is_possible():
    share = torch.tensor(2.0).sigmoid()
    expected = -(share * share.log() + (1 - share) * (1 - share).log())
    assert mean_entropy(logits(2.0)) == pytest.approx(float(expected), rel=1e-3)
    assert mean_entropy(logits(9.0, organ=0)) == float("inf")


def test_of_several_teachers_the_average_counts(entries):
    agreeing, torn = entries[4]["soft_labels"], entries[2]["soft_labels"]
    synthetic = [
        {**entries[1], "soft_labels": [agreeing, torn]},
        {**entries[4], "soft_labels": [agreeing, agreeing]},
    ]
    assert [entry["case"] for entry in select_confident(synthetic, 1, [1.0, 1.0])] == ["c"]


@pytest.mark.parametrize("count", [0, 5])
def test_numbers_that_do_not_fit(entries, count):
    with pytest.raises(
        TskdError, match=f"max_confident_synthetic: expected a number from 1 to the 4 synthetic images, found {count}"
    ):
        select_confident(entries, count)
