"""Losses, one a file. Distillation losses take (student, teacher) and are 0 where the two are identical."""

from common.losses.dice_ce import DiceCELoss
from common.losses.embedding import EmbeddingLoss
from common.losses.logits_kl import LogitsKLLoss
from common.losses.soft_dice import SoftDiceLoss

__all__ = ["DiceCELoss", "EmbeddingLoss", "LogitsKLLoss", "SoftDiceLoss"]
