"""What the engine gets from a collated batch."""

import torch
from monai.data import MetaTensor

from tskd.distillation import AugmentedBatch, BatchAugmentation

BATCH = {
    "image": MetaTensor(torch.rand(2, 1, 8, 8)),
    "label": MetaTensor(torch.randint(0, 3, (2, 1, 8, 8), dtype=torch.uint8)),
    "logits": torch.randn(2, 3, 4, 4),
    "embedding": torch.randn(2, 5, 2, 2),
    "case": ["a", "b"],
}
IDENTITY = {"rotate": 0, "scale": 0, "translate": 0, "shear": 0, "gamma": 0, "brightness": 0, "noise": 0, "blur": 0}


def test_one_target_is_a_tensor():
    image, label = AugmentedBatch(None)(BATCH, "cpu")
    assert type(image) is type(label) is torch.Tensor
    assert torch.equal(image, BATCH["image"].as_tensor())
    assert torch.equal(label, BATCH["label"].as_tensor())


def test_several_targets_are_a_dict_without_the_rest():
    image, target = AugmentedBatch(None, targets=["logits", "embedding"])(BATCH, "cpu")
    assert torch.equal(image, BATCH["image"].as_tensor())
    assert list(target) == ["logits", "embedding"]
    assert all(torch.equal(target[key], BATCH[key]) for key in target)


def test_a_list_of_one_target_is_a_dict_too():
    _, target = AugmentedBatch(None, targets=["embedding"])(BATCH, "cpu")
    assert list(target) == ["embedding"]


def test_augments_image_and_target_together():
    mirror = AugmentedBatch(BatchAugmentation(**IDENTITY, flip=1), targets=["logits", "label"])
    image, target = mirror(BATCH, "cpu")
    torch.testing.assert_close(image, BATCH["image"].as_tensor().flip(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(target["logits"], BATCH["logits"].flip(2), atol=1e-5, rtol=0)
    assert torch.equal(target["label"], BATCH["label"].as_tensor().flip(2))


def test_float16_soft_labels_become_float32_here():
    batch = {**BATCH, "logits": BATCH["logits"].half()}
    for augmentation in (None, BatchAugmentation(**IDENTITY)):
        _, target = AugmentedBatch(augmentation, targets=["logits", "label"])(batch, "cpu")
        assert target["logits"].dtype == torch.float32
        torch.testing.assert_close(target["logits"], batch["logits"].float(), atol=1e-5, rtol=0)
        assert target["label"].dtype == torch.uint8
