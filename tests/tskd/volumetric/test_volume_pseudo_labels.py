"""Pseudo-labels of patches: those of images where a patch has one slice; whole patches agree, and are cut through."""

from typing import Any

import pytest
import torch
from torch import nn

from tskd.distillation import BatchAugmentation, SemiSupervisedBatch
from tskd.volumetric import VolumeSemiSupervisedBatch

TARGETS = ["label", "logits", "weight"]
STRONG = {"rotate": 0, "scale": 0, "translate": 0, "shear": 0, "gamma": 0.7, "brightness": 0.4, "noise": 0, "blur": 0.5}


def batch(slices: int) -> dict[str, torch.Tensor]:
    """Two labelled patches and two others."""
    torch.manual_seed(1)
    label = torch.randint(0, 3, (4, 1, 16, 16, slices), dtype=torch.uint8)
    label[2:] = 255
    shape = (4, 3, 16, 16, slices)
    return {"image": torch.rand(4, 1, 16, 16, slices), "label": label, "logits": 3 * torch.randn(shape)}


@pytest.mark.parametrize("ratio", [0, "agreement", 1])
def test_a_patch_of_one_slice_is_taught_as_the_image_is(ratio: Any) -> None:
    flat, deep = nn.Conv2d(1, 3, 1), nn.Conv3d(1, 3, 1)
    deep.load_state_dict(
        {key: value[..., None] if value.ndim > 1 else value for key, value in flat.state_dict().items()}
    )
    settings: dict[str, Any] = {"ratio": ratio, "threshold": 0.5, "cutmix": 1.0, "targets": TARGETS}
    volume = VolumeSemiSupervisedBatch(None, deep, strong=BatchAugmentation(**STRONG), **settings)
    plane = SemiSupervisedBatch(None, flat, strong=BatchAugmentation(**STRONG), **settings)
    data = batch(1)
    torch.manual_seed(0)
    image, target = volume(data)
    torch.manual_seed(0)
    image_2d, target_2d = plane({key: value[..., 0] for key, value in data.items()})
    assert target.keys() == target_2d.keys()
    torch.testing.assert_close(image[..., 0], image_2d)
    for key, value in target_2d.items():
        torch.testing.assert_close(target[key][..., 0], value, msg=key)


def test_agreement_is_of_the_whole_patch_and_labels_stay() -> None:
    data = batch(4)
    average = nn.Conv3d(1, 3, 1)
    image, target = VolumeSemiSupervisedBatch(None, average, cutmix=0, threshold=0.5, targets=TARGETS)(data)
    assert torch.equal(image, data["image"])  # neither strong view nor CutMix
    assert torch.equal(target["label"], data["label"])
    teacher, student = data["logits"].softmax(1), average(data["image"]).softmax(1).detach()
    p, q = teacher[:, 1:], student[:, 1:]
    dice = 2 * (p * q).sum((1, 2, 3, 4)) / (p.square() + q.square()).sum((1, 2, 3, 4))
    share = (dice / 2).view(-1, 1, 1, 1, 1)
    expected = (1 - share) * teacher + share * student
    torch.testing.assert_close(target["logits"].exp(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(target["weight"], (expected.amax(1, keepdim=True) >= 0.5).float())


def test_a_cutmix_box_goes_through_all_slices() -> None:
    data = batch(4)
    data["image"][3] = 2.0  # of the last patch, so that what comes from it is known
    data["image"][2] = 0.5
    teach = VolumeSemiSupervisedBatch(None, nn.Conv3d(1, 3, 1), cutmix=1.0, targets=TARGETS)
    pasted = []
    for seed in range(6):  # with two patches every second draw pastes from the patch itself
        torch.manual_seed(seed)
        image, _ = teach(data)
        assert torch.equal(image[:2], data["image"][:2])
        pasted.append((image[2:] != data["image"][2:]).flatten(0, 1))
    boxes = torch.cat(pasted)
    assert boxes.any()
    whole = boxes.all(-1) == boxes.any(-1)  # all slices or none, but in the first and the last row of a box
    assert whole.float().mean() > 0.85
