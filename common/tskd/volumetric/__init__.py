"""3-D students: slices and soft labels stacked to volumes, random patches, in-plane augmentation, DynUNet's levels."""

from tskd.volumetric.dynunet_levels import anisotropy, dynunet_levels
from tskd.volumetric.in_plane_augmentation import InPlaneAugmentation, in_plane_augmentation
from tskd.volumetric.logits_network import LogitsNetwork
from tskd.volumetric.volume_dataset import StackSlices, VolumeDataset
from tskd.volumetric.volume_pseudo_labels import VolumeSemiSupervisedBatch

__all__ = [
    "InPlaneAugmentation",
    "LogitsNetwork",
    "StackSlices",
    "VolumeDataset",
    "VolumeSemiSupervisedBatch",
    "anisotropy",
    "dynunet_levels",
    "in_plane_augmentation",
]
