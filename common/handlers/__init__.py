"""Small Ignite handlers used in the bundle configs; each has `attach` and does one thing."""

from common.handlers.batch_norm import BatchNormStatistics
from common.handlers.best_model import BestModel
from common.handlers.checkpointing import Checkpointing
from common.handlers.clip import ClipGradients
from common.handlers.ema import EmaHandler, ema_weights, trainable
from common.handlers.epoch_seed import EpochSeed
from common.handlers.group import HandlerGroup
from common.handlers.list_output import ListOutput
from common.handlers.log_csv import LogCsv
from common.handlers.non_finite import StopOnNonFinite
from common.handlers.progress import Progress
from common.handlers.versions import WriteVersions

__all__ = [
    "BatchNormStatistics",
    "BestModel",
    "Checkpointing",
    "ClipGradients",
    "EmaHandler",
    "EpochSeed",
    "HandlerGroup",
    "ListOutput",
    "LogCsv",
    "Progress",
    "StopOnNonFinite",
    "WriteVersions",
    "ema_weights",
    "trainable",
]
