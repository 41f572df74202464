"""Other ways of pretraining the student on the transfer set, to compare distillation with."""

from common.pretraining.masked_autoencoder import MaskedAutoencoder, MaskedPatchLoss, encoder_of
from common.pretraining.momentum_contrast import ContrastiveLoss, MomentumContrast, MomentumUpdate
from common.pretraining.pseudo_label import PseudoLabeld
from common.pretraining.views import RandomView, ViewsBatch

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
