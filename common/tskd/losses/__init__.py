"""Losses, one a file. Distillation losses take (student, teacher) and are 0 where the two are identical."""

from tskd.losses.at_logits import AtLogits
from tskd.losses.attention_transfer import AttentionTransferLoss
from tskd.losses.boundary_kl import BoundaryKLLoss
from tskd.losses.channel_wise import ChannelWiseLoss
from tskd.losses.confidence_kl import ConfidenceKLLoss
from tskd.losses.description import description
from tskd.losses.dice_ce import DiceCELoss
from tskd.losses.embedding import EmbeddingLoss
from tskd.losses.logits_kl import LogitsKLLoss
from tskd.losses.pseudo_label_loss import PseudoLabelLoss
from tskd.losses.region_affinity import RegionAffinityLoss
from tskd.losses.soft_bce import SoftBCELoss
from tskd.losses.soft_dice import SoftDiceLoss

__all__ = [
    "AtLogits",
    "AttentionTransferLoss",
    "BoundaryKLLoss",
    "ChannelWiseLoss",
    "ConfidenceKLLoss",
    "DiceCELoss",
    "EmbeddingLoss",
    "LogitsKLLoss",
    "PseudoLabelLoss",
    "RegionAffinityLoss",
    "SoftBCELoss",
    "SoftDiceLoss",
    "description",
]
