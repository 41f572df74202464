"""A diffusion model ships as a bundle that draws with the network, size and schedule that it was trained with."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.standalone import diffusion_run
from tests.bundles.standalone import ship as ship_toy_student
from tskd.cli import main
from tskd.errors import TskdError
from tskd.state import load_weights
from tskd.synthesis import load_network, load_scheduler
from tskd.workflow.ship_evaluated import ship

pytestmark = pytest.mark.bundle
SIZE = 16


@pytest.fixture
def run(tmp_path: Path) -> Path:
    ship_toy_student(tmp_path, "png", 3, provenance={"licence": "CC BY 4.0", "source": "a hospital"})
    return diffusion_run(tmp_path, SIZE)


def test_the_folder_has_the_values_of_the_training(run: Path, tmp_path: Path) -> None:
    output, data = tmp_path / "shipped", tmp_path / "dataset.json"
    assert main(["ship", "--run", str(run), "--dataset-file", str(data), "--output", str(output)]) == 0
    parser = ConfigParser()
    parser.read_config(str(output / "configs/inference.json"))
    parser["bundle_root"] = str(output)
    assert parser["num_labelled"] == 7
    stored: Any = load_network(run / "models/pipeline")
    network = stored.to(memory_format=torch.contiguous_format)
    drawn, described = parser.get_parsed_content("network"), parser.get_parsed_content("network_def")
    load_weights(described, output / "models/model.pt")
    x, t = torch.rand(2, 5, SIZE, SIZE), torch.tensor([3, 90])
    with torch.no_grad():
        torch.testing.assert_close(drawn(x, t).cpu(), network(x, t), atol=1e-5, rtol=1e-5)
        assert torch.equal(described.eval()(x, t), network(x, t))
    metadata = json.loads((output / "configs/metadata.json").read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["spatial_shape"]) == (5, [SIZE, SIZE])
    assert list(image["channel_def"].values())[:4] == ["red", "green", "blue", "label map: background"]
    assert metadata["network_data_format"]["outputs"]["pred"]["format"] == "noise"
    readme = (output / "docs/README.md").read_text()
    assert "draws MR images of 16 x 16 pixels to label maps." in readme
    assert "- Trained on 2 images;" in readme
    assert "Prediction epsilon, schedule linear" in readme
    assert "12 steps" in readme
    assert "$" not in readme.replace("$PWD", "")
    assert "Licence of the data: CC BY 4.0." in (output / "LICENSE").read_text()
    schedule: Any = load_scheduler(output / "models/pipeline").config
    assert (schedule.prediction_type, schedule.beta_schedule) == ("epsilon", "linear")


def test_another_data_set_or_no_pipeline_is_refused(run: Path, tmp_path: Path) -> None:
    data = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**data, "modality": "CT"}))
    with pytest.raises(TskdError, match='expected modality "MR", which the training had'):
        ship(None, run, tmp_path / "shipped", tmp_path / "other.json")
    with pytest.raises(TskdError, match="expected none of --to, --model and --flips"):
        ship(None, run, tmp_path / "shipped", tmp_path / "dataset.json", formats=["onnx"])
    (run / "models/model.pt").unlink()
    with pytest.raises(TskdError, match=r"found no .*model\.pt"):
        ship(None, run, tmp_path / "shipped", tmp_path / "dataset.json")
    assert not (tmp_path / "shipped").exists()
