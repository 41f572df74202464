"""Prompt-free SAM with its image encoders, pretrained weights, and feature taps for students."""

from common.networks.architecture import architecture
from common.networks.build import VFMS, build_sam
from common.networks.bundle_teacher import BundleTeacher
from common.networks.parameter_groups import batch_norm_momentum, frozen, parameter_groups
from common.networks.sam import PromptFreeSam
from common.networks.taps import TappedNetwork
from common.networks.tiny_vit import TinyViT
from common.networks.vit_start import start_vit
from common.networks.vit_weights import load_vit
from common.networks.weight_store import default_weights, get_weights, weights_identity
from common.networks.weights import load_pretrained, pretrained_file, read_checkpoint

__all__ = [
    "VFMS",
    "BundleTeacher",
    "PromptFreeSam",
    "TappedNetwork",
    "TinyViT",
    "architecture",
    "batch_norm_momentum",
    "build_sam",
    "default_weights",
    "frozen",
    "get_weights",
    "load_pretrained",
    "load_vit",
    "parameter_groups",
    "pretrained_file",
    "read_checkpoint",
    "start_vit",
    "weights_identity",
]
