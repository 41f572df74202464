"""The network of a shipped bundle: found by MONAI, carried where it is the project's own; no dead weights."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, load, verify_net_in_out

from tests.bundles.standalone import BUNDLE, IMAGE_SIZE, LABELS, lite_student, ship, student
from tskd.errors import TskdError
from tskd.export.carried_network import carry_network
from tskd.export.ship import ship_student
from tskd.networks.bundle_imports import bundle_imports
from tskd.state import save_weights

pytestmark = pytest.mark.bundle


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The search path of modules as it was, and no bundle's `scripts` after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        del sys.modules[name]


def _ship_flexible(folder: Path) -> tuple[Path, torch.nn.Module]:
    """A shipped FlexibleUNet and the network whose weights it has."""
    ship(folder, "nii.gz")  # for its dataset.json
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / f"configs/{name}.json") for name in ("train", "flexible_unet")])
    parser.update({"image_size": IMAGE_SIZE, "num_classes": len(LABELS)})
    network = parser.get_parsed_content("network_def").eval()
    save_weights(network, folder / "flexible.pt")
    output, data = folder / "flexible_segmentation", folder / "dataset.json"
    return ship_student(BUNDLE, folder / "flexible.pt", output, data, IMAGE_SIZE, "flexible_unet.json"), network


@pytest.mark.usefixtures("modules")
def test_monais_load_gives_the_network_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder that is not the bundle's; those that carry their networks follow each other in one process."""
    shipped = [(ship(tmp_path / name, "nii.gz", lite=name == "lite"), network) for name, network in
               (("unetr", student()), ("lite", lite_student()))]  # fmt: skip
    shipped.append(_ship_flexible(tmp_path / "flexible"))
    monkeypatch.chdir(tmp_path)
    x = torch.rand(2, 1, IMAGE_SIZE, IMAGE_SIZE)
    for bundle, expected in shipped:
        for kind in ("train", "inference"):
            network = load(bundle.name, bundle_dir=bundle.parent, workflow_type=kind)
            with torch.no_grad():
                assert torch.equal(network.eval()(x), expected(x))


def test_modules_that_no_mask_depends_on_are_not_shipped(tmp_path: Path) -> None:
    bundle, network = _ship_flexible(tmp_path)
    config = _json(bundle / "configs/inference.json")
    assert config["network_def"]["unused"] == ["encoder._conv_head", "encoder._bn1", "encoder._fc"]
    state = torch.load(bundle / "models/model.pt", weights_only=True)
    whole = network.state_dict()
    assert {name.rpartition(".")[0] for name in set(whole) - set(state)} == set(config["network_def"]["unused"])
    assert all(torch.equal(value, whole[name]) for name, value in state.items())
    parameters = sum(whole[name].numel() for name, _ in network.named_parameters())
    shipped = sum(state[name].numel() for name, _ in network.named_parameters() if name in state)
    assert shipped < 0.75 * parameters
    with bundle_imports(bundle):
        files = {"meta_file": str(bundle / "configs/metadata.json"), "config_file": str(bundle / "configs/train.json")}
        exported = tmp_path / "model.ts"
        ckpt_export(
            "network_def", str(exported), str(bundle / "models/model.pt"), key_in_ckpt="", bundle_root=str(bundle),
            **files,
        )  # fmt: skip
    x = torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(exported)(x), network(x), atol=1e-5)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Path]:
    """A shipped LiteUNet, its folder on the search path of modules, as `monai.bundle run` puts it there."""
    copy = ship(tmp_path, "png", 3, lite=True)
    with bundle_imports(copy):
        yield copy


def test_a_network_of_the_projects_own_is_carried_as_a_file(lite: Path) -> None:
    assert (lite / "scripts/lite_unet.py").is_file()
    parser = ConfigParser()
    parser.read_config(str(lite / "configs/inference.json"))
    network = parser.get_parsed_content("network_def").eval()
    assert type(network).__module__ == "scripts.lite_unet"
    network.load_state_dict(torch.load(lite / "models/model.pt", weights_only=True))
    x = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        assert torch.equal(network(x), lite_student(3)(x))
    text = (lite / "configs/inference.json").read_text() + (lite / "scripts/lite_unet.py").read_text()
    assert "tskd" not in text
    train = _json(lite / "configs/train.json")
    assert train["network_def"]["_target_"] == "scripts.lite_unet.LiteUNet"


def test_the_model_zoo_takes_a_carried_network(lite: Path, tmp_path: Path) -> None:
    """What its verify_bundle.py runs of MONAI: one tensor in and out, and TorchScript of the strict weights."""
    files = {"meta_file": str(lite / "configs/metadata.json"), "config_file": str(lite / "configs/inference.json")}
    verify_net_in_out("network_def", device="cpu", **files)
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(lite / "models/model.pt"),
        key_in_ckpt="",
        **files,
    )
    x = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(tmp_path / "model.ts")(x), lite_student(3)(x), atol=1e-6)


def test_a_network_that_needs_more_of_the_project_is_not_shipped(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    config = {"network_def": {"_target_": "tskd.networks.sam.PromptFreeSam"}}
    (tmp_path / "configs/inference.json").write_text(json.dumps(config))
    with pytest.raises(TskdError, match=r"sam\.py: expected a network that imports torch and MONAI only"):
        carry_network(tmp_path)
    assert not (tmp_path / "scripts").exists()
