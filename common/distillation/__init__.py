"""Soft labels of the teacher, batched augmentation, and the student's distillation loss."""

from common.distillation.augmentation import BatchAugmentation
from common.distillation.loss import DistillationLoss, Term
from common.distillation.prepare_batch import AugmentedBatch
from common.distillation.soft_labels import write_soft_labels
from common.distillation.soft_labels_reader import LoadSoftLabelsd, add_soft_labels, soft_labels_identity

__all__ = [
    "AugmentedBatch",
    "BatchAugmentation",
    "DistillationLoss",
    "LoadSoftLabelsd",
    "Term",
    "add_soft_labels",
    "soft_labels_identity",
    "write_soft_labels",
]
