"""The train.json of a shipped bundle: MONAI alone trains its network further, in MONAI Label or on the command line."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tskd.export.bundle_scripts import CHECK

_KEPT = ("in_channels", "num_classes", "image_size", "device", "network_def", "network", "scale_intensity", "antialias")
_FURTHER = (  # keys of some inference.json that its preprocessing, network and inferer refer to
    *("eight_bits", "mode", "reader"),
    *("neighbour_slices", "network_channels", "stack_neighbours", "patch_size"),
)

_AUGMENTATION = [
    {
        "_target_": "RandAffined",
        "keys": ["image", "label"],
        "prob": 0.8,
        "rotate_range": 0.26,
        "scale_range": [0.15, 0.15],
        "translate_range": "$[@image_size / 16] * 2",
        "mode": ["bilinear", "nearest"],
        "padding_mode": "zeros",
    },
    {"_target_": "RandAdjustContrastd", "keys": "image", "prob": 0.5, "gamma": [0.7, 1.5]},
    {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.3, "std": 0.03},
]


def plain_training(inference: Mapping[str, Any], flat: bool) -> dict[str, Any]:
    """Return a train.json that names MONAI, PyTorch and the bundle's own `scripts/`.

    Training starts from models/model.pt. Volumes are cut into slices (with their neighbours as channels where the
    network sees these) or into patches of a 3-D network, three of four around a labelled voxel; pictures are taken
    whole. `scripts.accept_better` keeps the former weights and takes the new ones only if the validation is not worse.

    Args:
        inference: the bundle's inference.json, whose preprocessing and network are used.
        flat: whether it takes 2-D images.
    """
    kept = {key: copy.deepcopy(inference[key]) for key in (*_KEPT, *_FURTHER) if key in inference}
    kept["network"] = "$@network_def.to(@device)"  # layouts are for inference
    read, deep = _read(inference, flat), "patch_size" in inference
    return {
        "imports": list(inference["imports"]),
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/dataset'",
        "_desc_dataset_dir": "folder with images/ and labels/ of the same names; MONAI Label gives its own list",
        "pairs": "$[{'image': path, 'label': path.replace('/images/', '/labels/')} for path in "
        "sorted(glob.glob(glob.escape(@dataset_dir) + '/images/*'))]",
        "validation_share": 0.2,
        "held_out": "$max(1, round(len(@pairs) * @validation_share)) if len(@pairs) > 1 else 0",
        **kept,
        "seed": 0,
        "max_epochs": 20,
        "val_interval": 1,
        "learning_rate": 0.0003,
        "batch_size": 8 if flat else 2,
        **({} if flat else {"patches_per_volume": 1} if deep else {"slices_per_volume": 4}),
        "iterations_per_epoch": 10,
        "_desc_iterations_per_epoch": "batches drawn at random, however few images there are",
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True, "batch": True},
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": "$@network.parameters()",
            "lr": "@learning_rate",
            "weight_decay": 0.01,
        },
        "class_indices": {"_target_": "scripts.accept_better.class_indices", "num_classes": "@num_classes"},
        "train": {
            "preprocessing": {"_target_": "Compose", "transforms": [*read, *_random(inference, flat)]},
            "dataset": {
                "_target_": "CacheDataset",
                "data": "$@pairs[@held_out:]",
                "transform": "@train#preprocessing",
                "progress": False,
            },
            "sampler": {
                "_target_": "torch.utils.data.RandomSampler",
                "data_source": "@train#dataset",
                "replacement": True,
                "num_samples": "$@batch_size * @iterations_per_epoch",
            },
            "dataloader": {
                "_target_": "DataLoader",
                "dataset": "@train#dataset",
                "batch_size": "@batch_size",
                "sampler": "@train#sampler",
                "num_workers": 0,
            },
            "inferer": {"_target_": "SimpleInferer"},
            "handlers": [
                {
                    "_target_": "CheckpointLoader",
                    "load_path": "$@bundle_root + '/models/model.pt'",
                    "load_dict": {"model": "@network"},
                    "strict": True,
                    "map_location": "@device",
                },
                {
                    "_target_": "scripts.accept_better.AcceptBetter",
                    "bundle_root": "@bundle_root",
                    "network": "@network",
                    "validator": "@validate#evaluator",
                    "interval": "@val_interval",
                    "images": "$len(@train#dataset#data)",
                },
                {
                    "_target_": "StatsHandler",
                    "tag_name": "train_loss",
                    "iteration_log": False,
                    "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
                },
            ],
            "trainer": {
                "_target_": "SupervisedTrainer",
                "max_epochs": "@max_epochs",
                "device": "@device",
                "train_data_loader": "@train#dataloader",
                "network": "@network",
                "loss_function": "@loss",
                "optimizer": "@optimizer",
                "inferer": "@train#inferer",
                "train_handlers": "@train#handlers",
            },
        },
        "validate": _validate(inference, read, flat),
        "initialize": ["$monai.utils.set_determinism(seed=@seed, use_deterministic_algorithms=None)"],
        "check_packages": CHECK,
        "run": ["$@check_packages(@bundle_root)", "$@train#trainer.run()"],
    }


def _read(inference: Mapping[str, Any], flat: bool) -> list[dict[str, Any]]:
    """Return the image's steps as inference.json has them, and the label's onto the same grid, by nearest neighbour."""
    image = copy.deepcopy(inference["preprocessing"]["transforms"])
    size = ["@image_size", "@image_size"] + ([] if flat else [-1])
    label = [
        {"_target_": "LoadImaged", "keys": "label", "image_only": True, "ensure_channel_first": True},
        *([] if flat else [{"_target_": "Orientationd", "keys": "label", "axcodes": "LPS"}]),
        {"_target_": "Lambdad", "keys": "label", "func": "@class_indices"},
        {"_target_": "Resized", "keys": "label", "spatial_size": size, "mode": "nearest"},
        {"_target_": "EnsureTyped", "keys": ["image", "label"], "track_meta": False},
    ]
    if "stack_neighbours" in inference:
        stack = "$(lambda stack: lambda image: stack(image, 0))(@stack_neighbours)"
        label.append({"_target_": "Lambdad", "keys": "image", "func": stack, "track_meta": False})
    return [*image, *label]


def _random(inference: Mapping[str, Any], flat: bool) -> list[dict[str, Any]]:
    keys, deep = ["image", "label"], "patch_size" in inference
    augmentation: list[dict[str, Any]] = copy.deepcopy(_AUGMENTATION)
    pad: dict[str, Any] = {"_target_": "SpatialPadd", "keys": keys, "spatial_size": "@patch_size", "mode": "edge"}
    crop: dict[str, Any] = {
        "_target_": "RandCropByPosNegLabeld",
        "keys": keys,
        "label_key": "label",
        "spatial_size": "@patch_size" if deep else ["@image_size", "@image_size", 1],
        "pos": 3,
        "neg": 1,
        "num_samples": "@slices_per_volume",
    }
    squeeze: dict[str, Any] = {"_target_": "SqueezeDimd", "keys": keys, "dim": -1}
    if deep:  # in the plane
        augmentation[0] |= {
            "rotate_range": [0, 0, 0.26],
            "scale_range": [0.15, 0.15, 0],
            "translate_range": "$[@image_size / 16] * 2 + [0]",
        }
        return [pad, {**crop, "num_samples": "@patches_per_volume"}, *augmentation]
    return [*([] if flat else [crop, squeeze]), *augmentation]


def _validate(inference: Mapping[str, Any], read: list[dict[str, Any]], flat: bool) -> dict[str, Any]:
    """Return the part that measures Dice on the network's grid, of each volume or picture."""
    inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    if not flat:
        size = ["@image_size", "@image_size"]
        inferer = {"_target_": "SliceInferer", "roi_size": size, "sw_batch_size": 8, "spatial_dim": 2}
    if "patch_size" in inference:
        inferer = {**inference["plain_inferer"], "sw_batch_size": 1}
    return {
        "preprocessing": {"_target_": "Compose", "transforms": copy.deepcopy(read)},
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$@pairs[:@held_out]",
            "transform": "@validate#preprocessing",
            "progress": False,
        },
        "training_images": {
            "_target_": "Dataset",
            "data": "@train#dataset#data",
            "transform": "@validate#preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "$@validate#dataset if len(@validate#dataset) else @validate#training_images",
            "batch_size": 1,
            "num_workers": 0,
        },
        "inferer": inferer,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "AsDiscreted",
                    "keys": ["pred", "label"],
                    "argmax": [True, False],
                    "to_onehot": "@num_classes",
                }
            ],
        },
        "key_metric": {
            "val_mean_dice": {
                "_target_": "MeanDice",
                "include_background": False,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network",
            "inferer": "@validate#inferer",
            "postprocessing": "@validate#postprocessing",
            "key_val_metric": "@validate#key_metric",
        },
    }
