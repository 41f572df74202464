"""What ships is the average, in the layout of diffusers."""

import json

import pytest
import torch
from diffusers import DDPMPipeline
from diffusers.training_utils import EMAModel

from tskd.data.datalist import entries, read, write
from tskd.errors import TskdError
from tskd.state import load_weights
from tskd.synthesis import (
    WarpedLabels,
    check_trained_on,
    export_model,
    load_network,
    load_scheduler,
    training_record,
    weights_sha256,
)


@pytest.fixture
def ema(network):
    return EMAModel([torch.nn.Parameter(p + 0.01) for p in network.parameters()])


def test_stock_pipeline_loads_and_samples_what_was_exported(tmp_path, network, scheduler):
    folder = export_model(network, scheduler, tmp_path)
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.prediction_type == scheduler.config.prediction_type
    images = pipeline(batch_size=2, num_inference_steps=4, output_type="np", generator=torch.manual_seed(0)).images
    assert images.shape == (2, 16, 16, 1)
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value, network.unet.state_dict()[name])


def test_the_pipeline_knows_its_training_images_and_no_names(tmp_path, network, scheduler, cohort):
    items = entries(cohort, "labelled", 5)
    folder = export_model(network, scheduler, tmp_path, record=training_record(items))
    record = json.loads((folder / "training.json").read_text())
    assert record["images"] == sorted(record["images"])
    assert len(set(record["images"])) == 5
    assert record["label_maps"] == {"count": 5, "sha256": WarpedLabels(cohort, 16, num_labelled=5).settings["sha256"]}
    assert not any(item["case"] in (folder / "training.json").read_text() for item in items)
    assert training_record(items[::-1])["images"] == record["images"]
    assert type(DDPMPipeline.from_pretrained(folder).unet) is type(network.unet)

    check_trained_on(folder, cohort)
    for section in ("training", "unlabelled"):  # without labels an image still has to be listed
        data = {**read(cohort), "unlabelled": []}
        kept = [entry for entry in data["training"] if entry["case"] != items[2]["case"]]
        rest = [{key: items[2][key] for key in ("image", "group", "case")}] if section == "unlabelled" else []
        for entry in (entry for name in ("training", "validation", "test") for entry in data[name]):
            entry.update({key: str(cohort.parent / entry[key]) for key in ("image", "label")})
        write(tmp_path / "dataset.json", {**data, "training": kept, "unlabelled": rest})
        if rest:
            check_trained_on(folder, tmp_path / "dataset.json")
        else:
            with pytest.raises(TskdError, match=r"expected all 5 images .* found 1 of them"):
                check_trained_on(folder, tmp_path / "dataset.json")


def test_images_of_an_earlier_training_are_passed_on_and_missed_aloud(tmp_path, network, scheduler, cohort, caplog):
    items = entries(cohort, "labelled", 5)
    first = export_model(network, scheduler, tmp_path / "first", record=training_record(items[:3]))
    second = export_model(network, scheduler, tmp_path / "second", record=training_record(items[3:], first))
    record = json.loads((second / "training.json").read_text())
    assert record["pretrained_on"] == training_record(items[:3])["images"]
    check_trained_on(second, cohort)
    assert not caplog.text
    data = {**read(cohort), "unlabelled": []}
    data["training"] = [entry for entry in data["training"] if entry["case"] != items[0]["case"]]
    for entry in (entry for name in ("training", "validation", "test") for entry in data[name]):
        entry.update({key: str(cohort.parent / entry[key]) for key in ("image", "label")})
    write(tmp_path / "dataset.json", data)
    check_trained_on(second, tmp_path / "dataset.json")
    assert "1 images that the model was trained on before" in caplog.text


def test_a_pipeline_without_a_record_is_let_through_with_a_warning(tmp_path, network, scheduler, cohort, caplog):
    check_trained_on(export_model(network, scheduler, tmp_path), cohort)
    assert "nobody can tell which images" in caplog.text


def test_the_average_is_shipped_and_training_weights_stay(tmp_path, network, scheduler, ema):
    before = [p.clone() for p in network.parameters()]
    folder = export_model(network, scheduler, tmp_path, ema)
    for parameter, average, kept, loaded in zip(
        network.parameters(), ema.shadow_params, before, load_network(folder).parameters(), strict=True
    ):
        assert torch.equal(parameter, kept)
        assert torch.equal(loaded, average)


def test_model_pt_holds_tensors_only_and_loads_strictly(tmp_path, network, make_network, scheduler, ema):
    export_model(network, scheduler, tmp_path, ema)
    assert all(torch.is_tensor(value) for value in torch.load(tmp_path / "model.pt", weights_only=True).values())
    loaded = load_weights(make_network(), tmp_path / "model.pt")
    for parameter, average in zip(loaded.parameters(), ema.shadow_params, strict=True):
        assert torch.equal(parameter, average)


def test_a_second_export_replaces_the_first_and_changes_the_hash(tmp_path, network, scheduler, ema):
    first = weights_sha256(export_model(network, scheduler, tmp_path))
    second = weights_sha256(export_model(network, scheduler, tmp_path, ema))
    assert first != second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "pipeline"]


def test_schedule_survives_the_round_trip(tmp_path, network, scheduler):
    loaded = load_scheduler(export_model(network, scheduler, tmp_path))
    assert torch.equal(loaded.alphas_cumprod, scheduler.alphas_cumprod)
    assert dict(loaded.config)["prediction_type"] == scheduler.config.prediction_type


def test_a_missing_pipeline_is_named(tmp_path):
    for load in (load_network, load_scheduler, weights_sha256):
        with pytest.raises(TskdError, match="Train the bundle"):
            load(tmp_path / "nowhere")


def test_weights_of_another_network_are_refused(tmp_path, network, make_network, scheduler):
    folder = export_model(network, scheduler, tmp_path / "one")
    rgb = export_model(make_network(channels=3), scheduler, tmp_path / "three")
    weights = "unet/diffusion_pytorch_model.safetensors"
    (folder / weights).write_bytes((rgb / weights).read_bytes())
    with pytest.raises(TskdError, match="conv_in"):
        load_network(folder)


def test_half_written_weights_are_named(network, scheduler, tmp_path):
    pipeline = export_model(network, scheduler, tmp_path)
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TskdError, match=r"diffusion_pytorch_model.safetensors: expected the weights of its config"):
        load_network(pipeline)
