"""Hard masks of the teacher."""

import pytest
import torch

from tskd.errors import TskdError
from tskd.pretraining import PseudoLabeld


def test_argmax_of_logits_of_the_images_size():
    logits = torch.randn(3, 16, 16).half()
    entry = PseudoLabeld(num_classes=3)({"image": torch.rand(1, 16, 16), "logits": logits, "case": "a"})
    assert sorted(entry) == ["case", "image", "label"]
    assert entry["label"].dtype == torch.uint8
    assert torch.equal(entry["label"][0].long(), logits.argmax(0))


def test_interpolates_before_it_decides():
    """The border between two classes lies where their interpolated logits are equal, not on the logits' grid."""
    slope = torch.linspace(-1.0, 1.0, 4) + 0.2
    logits = torch.stack([torch.zeros(4, 4), slope.expand(4, 4)])
    label = PseudoLabeld(num_classes=2)({"image": torch.rand(1, 32, 32), "logits": logits})["label"]
    centres = (torch.arange(32) + 0.5) / 8 - 0.5  # of the fine pixels, on the coarse grid
    expected = (centres.clamp(0, 3) * 2 / 3 - 1 + 0.2) > 0
    assert torch.equal(label[0].bool(), expected.expand(32, 32))


def test_teacher_of_other_classes_is_refused():
    with pytest.raises(TskdError, match=r"of a: expected logits of 3 classes \(key num_classes\), found 5"):
        PseudoLabeld(num_classes=3)({"image": torch.rand(1, 8, 8), "logits": torch.rand(5, 4, 4), "case": "a"})
