"""Losses, one a file. Distillation losses take (student, teacher) and are 0 where the two are identical."""

from common.losses.at_logits import AtLogits
from common.losses.attention_transfer import AttentionTransferLoss
from common.losses.boundary_kl import BoundaryKLLoss
from common.losses.channel_wise import ChannelWiseLoss
from common.losses.confidence_kl import ConfidenceKLLoss
from common.losses.description import description
from common.losses.dice_ce import DiceCELoss
from common.losses.embedding import EmbeddingLoss
from common.losses.logits_kl import LogitsKLLoss
from common.losses.region_affinity import RegionAffinityLoss
from common.losses.soft_bce import SoftBCELoss
from common.losses.soft_dice import SoftDiceLoss

__all__ = [
    "AtLogits",
    "AttentionTransferLoss",
    "BoundaryKLLoss",
    "ChannelWiseLoss",
    "ConfidenceKLLoss",
    "DiceCELoss",
    "EmbeddingLoss",
    "LogitsKLLoss",
    "RegionAffinityLoss",
    "SoftBCELoss",
    "SoftDiceLoss",
    "description",
]
