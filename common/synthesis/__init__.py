"""Stage 2: a diffusion model of the training images, its samples, and what they are worth."""

from common.synthesis.adapters import DiffusionBatch, DiffusionUNet, from_model_range, to_model_range
from common.synthesis.clip import ClipGradients
from common.synthesis.ema import EmaHandler, ema_weights
from common.synthesis.export import export_model, load_network, load_scheduler, weights_sha256
from common.synthesis.features import EncoderFeatures, RandomFeatures
from common.synthesis.fidelity import compare, frechet_distance, kernel_distance, measure, precision_recall
from common.synthesis.folder import SyntheticFolder
from common.synthesis.generate import generate
from common.synthesis.guard import check_training_images
from common.synthesis.images import load_images, validation_images
from common.synthesis.loss import DiffusionLoss
from common.synthesis.memorisation import gate
from common.synthesis.preview import SamplePreview
from common.synthesis.sampling import SAMPLERS, SeededSampler, build_sampler

__all__ = [
    "SAMPLERS",
    "ClipGradients",
    "DiffusionBatch",
    "DiffusionLoss",
    "DiffusionUNet",
    "EmaHandler",
    "EncoderFeatures",
    "RandomFeatures",
    "SamplePreview",
    "SeededSampler",
    "SyntheticFolder",
    "build_sampler",
    "check_training_images",
    "compare",
    "ema_weights",
    "export_model",
    "frechet_distance",
    "from_model_range",
    "gate",
    "generate",
    "kernel_distance",
    "load_images",
    "load_network",
    "load_scheduler",
    "measure",
    "precision_recall",
    "to_model_range",
    "validation_images",
    "weights_sha256",
]
