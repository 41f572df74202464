"""Data: dataset.json (read, write, check, split), readers of volumes, preparers, a virtual cohort.

Names load on first use, so that `import tskd.data` stays light. `tskd.data.sampler.EpochSampler` is not among them, as
it needs torch.
"""

from typing import TYPE_CHECKING

from tskd.lazy_names import lazy_names

if TYPE_CHECKING:
    from tskd.data.budget import whole_patients
    from tskd.data.checks import check, check_for_training
    from tskd.data.datalist import entries, read, write
    from tskd.data.folds import case_folds, outside_fold
    from tskd.data.io.intensity import Intensity, scale_intensity
    from tskd.data.io.nifti import load_label, load_volume, to_lps, write_volume
    from tskd.data.io.slices import write_slices
    from tskd.data.phantom.cohort import prepare_phantom, virtual_patient
    from tskd.data.prepare.images import prepare_images_masks
    from tskd.data.prepare.nnunet import prepare_nnunet
    from tskd.data.prepare.volume_checks import Patient
    from tskd.data.prepare.volume_writer import fingerprint, preparation, prepare_volumes
    from tskd.data.prepare.volumes import prepare_volumes_masks
    from tskd.data.public.acdc import prepare_acdc
    from tskd.data.public.autooral import prepare_autooral
    from tskd.data.public.chaos import prepare_chaos_mr
    from tskd.data.public.chaos_ct import prepare_chaos_ct
    from tskd.data.public.chaos_t1dual import prepare_chaos_t1dual
    from tskd.data.public.chase_db1 import prepare_chase_db1
    from tskd.data.public.drive import prepare_drive
    from tskd.data.public.isic2017_usgra import prepare_isic2017, prepare_usgra
    from tskd.data.public.isic2018 import prepare_isic2018
    from tskd.data.public.kidneyus import prepare_kidneyus
    from tskd.data.public.kvasir_seg import prepare_kvasir_seg
    from tskd.data.public.ph2 import prepare_ph2
    from tskd.data.split import fair_order, grouped_folds, split_groups

_HOME = {
    "Intensity": "io.intensity",
    "Patient": "prepare.volume_checks",
    "case_folds": "folds",
    "check": "checks",
    "check_for_training": "checks",
    "entries": "datalist",
    "fair_order": "split",
    "fingerprint": "prepare.volume_writer",
    "grouped_folds": "split",
    "load_label": "io.nifti",
    "load_volume": "io.nifti",
    "outside_fold": "folds",
    "preparation": "prepare.volume_writer",
    "prepare_acdc": "public.acdc",
    "prepare_autooral": "public.autooral",
    "prepare_chaos_ct": "public.chaos_ct",
    "prepare_chaos_mr": "public.chaos",
    "prepare_chaos_t1dual": "public.chaos_t1dual",
    "prepare_chase_db1": "public.chase_db1",
    "prepare_drive": "public.drive",
    "prepare_images_masks": "prepare.images",
    "prepare_isic2017": "public.isic2017_usgra",
    "prepare_isic2018": "public.isic2018",
    "prepare_kidneyus": "public.kidneyus",
    "prepare_kvasir_seg": "public.kvasir_seg",
    "prepare_nnunet": "prepare.nnunet",
    "prepare_ph2": "public.ph2",
    "prepare_phantom": "phantom.cohort",
    "prepare_usgra": "public.isic2017_usgra",
    "prepare_volumes": "prepare.volume_writer",
    "prepare_volumes_masks": "prepare.volumes",
    "read": "datalist",
    "scale_intensity": "io.intensity",
    "split_groups": "split",
    "to_lps": "io.nifti",
    "virtual_patient": "phantom.cohort",
    "whole_patients": "budget",
    "write": "datalist",
    "write_slices": "io.slices",
    "write_volume": "io.nifti",
}

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
    "prepare_acdc",
    "prepare_autooral",
    "prepare_chaos_ct",
    "prepare_chaos_mr",
    "prepare_chaos_t1dual",
    "prepare_chase_db1",
    "prepare_drive",
    "prepare_images_masks",
    "prepare_isic2017",
    "prepare_isic2018",
    "prepare_kidneyus",
    "prepare_kvasir_seg",
    "prepare_nnunet",
    "prepare_ph2",
    "prepare_phantom",
    "prepare_usgra",
    "prepare_volumes",
    "prepare_volumes_masks",
    "read",
    "scale_intensity",
    "split_groups",
    "to_lps",
    "virtual_patient",
    "whole_patients",
    "write",
    "write_slices",
    "write_volume",
]

__getattr__ = lazy_names(__name__, _HOME)
