"""Data: dataset.json (read, write, check, split), readers of volumes, preparers, a virtual cohort.

`common.data.sampler.EpochSampler` is not imported here, because it needs torch and listing files does not.
"""

from common.data.chaos import prepare_chaos_mr
from common.data.datalist import check, check_for_training, entries, read, write
from common.data.phantom import prepare_phantom, virtual_patient
from common.data.prepare import Patient, preparation, prepare_volumes
from common.data.slices import write_slices
from common.data.split import fair_order, grouped_folds, split_groups
from common.data.volumes import load_label, load_volume, scale_intensity, to_lps, write_volume

__all__ = [
    "Patient",
    "check",
    "check_for_training",
    "entries",
    "fair_order",
    "grouped_folds",
    "load_label",
    "load_volume",
    "preparation",
    "prepare_chaos_mr",
    "prepare_phantom",
    "prepare_volumes",
    "read",
    "scale_intensity",
    "split_groups",
    "to_lps",
    "virtual_patient",
    "write",
    "write_slices",
    "write_volume",
]
