"""Soft labels of one or several teachers, batched augmentation, and the student's distillation loss."""

from common.distillation.augmentation import BatchAugmentation
from common.distillation.certainty import keep_surest
from common.distillation.fold_teachers import fold_teachers
from common.distillation.gradient_shares import GradientShares
from common.distillation.loss import DistillationLoss, Term
from common.distillation.prepare_batch import AugmentedBatch
from common.distillation.schedules import FollowSchedules, Linear
from common.distillation.soft_labels import write_soft_labels
from common.distillation.soft_labels_reader import (
    add_soft_labels,
    soft_labels_identity,
)
from common.distillation.teachers import AverageSoftLabelsd, add_teachers
from common.distillation.transfer import FillLabeld, batch_counts, labelled_entries, transfer_entries, transfer_identity

__all__ = [
    "AugmentedBatch",
    "AverageSoftLabelsd",
    "BatchAugmentation",
    "DistillationLoss",
    "FillLabeld",
    "FollowSchedules",
    "GradientShares",
    "Linear",
    "Term",
    "add_soft_labels",
    "add_teachers",
    "batch_counts",
    "fold_teachers",
    "keep_surest",
    "labelled_entries",
    "soft_labels_identity",
    "transfer_entries",
    "transfer_identity",
    "write_soft_labels",
]
