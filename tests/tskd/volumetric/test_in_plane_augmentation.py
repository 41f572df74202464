"""All slices of a patch move as one 2-D image does, whatever the key's size."""

import torch

from tskd.distillation import BatchAugmentation
from tskd.volumetric import in_plane_augmentation
from tskd.volumetric.in_plane_augmentation import InPlaneAugmentation

PLAIN = {"gamma": 0, "brightness": 0, "noise": 0, "blur": 0}


def test_every_slice_is_warped_as_a_batch_of_images_is() -> None:
    augmentation = BatchAugmentation(rotate=30, scale=0.3, elastic=0.1, **PLAIN)
    batch = {
        "image": torch.rand(2, 1, 16, 16, 3),
        "label": torch.randint(0, 5, (2, 1, 16, 16, 3), dtype=torch.uint8),
        "logits": torch.randn(2, 4, 8, 8, 3),
    }
    torch.manual_seed(0)
    volume = InPlaneAugmentation(augmentation)(batch)
    for z in range(3):
        torch.manual_seed(0)
        plane = augmentation({key: value[..., z] for key, value in batch.items()})
        for key, value in plane.items():
            assert volume[key].dtype == batch[key].dtype
            torch.testing.assert_close(volume[key][..., z], value, msg=f"{key} {z}")


def test_changes_of_intensity_are_those_of_the_patch() -> None:
    image = torch.rand(1, 1, 8, 8, 1).expand(-1, -1, -1, -1, 4).clone()
    still = {"rotate": 0, "scale": 0, "translate": 0, "shear": 0, "elastic": 0, "noise": 0}
    result = in_plane_augmentation("MR", **still, saturation=0, colour=0)({"image": image})["image"]
    assert not torch.allclose(result, image)
    assert torch.allclose(result, result[..., :1])
