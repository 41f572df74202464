"""Data: dataset.json (read, write, check, split), readers of volumes, preparers, a virtual cohort.

`common.data.sampler.EpochSampler` is not imported here, because it needs torch and listing files does not.
"""

from common.data.chaos import prepare_chaos_mr
from common.data.chase import prepare_chase_db1
from common.data.datalist import check, check_for_training, entries, read, write
from common.data.folds import case_folds, outside_fold
from common.data.intensity import Intensity, scale_intensity
from common.data.own_images import prepare_images_masks
from common.data.own_volumes import prepare_volumes_masks
from common.data.phantom import prepare_phantom, virtual_patient
from common.data.prepare import Patient, fingerprint, preparation, prepare_volumes
from common.data.slices import write_slices
from common.data.split import fair_order, grouped_folds, split_groups
from common.data.train_test import prepare_isic2017, prepare_usgra
from common.data.volumes import load_label, load_volume, to_lps, write_volume

__all__ = [
    "Intensity",
    "Patient",
    "case_folds",
    "check",
    "check_for_training",
    "entries",
    "fair_order",
    "fingerprint",
    "grouped_folds",
    "load_label",
    "load_volume",
    "outside_fold",
    "preparation",
    "prepare_chaos_mr",
    "prepare_chase_db1",
    "prepare_images_masks",
    "prepare_isic2017",
    "prepare_phantom",
    "prepare_usgra",
    "prepare_volumes",
    "prepare_volumes_masks",
    "read",
    "scale_intensity",
    "split_groups",
    "to_lps",
    "virtual_patient",
    "write",
    "write_slices",
    "write_volume",
]
