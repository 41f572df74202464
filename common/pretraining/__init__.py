"""Other ways of pretraining the student on the transfer set, to compare distillation with."""

from common.pretraining.export import ExportLast
from common.pretraining.pseudo_label import PseudoLabeld

__all__ = ["ExportLast", "PseudoLabeld"]
