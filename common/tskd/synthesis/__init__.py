"""Stage 2: a diffusion model of the training images, its samples, and what they are worth."""

from tskd.synthesis.adapters import (
    DiffusionBatch,
    DiffusionUNet,
    from_model_range,
    label_classes,
    one_hot,
    preset_flips,
    to_model_range,
)
from tskd.synthesis.denoising_loss import DiffusionLoss, denoising_error
from tskd.synthesis.fidelity.features import EncoderFeatures, RandomFeatures, features_of, teacher_features
from tskd.synthesis.fidelity.measure import (
    compare,
    diversity,
    frechet_distance,
    kernel_distance,
    measure,
    precision_recall,
    project,
)
from tskd.synthesis.folder import SyntheticFolder
from tskd.synthesis.image_loading import load_images, validation_images
from tskd.synthesis.label_maps import WarpedLabels
from tskd.synthesis.leakage import check_training_images
from tskd.synthesis.memorisation.gate import check_gate, gate
from tskd.synthesis.pipeline_export import export_model, load_network, load_scheduler, weights_sha256
from tskd.synthesis.pretrained import initial_network, start_sha256
from tskd.synthesis.preview import SamplePreview
from tskd.synthesis.sampling import (
    SAMPLERS,
    SeededSampler,
    build_sampler,
    check_channels,
    default_sampler,
    folder_settings,
    labels_for,
)
from tskd.synthesis.training_record import check_trained_on, record_sha256, training_fingerprints, training_record

__all__ = [
    "SAMPLERS",
    "DiffusionBatch",
    "DiffusionLoss",
    "denoising_error",
    "DiffusionUNet",
    "EncoderFeatures",
    "RandomFeatures",
    "features_of",
    "SamplePreview",
    "SeededSampler",
    "SyntheticFolder",
    "WarpedLabels",
    "build_sampler",
    "check_channels",
    "check_gate",
    "check_trained_on",
    "check_training_images",
    "compare",
    "default_sampler",
    "diversity",
    "export_model",
    "preset_flips",
    "folder_settings",
    "frechet_distance",
    "from_model_range",
    "gate",
    "initial_network",
    "kernel_distance",
    "label_classes",
    "labels_for",
    "load_images",
    "load_network",
    "load_scheduler",
    "measure",
    "one_hot",
    "precision_recall",
    "project",
    "teacher_features",
    "to_model_range",
    "record_sha256",
    "start_sha256",
    "training_fingerprints",
    "training_record",
    "validation_images",
    "weights_sha256",
]
