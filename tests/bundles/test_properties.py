"""MONAI's own check of a bundle's properties, for each config as it is used, on a virtual cohort."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from tests.bundles.conftest import BUNDLES

SMALL = {"image_size": 64, "batch_size": 2, "iterations_per_epoch": 2, "cache_rate": 0.0}
TEACHER = {**SMALL, "vfm": "mobile_sam", "pretrained": "@network_def", "fine_tuning#blocks": 1}
# keys that lead to files which another stage writes
NO_MODEL = {"network": "$@network_def.to(@device)"}
UNET = {
    "_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 5, "channels": [4, 8], "strides": [2]
}  # fmt: skip
NO_SOFT_LABELS = {
    "train#dataset#data": "$tskd.data.entries(@dataset_file, 'transfer')",
}
JOINT = {
    "train#sampler#per_batch": None,
    "loss#terms#labelled#weight": 0.5,
    "transfer": "$[]",
}
STUDENTS = ("segresnet", "basic_unet", "flexible_unet", "swin_unetr")
VARIANTS = [
    ("teacher_segmentation", ["train"], TEACHER),
    ("teacher_segmentation", ["train", "images_2d"], TEACHER),
    ("teacher_segmentation", ["train", "multi_gpu_train"], TEACHER),
    ("teacher_segmentation", ["train", "samed"], TEACHER),
    ("teacher_segmentation", ["train", "fold"], {**TEACHER, "folds": 2}),
    ("teacher_segmentation", ["train", "whole_patients"], {**TEACHER, "num_labelled_groups": 2}),
    ("teacher_segmentation", ["train", "evaluate"], {**TEACHER, **NO_MODEL}),
    ("teacher_segmentation", ["train", "soft_labels"], {**TEACHER, **NO_MODEL}),
    ("teacher_segmentation", ["train", "soft_labels", "untuned"], TEACHER),
    ("teacher_segmentation", ["train", "soft_labels", "teacher_bundle"], {**SMALL, "network_def": UNET, "vfm": "UNet"}),
    ("teacher_segmentation", ["inference"], {"vfm": "mobile_sam", "image_size": 64}),
    ("student_segmentation", ["train"], SMALL),
    ("student_segmentation", ["train", "images_2d"], SMALL),
    ("student_segmentation", ["train", "multi_gpu_train"], SMALL),
    ("student_segmentation", ["train", "whole_patients"], {**SMALL, "num_labelled_groups": 2}),
    ("student_segmentation", ["train", "distill"], {**SMALL, **NO_SOFT_LABELS}),
    ("student_segmentation", ["train", "distill", "task_agnostic"], {**SMALL, **NO_SOFT_LABELS}),
    ("student_segmentation", ["train", "distill", "more_losses"], {**SMALL, **NO_SOFT_LABELS}),
    ("student_segmentation", ["train", "imagenet"], {**SMALL, "initialised": "@network_def"}),
    ("student_segmentation", ["train", "mae"], SMALL),
    ("student_segmentation", ["train", "mocov3"], SMALL),
    ("student_segmentation", ["train", "pseudo_label"], {**SMALL, **NO_SOFT_LABELS}),
    ("student_segmentation", ["train", "lite_unet"], {**SMALL, "encoder_weights": "random"}),
    ("student_segmentation", ["train", "unetr"], SMALL),
    ("student_segmentation", ["train", "averaged"], SMALL),
    ("student_segmentation", ["train", "distill", "averaged", "joint"], {**SMALL, **NO_SOFT_LABELS, **JOINT}),
    *[
        (
            "student_segmentation",
            ["train", "distill", "averaged", "joint", *names],
            {**SMALL, **NO_SOFT_LABELS, **JOINT},
        )
        for names in (["semi"], ["semi", "fixmatch"], ["semi", "mean_teacher"])
    ],
    *[
        (
            "student_segmentation",
            ["train", "distill", "averaged", "joint", *names],
            {**SMALL, **NO_SOFT_LABELS, **JOINT, "first_filters": 4},
        )
        for names in (["volume", "volume_distill"], ["semi", "volume", "volume_distill", "volume_semi"])
    ],
    ("student_segmentation", ["train", "volume"], {**SMALL, "first_filters": 4}),
    ("student_segmentation", ["train", "neighbours"], SMALL),
    *[("student_segmentation", ["train", "distill", name], {**SMALL, **NO_SOFT_LABELS}) for name in STUDENTS],
    ("student_segmentation", ["train", "evaluate"], {**SMALL, **NO_MODEL}),
    ("student_segmentation", ["inference"], {"image_size": 64}),
    ("student_segmentation", ["inference", "inference_2d"], {"image_size": 64}),
]


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch):
    """What `initialize` sets for the whole process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    flags = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    single = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    for key, value in single.items():
        monkeypatch.setenv(key, str(value))
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32 = flags


@pytest.mark.parametrize(
    ("bundle", "configs", "overrides"), VARIANTS, ids=[f"{bundle}-{configs[-1]}" for bundle, configs, _ in VARIANTS]
)
def test_check_properties(
    bundle: str, configs: list[str], overrides: dict[str, Any], cohort: Path, tmp_path: Path
) -> None:
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLES / bundle / "configs" / f"{name}.json") for name in configs],
        workflow_type="inference" if configs[0] == "inference" else "train",
        logging_file=False,
        bundle_root=str(BUNDLES / bundle),
        dataset_dir=str(cohort / "slices" if configs[-1] == "inference_2d" else cohort),
        dataset_file=str(cohort / "dataset.json"),
        output_dir=str(tmp_path),
        **overrides,
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.finalize()
    assert not torch.distributed.is_initialized()
    if configs[-1] != "multi_gpu_train":  # there the engine has the network inside DistributedDataParallel
        engine = workflow.trainer if configs[0] == "train" else workflow.evaluator
        assert isinstance(workflow.network_def, torch.nn.Module)
        assert isinstance(engine.network, torch.nn.Module)


def test_every_config_is_there() -> None:
    """A new overlay of teacher or student needs a line above."""
    tested = {(bundle, f"{configs[-1]}.json") for bundle, configs, _ in VARIANTS}
    present = {
        (path.parents[1].name, path.name)
        for name in ("teacher_segmentation", "student_segmentation")
        for path in (BUNDLES / name / "configs").glob("*.json")
        if path.name != "metadata.json"
    }
    assert tested == present
