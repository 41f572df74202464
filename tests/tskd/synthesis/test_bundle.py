"""The bundle ddpm_synthesis as MONAI runs it: properties, training, restart, images, gate, fidelity."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._dynamo.eval_frame import OptimizedModule

from tests.forked import run_module
from tskd.data.checks import check
from tskd.data.datalist import entries, read, write
from tskd.errors import TskdError
from tskd.synthesis import export_model, load_network, training_record

pytestmark = pytest.mark.bundle

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "ddpm_synthesis"
TINY = {
    "image_size": 16,
    "batch_size": 4,
    "iterations_per_epoch": 3,
    "max_epochs": 2,
    "warmup_steps": 2,
    "val_interval": 1,
    "val_images": 6,
    "preview_interval": 2,
    "steps": 3,
    "network_def#unet#block_out_channels": [16, 32],
    "network_def#unet#down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "network_def#unet#up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "network_def#unet#layers_per_block": 1,
}


@pytest.fixture
def workflow(tmp_path, cohort, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)

    def workflow(*names, kind="train", **overrides):
        common = {"bundle_root": str(BUNDLE), "dataset_file": str(cohort), "output_dir": str(tmp_path / "run")}
        return ConfigWorkflow(
            config_file=[str(BUNDLE / "configs" / name) for name in names],
            meta_file=str(BUNDLE / "configs" / "metadata.json"),
            workflow_type=kind,
            **{**common, "model_dir": str(tmp_path / "models"), **overrides},
        )

    return workflow


def run(flow):
    flow.initialize()
    flow.run()
    flow.finalize()


def cause(error):
    """The error that the user sees: MONAI wraps it in several others."""
    while not isinstance(error, TskdError):
        error = error.__cause__
    return str(error)


def losses(folder):
    with (folder / "train_log.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["name"] in ("loss", "validation_denoising_error")]


@pytest.mark.parametrize("overlay", [[], ["light_128.json"], ["evaluate.json"], ["label_maps.json"]])
def test_all_properties_of_a_training_are_there(workflow, overlay):
    flow = workflow("train.json", *overlay, image_size=32)
    flow.initialize()
    assert flow.check_properties() == []


def test_train_sample_gate_and_measure(workflow, tmp_path, cohort):
    run(workflow("train.json", **TINY))
    output = tmp_path / "run"
    assert [row["name"] for row in losses(output)] == ["loss", "validation_denoising_error"] * 2
    assert Image.open(output / "samples" / "epoch_0002.png").size == (8 * 18, 2 * 18)
    pipeline = tmp_path / "models" / "pipeline"
    checkpoint = torch.load(output / "checkpoints" / "last.pt", weights_only=True)
    for shipped, average in zip(load_network(pipeline).parameters(), checkpoint["ema"]["shadow_params"], strict=True):
        assert torch.equal(shipped, average)

    options = {"num_images": 6, "steps": 3, "batch_size": 4}
    run(workflow("inference.json", kind="inference", **options))
    synthetic = output / "synthetic"
    check(synthetic / "dataset.json", labelled=False)
    assert read(synthetic / "dataset.json")["provenance"]["memorisation"]["synthetic"]["images"] == 6
    before = (synthetic / "images" / "000005.png").read_bytes()
    run(workflow("inference.json", kind="inference", **{**options, "batch_size": 2}))  # nothing left to do
    assert (synthetic / "images" / "000005.png").read_bytes() == before
    with pytest.raises(RuntimeError) as refused:
        run(workflow("inference.json", kind="inference", **options, seed=1))
    assert "seed: the folder has 0, this run 1" in cause(refused.value)

    with pytest.raises(RuntimeError) as refused:
        run(workflow("inference.json", kind="inference", **options, amp_dtype="bfloat16"))
    assert "amp_dtype: the folder has None, this run 'bfloat16'" in cause(refused.value)
    run(workflow("inference.json", kind="inference", **{**options, "num_images": 3}))
    memorisation = read(synthetic / "dataset.json")["provenance"]["memorisation"]
    assert memorisation["synthetic"]["images"] == 3
    assert memorisation["features"] == "random convolutions (seed 0) at 64 px"
    run(workflow("inference.json", kind="inference", **options))

    flow = workflow("inference.json", kind="inference", **options)
    flow.initialize()
    assert flow.check_properties() == []

    run(workflow("train.json", "evaluate.json"))
    assert {"synthetic", "floor", "other_patients", "held_out"} == json.loads((output / "fidelity.json").read_text())[
        "pairs"
    ].keys()
    assert (output / "fidelity.csv").is_file()


def test_a_pretrained_pipeline_learns_to_draw_to_label_maps(workflow, tmp_path, cohort, make_network):
    schedule = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    start = export_model(make_network(), schedule, tmp_path / "start")
    options = {key: value for key, value in TINY.items() if not key.startswith("network_def")}
    options |= {"max_epochs": 1, "preview_interval": 1, "init_from": str(start), "lora_rank": 2, "num_labelled": 10}
    run(workflow("train.json", "label_maps.json", **options))
    adapted, before = (load_network(folder).state_dict() for folder in (tmp_path / "models" / "pipeline", start))
    frozen = [name for name in before if "attentions" not in name and "conv_in" not in name]
    assert all(torch.equal(adapted[name], before[name]) for name in frozen)
    assert adapted["unet.conv_in.weight"].shape[1] == 1 + len(read(cohort)["labels"])

    run(workflow("inference.json", kind="inference", num_images=4, steps=2, **{"gate#quantile": 1.0}))
    folder = tmp_path / "run" / "synthetic"
    check(folder / "dataset.json")
    assert len(read(folder / "dataset.json")["training"]) == 4
    assert read(folder / "dataset.json")["provenance"]["label_maps"]["count"] == 10


def test_what_the_gate_cannot_work_with_is_said_before_an_image_is_drawn(workflow, tmp_path, cohort, make_network):
    data = read(cohort)
    for entry in (entry for name in ("training", "validation", "test") for entry in data[name]):
        entry.update({key: str(cohort.parent / entry[key]) for key in ("image", "label")})
    one, rest = (
        [entry for entry in data["training"] if (entry["group"] == data["training"][0]["group"]) == same]
        for same in (True, False)
    )
    for name, training in (("one", one), ("rest", rest)):
        write(tmp_path / f"{name}.json", {**data, "training": training})
    schedule = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    export_model(
        make_network(),
        schedule,
        tmp_path / "models",
        record=training_record(entries(tmp_path / "one.json", "transfer")),
    )
    write(tmp_path / "colour.json", {**data, "training": one, "channels": 3})
    for changes, message in (
        ({"dataset_file": str(tmp_path / "one.json")}, "at least two patients"),
        ({"dataset_file": str(tmp_path / "colour.json")}, "images of 1 channels, as the diffusion model draws them"),
        ({"dataset_file": str(tmp_path / "rest.json")}, f"found {len(one)} of them neither in 'training' nor in"),
        ({"gate#max_shift": 32}, "gate#max_shift: expected 0 to 16 pixels of `resolution`, found 32"),
        ({"teacher_model": "no_such_file.pt"}, "no_such_file.pt"),
        ({"seed": -1}, "seed: expected 0 or more, found -1"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError) as refused:
            run(workflow("inference.json", kind="inference", num_images=3, steps=2, **changes))
        assert message in cause(refused.value)
        assert not (tmp_path / "run" / "synthetic" / "images").exists()


def run_in_two(*names, **options):
    """Run configs with two processes; returns what they printed."""
    command = ["monai.bundle", "run", "--config_file", str([str(BUNDLE / "configs" / name) for name in names])]
    command += ["--logging_file", str(BUNDLE / "configs" / "logging.conf")]
    for key, value in {"bundle_root": BUNDLE, **options}.items():
        command += [f"--{key}", str(value)]
    done = run_module(command, processes=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_two_processes_draw_the_images_of_one_and_one_of_them_gates(workflow, tmp_path, cohort, make_network):
    schedule = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    pipeline = export_model(
        make_network(), schedule, tmp_path / "models", record=training_record(entries(cohort, "transfer"))
    )
    options = {"num_images": 5, "steps": 3, "batch_size": 2}
    run(workflow("inference.json", kind="inference", **options))
    one, two = tmp_path / "run" / "synthetic", tmp_path / "two"
    printed = run_in_two(
        "inference.json", pipeline_dir=pipeline, dataset_file=cohort, synthetic_dir=two, device="cpu", **options
    )
    assert printed.count("images passed, threshold") == 1
    names, others = (
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.name.startswith(".lock."))
        for folder in (one, two)  # one lock a process
    )
    assert others == names
    for name in (name for name in names if Path(name).suffix):
        assert (two / name).read_bytes() == (one / name).read_bytes(), name


def test_two_processes_train_one_model(workflow, tmp_path, cohort):
    run(workflow("train.json", **TINY))
    options = {**TINY, "dataset_file": cohort, "output_dir": tmp_path / "two", "model_dir": tmp_path / "two" / "models"}
    run_in_two("train.json", "multi_gpu_train.json", **options)
    assert [(row["epoch"], row["name"]) for row in losses(tmp_path / "two")] == [
        (row["epoch"], row["name"]) for row in losses(tmp_path / "run")
    ]
    one, two = tmp_path / "models" / "pipeline", tmp_path / "two" / "models" / "pipeline"
    assert (two / "training.json").read_bytes() == (one / "training.json").read_bytes()
    average = torch.load(tmp_path / "two" / "checkpoints" / "last.pt", weights_only=True)["ema"]["shadow_params"]
    for shipped, expected in zip(load_network(two).parameters(), average, strict=True):
        assert torch.equal(shipped, expected)


@pytest.mark.parametrize("overlay", [[], ["multi_gpu_train.json"]])
def test_the_network_is_compiled_where_that_is_asked_for_in_all_processes(overlay):
    for wanted in (False, True):
        parser = ConfigParser()
        parser.read_config([str(BUNDLE / "configs" / name) for name in ("train.json", *overlay)])
        parser.update({**{key: value for key, value in TINY.items() if "#" in key}, "image_size": 16})
        parser.update({"compile": wanted, "device": "cpu"})
        network = parser.get_parsed_content("train#trainer#network#module" if overlay else "train#trainer#network")
        assert isinstance(network, OptimizedModule) == wanted


def test_a_stopped_training_continues_as_if_it_had_not_stopped(workflow, tmp_path):
    schedule = {**TINY, "lr_scheduler#total_steps": 6, "preview_interval": 1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(workflow("train.json", **schedule, output_dir=str(whole)))
    run(workflow("train.json", **{**schedule, "max_epochs": 1}, output_dir=str(parts)))
    run(workflow("train.json", **schedule, output_dir=str(parts)))
    assert losses(parts) == losses(whole)
    sheets = EventAccumulator(str(whole / "tensorboard")).Reload().Images("samples")
    assert [(sheet.step, sheet.width, sheet.height) for sheet in sheets] == [
        (epoch, *Image.open(whole / "samples" / f"epoch_{epoch:04d}.png").size) for epoch in (1, 2)
    ]
    ends = [torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (whole, parts)]
    for first, second in zip(ends[0]["ema"]["shadow_params"], ends[1]["ema"]["shadow_params"], strict=True):
        assert torch.equal(first, second)


def test_a_training_on_other_images_is_not_continued(workflow, tmp_path):
    """pipeline/training.json tells what a model has seen, so it has to be the whole training's list."""
    files, keys = ("train.json", "label_maps.json"), {**TINY, "output_dir": str(tmp_path), "num_labelled": 6}
    run(workflow(*files, **{**keys, "max_epochs": 1}))
    with pytest.raises(RuntimeError) as refused:
        run(workflow(*files, **{**keys, "num_labelled": 4}))
    assert "training: this run has" in cause(refused.value)


def test_training_on_a_held_out_image_is_refused(workflow):
    flow = workflow("train.json", **TINY, **{"train#dataset#data": "$tskd.data.entries(@dataset_file, 'validation')"})
    with pytest.raises(RuntimeError) as refused:
        flow.initialize()
    assert "in the list 'validation'" in cause(refused.value)


def test_training_on_images_of_16_bits_is_refused(workflow, tmp_path, cohort):
    """Divided by 255 and clipped, as 8-bit images are scaled, they are white."""
    dataset = tmp_path / "deep" / "dataset.json"
    shutil.copytree(cohort.parent, dataset.parent)
    image = read(dataset)["training"][0]["image"]
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(dataset.parent / image)
    flow = workflow("train.json", **{**TINY, "dataset_file": str(dataset)})
    with pytest.raises(RuntimeError) as refused:
        flow.initialize()
    assert f"{image}: expected 8 bits a channel, found uint16" in cause(refused.value)


def test_network_def_is_the_same_for_tools_as_for_training():
    def unet(name):
        parser = ConfigParser()
        parser.read_config(str(BUNDLE / "configs" / name))
        config = parser.get_parsed_content("network_def").unet.config
        return {key: value for key, value in config.items() if not key.startswith("_")}

    assert unet("train.json") == unet("inference.json")


def test_metadata_names_its_version_and_the_networks_sizes():
    meta = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    assert meta["version"] in meta["changelog"]
    sizes = [meta["network_data_format"][a][b]["spatial_shape"] for a, b in (("inputs", "image"), ("outputs", "pred"))]
    assert sizes == [[256, 256]] * 2
