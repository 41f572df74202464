"""Prompt-free SAM with its image encoders, pretrained weights, and feature taps for students."""

from tskd.networks.architecture import architecture
from tskd.networks.build import VFMS, build_sam
from tskd.networks.bundle_teacher import BundleTeacher
from tskd.networks.lite_unet import LiteUNet
from tskd.networks.lite_weights import load_lite_encoder
from tskd.networks.parameter_groups import batch_norm_momentum, frozen, parameter_groups
from tskd.networks.sam import PromptFreeSam
from tskd.networks.student_start import configured, initialised
from tskd.networks.taps import TappedNetwork
from tskd.networks.tiny_vit import TinyViT
from tskd.networks.vit_start import start_vit
from tskd.networks.vit_weights import load_vit
from tskd.networks.weight_store import default_weights, get_weights, weights_identity
from tskd.networks.weights import load_pretrained, pretrained_file, read_checkpoint

__all__ = [
    "VFMS",
    "BundleTeacher",
    "LiteUNet",
    "PromptFreeSam",
    "TappedNetwork",
    "TinyViT",
    "architecture",
    "batch_norm_momentum",
    "build_sam",
    "configured",
    "default_weights",
    "frozen",
    "get_weights",
    "initialised",
    "load_lite_encoder",
    "load_pretrained",
    "load_vit",
    "parameter_groups",
    "pretrained_file",
    "read_checkpoint",
    "start_vit",
    "weights_identity",
]
