"""Soft labels of one or several teachers, batched augmentation, and the student's distillation loss."""

from tskd.distillation.augmentation import BatchAugmentation
from tskd.distillation.augmentation_presets import preset_augmentation
from tskd.distillation.distillation_loss import DistillationLoss, Term
from tskd.distillation.fingerprints import training_fingerprints
from tskd.distillation.gradient_shares import GradientShares
from tskd.distillation.ratio_by_validation import ratio_by_validation
from tskd.distillation.selection import select_confident
from tskd.distillation.semi_supervised import SemiSupervisedBatch
from tskd.distillation.soft_labels.ensemble import AverageSoftLabelsd, add_teachers
from tskd.distillation.soft_labels.out_of_fold import fold_teachers
from tskd.distillation.soft_labels.read import (
    add_soft_labels,
    soft_labels_identity,
)
from tskd.distillation.soft_labels.resolution import grid_for, tell_resolution
from tskd.distillation.soft_labels.tta import trained_flips
from tskd.distillation.soft_labels.write import write_soft_labels
from tskd.distillation.step import AugmentedBatch, distillation_step
from tskd.distillation.term_schedules import FollowSchedules, Linear
from tskd.distillation.transfer_set import (
    FillLabeld,
    batch_counts,
    half_labelled,
    labelled_entries,
    transfer_entries,
    transfer_identity,
)

__all__ = [
    "AugmentedBatch",
    "AverageSoftLabelsd",
    "BatchAugmentation",
    "DistillationLoss",
    "FillLabeld",
    "FollowSchedules",
    "GradientShares",
    "Linear",
    "SemiSupervisedBatch",
    "Term",
    "add_soft_labels",
    "add_teachers",
    "batch_counts",
    "distillation_step",
    "fold_teachers",
    "grid_for",
    "half_labelled",
    "ratio_by_validation",
    "select_confident",
    "preset_augmentation",
    "labelled_entries",
    "soft_labels_identity",
    "tell_resolution",
    "trained_flips",
    "training_fingerprints",
    "transfer_entries",
    "transfer_identity",
    "write_soft_labels",
]
