"""Prompt-free SAM with its image encoders, pretrained weights, and feature taps for students.

Names load on first use: to look for weights needs neither torch nor transformers.
"""

from typing import TYPE_CHECKING

from tskd.lazy_names import lazy_names

if TYPE_CHECKING:
    from tskd.networks.build import VFMS, Teacher, build_sam
    from tskd.networks.bundle_teacher import BundleTeacher
    from tskd.networks.deep_supervision import DeeplySupervisedNetwork, deeply_supervised, without_heads
    from tskd.networks.encoders.families import ENCODERS
    from tskd.networks.encoders.pyramid_teacher import PyramidTeacher
    from tskd.networks.layer_groups import batch_norm_momentum, frozen, parameter_groups
    from tskd.networks.lite_unet import LiteUNet
    from tskd.networks.lite_weights import load_lite_encoder
    from tskd.networks.normalisation import check_normalisation
    from tskd.networks.sam import PromptFreeSam
    from tskd.networks.student_start import configured, initialised, on_device
    from tskd.networks.taps import TappedNetwork
    from tskd.networks.tiny_vit import TinyViT
    from tskd.networks.vit_start import start_vit
    from tskd.networks.vit_weights import load_vit
    from tskd.networks.weight_store import default_weights, get_weights, weights_identity
    from tskd.networks.weights import load_pretrained, pretrained_file, read_checkpoint

_HOME = {
    "BundleTeacher": "bundle_teacher",
    "DeeplySupervisedNetwork": "deep_supervision",
    "ENCODERS": "encoders.families",
    "LiteUNet": "lite_unet",
    "PromptFreeSam": "sam",
    "PyramidTeacher": "encoders.pyramid_teacher",
    "TappedNetwork": "taps",
    "Teacher": "build",
    "TinyViT": "tiny_vit",
    "VFMS": "build",
    "batch_norm_momentum": "layer_groups",
    "build_sam": "build",
    "check_normalisation": "normalisation",
    "configured": "student_start",
    "deeply_supervised": "deep_supervision",
    "default_weights": "weight_store",
    "frozen": "layer_groups",
    "get_weights": "weight_store",
    "initialised": "student_start",
    "load_flexible_encoder": "flexible_weights",
    "load_lite_encoder": "lite_weights",
    "load_pretrained": "weights",
    "load_vit": "vit_weights",
    "on_device": "student_start",
    "parameter_groups": "layer_groups",
    "pretrained_file": "weights",
    "read_checkpoint": "weights",
    "start_vit": "vit_start",
    "weights_identity": "weight_store",
    "without_heads": "deep_supervision",
}

__all__ = [
    "BundleTeacher",
    "DeeplySupervisedNetwork",
    "ENCODERS",
    "LiteUNet",
    "PromptFreeSam",
    "PyramidTeacher",
    "TappedNetwork",
    "Teacher",
    "TinyViT",
    "VFMS",
    "batch_norm_momentum",
    "build_sam",
    "check_normalisation",
    "configured",
    "deeply_supervised",
    "default_weights",
    "frozen",
    "get_weights",
    "initialised",
    "load_flexible_encoder",
    "load_lite_encoder",
    "load_pretrained",
    "load_vit",
    "on_device",
    "parameter_groups",
    "pretrained_file",
    "read_checkpoint",
    "start_vit",
    "weights_identity",
    "without_heads",
]

__getattr__ = lazy_names(__name__, _HOME)
