"""Small Ignite handlers used in the bundle configs; each has `attach` and does one thing."""

from tskd.handlers.batch_norm import BatchNormStatistics
from tskd.handlers.best_model import BestModel
from tskd.handlers.checkpointing import Checkpointing
from tskd.handlers.clip import ClipGradients
from tskd.handlers.ema import EmaHandler, ema_weights, trainable, weight_average
from tskd.handlers.epoch_seed import EpochSeed
from tskd.handlers.group import HandlerGroup
from tskd.handlers.list_output import ListOutput
from tskd.handlers.log_csv import LogCsv
from tskd.handlers.network_average import NetworkAverage, averaged_network
from tskd.handlers.non_finite import StopOnNonFinite
from tskd.handlers.progress import Progress
from tskd.handlers.standard import StandardHandlers
from tskd.handlers.versions import WriteVersions

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
    "NetworkAverage",
    "Progress",
    "StandardHandlers",
    "StopOnNonFinite",
    "WriteVersions",
    "averaged_network",
    "ema_weights",
    "trainable",
    "weight_average",
]
