"""Baselines of pretraining the student on the transfer set: masked autoencoder, momentum contrast, pseudo-labels."""

from tskd.pretraining.masked_autoencoder import MaskedAutoencoder, MaskedPatchLoss, encoder_of
from tskd.pretraining.momentum_contrast import ContrastiveLoss, MomentumContrast, MomentumUpdate
from tskd.pretraining.pseudo_label import PseudoLabeld
from tskd.pretraining.views import RandomView, ViewsBatch

__all__ = [
    "ContrastiveLoss",
    "MaskedAutoencoder",
    "MaskedPatchLoss",
    "MomentumContrast",
    "MomentumUpdate",
    "PseudoLabeld",
    "RandomView",
    "ViewsBatch",
    "encoder_of",
]
