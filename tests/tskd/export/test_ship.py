"""The shipped bundle has the run's values, loads strictly, and appears in one step or not at all."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.standalone import BUNDLE, IMAGE_SIZE, LABELS, ship, student
from tskd.cli import main
from tskd.data import datalist
from tskd.errors import TskdError
from tskd.export.carried_network import find_scripts
from tskd.export.required_packages import check_packages
from tskd.export.ship import ship_run, ship_student
from tskd.handlers.provenance import provenance
from tskd.networks import build_sam
from tskd.networks.bundle_imports import bundle_imports
from tskd.predict.shipped_bundle import read_bundle
from tskd.predict.torch_backend import TorchBackend
from tskd.state import save_weights

pytestmark = pytest.mark.bundle

SEGMENTS_FILE_BY_FILE = {  # what a shipped inference.json has beyond the bundle's own
    "segment": {"_target_": "scripts.segment_files.segment", "_mode_": "callable"},
    "check_packages": {"_target_": "scripts.required_packages.check_packages", "_mode_": "callable"},
    "run": [
        "$@check_packages(@as_given(str(@bundle_root)), @displayable_configs#keep_largest_component)",
        "$@segment(@evaluator, @postprocessing, @datalist, @input_dir, @mask_dir, @in_channels)",
    ],
}


COLOURS = {"liver": [230, 60, 60], "right kidney": [70, 160, 255], "left kidney": [80, 210, 100]}
OPTIONS = {
    "keep_largest_component": "$bool(@largest_component)",
    "average_mirrored": "$'x' in @flips",
    "label_colors": COLOURS,
}


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _values(item: Any) -> Iterator[str]:
    """All texts of a config, keys and values."""
    if isinstance(item, dict):
        for key, value in item.items():
            yield key
            yield from _values(value)
    elif isinstance(item, list):
        for value in item:
            yield from _values(value)
    else:
        yield str(item)


@pytest.mark.parametrize(("kind", "in_channels"), [("nii.gz", 1), ("png", 3)])
def test_the_copy_has_the_settings_of_the_run(tmp_path: Path, kind: str, in_channels: int) -> None:
    before = {path: path.read_bytes() for path in BUNDLE.rglob("*") if path.is_file()}
    copy = ship(tmp_path, kind, in_channels)
    assert {path: path.read_bytes() for path in BUNDLE.rglob("*") if path.is_file()} == before
    for name in ("train.json", "inference.json"):
        config = _json(copy / "configs" / name)
        assert (config["image_size"], config["in_channels"], config["num_classes"]) == (IMAGE_SIZE, in_channels, 4)
    pixel = _json(copy / "configs/metadata.json")["network_data_format"]
    image, pred = pixel["inputs"]["image"], pixel["outputs"]["pred"]
    assert image["spatial_shape"] == pred["spatial_shape"] == [IMAGE_SIZE, IMAGE_SIZE]
    assert image["num_channels"] == len(image["channel_def"]) == in_channels
    assert pred["num_channels"] == 4
    assert pred["channel_def"] == LABELS
    assert [path.name for path in (copy / "models").iterdir()] == ["model.pt"]
    assert {path.name for path in copy.iterdir()} == {"LICENSE", "configs", "docs", "models", "scripts"}
    parser = ConfigParser()
    parser.read_config(str(copy / "configs/inference.json"))
    with bundle_imports(copy):
        network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(copy / "models/model.pt", weights_only=True))
    x = torch.rand(1, in_channels, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        assert torch.equal(network(x), student(in_channels)(x))


@pytest.mark.parametrize(
    ("kind", "in_channels", "files", "packages"),
    [
        ("nii.gz", 1, "`.nii` and `.nii.gz` file", "`monai`, `fire`, `einops`, `nibabel`, `pytorch-ignite`"),
        ("png", 3, "PNG and JPEG file", "`monai`, `fire`, `einops`, `nibabel`, `pytorch-ignite`, `pillow`"),
    ],
)
def test_its_readme_and_metadata_tell_of_this_network_and_these_images(
    tmp_path: Path, kind: str, in_channels: int, files: str, packages: str
) -> None:
    copy = ship(tmp_path, kind, in_channels)
    readme = (copy / "docs/README.md").read_text()
    parameters = sum(value.numel() for value in torch.load(copy / "models/model.pt", weights_only=True).values())
    structures = ", ".join(name for index, name in LABELS.items() if index != "0")
    assert f"\n---\n\n# Segmentation of {structures}\n\nA UNETR of {parameters / 1e6:.1f} million parameters" in readme
    assert files in readme
    assert f"With {packages} installed" in readme
    assert "$" not in readme
    assert not (copy / "docs/shipped.md").exists()
    metadata = _json(copy / "configs/metadata.json")
    assert metadata["name"] == f"Segmentation of {structures}"
    assert metadata["description"].startswith("UNETR, trained on few labels. ")
    channels = "red, green, blue" if in_channels == 3 else "image"
    assert metadata["image_classes"] == f"{channels}: intensities scaled to [0, 1]"
    assert ", ".join(f"`{name}`" for name in ["monai", *metadata["required_packages_version"]]) == packages


@pytest.mark.parametrize("kind", ["nii.gz", "png"])
def test_inference_names_only_monai_torch_and_the_standard_library(tmp_path: Path, kind: str) -> None:
    config = _json(ship(tmp_path, kind) / "configs/inference.json")
    pictures = ["$import PIL.Image as Image", "$import PIL.ImageOps as ImageOps"] if kind == "png" else []
    assert config["imports"] == ["$import glob", "$import torch", "$import monai", *pictures]
    assert not [text for text in _values(config) if "tskd" in text]


def _without_norms(config: dict[str, Any]) -> dict[str, Any]:
    """A config whose UNETR is built without the norms that its masks do not depend on."""
    network = {
        "_target_": "scripts.unused_modules.without_modules",
        "_desc_": "modules that no mask depends on are left out; MONAI Label's scores set dropout",
        "network": config["network_def"],
        "unused": [f"vit.blocks.{i}.norm_cross_attn" for i in range(12)],
    }
    return {**find_scripts(config), "network_def": network}


def test_images_get_the_configs_for_images(tmp_path: Path) -> None:
    configs = ship(tmp_path, "png") / "configs"
    expected = ConfigParser()
    expected.read_config([str(BUNDLE / "configs" / name) for name in ("inference.json", "inference_2d.json")])
    expected.update({"image_size": IMAGE_SIZE, "num_classes": 4, **SEGMENTS_FILE_BY_FILE})
    expected["displayable_configs"] = {**OPTIONS, "result_extension": ".png"}
    found = _json(configs / "inference.json")
    assert found == _without_norms({key: value for key, value in expected.get().items() if key != "_meta_"})
    train = _json(configs / "train.json")
    assert train["train"]["preprocessing"]["transforms"][:7] == found["preprocessing"]["transforms"]
    assert "Orientationd" not in {*_values(found), *_values(train)}


def test_volumes_keep_the_configs_for_volumes(tmp_path: Path) -> None:
    defaults = {
        **_json(BUNDLE / "configs/inference.json"),
        "image_size": IMAGE_SIZE,
        "in_channels": 1,
        "num_classes": 4,
        "displayable_configs": {**OPTIONS, "result_extension": ".nii.gz"},
    }
    expected = _without_norms({**defaults, **SEGMENTS_FILE_BY_FILE})
    assert _json(ship(tmp_path, "nii.gz") / "configs/inference.json") == expected


def test_the_window_of_the_training_goes_along(tmp_path: Path) -> None:
    """Where the student runs there is no dataset.json to read it from."""
    configs = ship(tmp_path, "nii.gz", intensity={"window": [-160, 240]}) / "configs"
    volume = torch.linspace(-1000, 1000, 512).reshape(1, 8, 8, 8)
    for name, section in (("inference.json", "preprocessing"), ("train.json", "validate#preprocessing")):
        parser = ConfigParser()
        parser.read_config(str(configs / name))
        assert "@scale_intensity" in parser[f"{section}#transforms"]
        scaled = parser.get_parsed_content("scale_intensity")({"image": volume})["image"]
        torch.testing.assert_close(torch.as_tensor(scaled), ((volume + 160) / 400).clamp(0, 1))


def test_what_is_kept_of_each_class_goes_along(tmp_path: Path) -> None:
    ship(tmp_path, "nii.gz")
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    (tmp_path / "weights.pt").rename(run / "models/model.pt")
    (run / "versions.json").write_text(
        json.dumps({"settings": {"image_size": IMAGE_SIZE, "largest_component": [1, 3]}})
    )
    configs = ship_run(BUNDLE, run, tmp_path / "f_segmentation", tmp_path / "dataset.json", force=True) / "configs"
    assert _json(configs / "inference.json")["largest_component"] == [1, 3]
    assert "its axes and its place, in mm." in (configs.parent / "docs/README.md").read_text()


def test_a_training_of_toy_length_is_called_so_and_the_data_set_as_its_study_calls_it(tmp_path: Path) -> None:
    ship(tmp_path, "png")
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    (tmp_path / "weights.pt").rename(run / "models/model.pt")
    images = {"labelled": 1, "labelled_patients": 1, "unlabelled": 3, "synthetic": 1}
    (run / "versions.json").write_text(json.dumps({"settings": {"image_size": IMAGE_SIZE}, "images": images}))
    (run / "train_log.csv").write_text("epoch,step,name,value\n1,2,loss,0.5\n1,4,loss,0.4\n")
    dataset = tmp_path / "dataset.json"
    output = tmp_path / "t_segmentation"
    copy = ship_run(BUNDLE, run, output, dataset, force=True, data_name="photos", trial=True)
    text, metadata = (copy / "docs/README.md").read_text(), _json(copy / "configs/metadata.json")
    assert "\n**Trained for a trial of 4 steps: not for use.** It was not evaluated.\n" in text
    assert "Trained on the data set photos, licence:" in text
    assert "- Budget: 1 labelled image of 1 patient.\n- Beside it 3 unlabelled and 1 synthetic image (20%" in text
    assert "in mm" not in text  # a picture has no place
    assert metadata["description"].endswith("Trained for a trial of 4 steps: not for use.")
    assert (metadata["provenance"]["trial"], metadata["provenance"]["trial_steps"]) == (True, 4)
    plain = ship_run(BUNDLE, run, tmp_path / "p_segmentation", dataset, force=True)
    assert "trial" not in (plain / "docs/README.md").read_text() + json.dumps(_json(plain / "configs/metadata.json"))


def test_weights_that_do_not_fit_are_refused_by_name_and_leave_nothing(tmp_path: Path) -> None:
    ship(tmp_path, "nii.gz")
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    state["stranger"] = state.pop("vit.norm.weight")
    torch.save(state, tmp_path / "other.pt")
    folder = tmp_path / "new"
    with pytest.raises(TskdError, match=r"missing vit\.norm\.weight; unexpected stranger"):
        ship_student(BUNDLE, tmp_path / "other.pt", folder / "a_segmentation", tmp_path / "dataset.json", IMAGE_SIZE)
    with pytest.raises(TskdError, match="position_embeddings"):
        ship_student(BUNDLE, tmp_path / "weights.pt", folder / "a_segmentation", tmp_path / "dataset.json", 96)
    with pytest.raises(TskdError, match=r"none\.pt"):
        ship_student(BUNDLE, tmp_path / "none.pt", folder / "a_segmentation", tmp_path / "dataset.json", IMAGE_SIZE)
    assert list(folder.iterdir()) == []


def test_an_output_with_files_or_another_name_is_refused(tmp_path: Path) -> None:
    copy = ship(tmp_path, "nii.gz")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    arguments = (tmp_path / "dataset.json", IMAGE_SIZE)
    with pytest.raises(TskdError, match="found files in it"):
        ship_student(BUNDLE, tmp_path / "weights.pt", copy, *arguments)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    with pytest.raises(TskdError, match="student_segmentation"):
        ship_student(BUNDLE, tmp_path / "weights.pt", tmp_path / "liver", *arguments)
    with pytest.raises(TskdError, match=r"docs/shipped\.md"):
        ship_student(tmp_path, tmp_path / "weights.pt", tmp_path / "b_segmentation", *arguments)
    (tmp_path / "empty_segmentation").mkdir()
    assert ship_student(BUNDLE, tmp_path / "weights.pt", tmp_path / "empty_segmentation", *arguments).is_dir()


@pytest.mark.parametrize("test", [[], ["a.png", "b.nii.gz"]])
def test_a_data_set_must_be_of_one_kind(tmp_path: Path, test: list[str]) -> None:
    ship(tmp_path, "png")
    data = datalist.read(tmp_path / "dataset.json")
    data["test"] = [{"image": name, "label": f"l{name}", "group": name, "case": name} for name in test]
    datalist.write(tmp_path / "dataset.json", data)
    with pytest.raises(TskdError, match="all volumes"):
        ship_student(
            BUNDLE, tmp_path / "weights.pt", tmp_path / "c_segmentation", tmp_path / "dataset.json", IMAGE_SIZE
        )


def test_a_run_is_shipped_with_what_its_versions_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ship(tmp_path, "nii.gz")
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    (tmp_path / "weights.pt").rename(run / "models/model.pt")
    dataset_file, versions = tmp_path / "dataset.json", run / "versions.json"
    with pytest.raises(TskdError, match=r"versions\.json"):
        ship_run(BUNDLE, run, tmp_path / "d_segmentation", dataset_file)
    versions.write_text(json.dumps({"settings": {"seed": 0}}))
    with pytest.raises(TskdError, match=r"image_size, found seed"):
        ship_run(BUNDLE, run, tmp_path / "d_segmentation", dataset_file)
    versions.write_text(json.dumps({"settings": {"image_size": IMAGE_SIZE}}))
    two = tmp_path / "d_segmentation"
    monkeypatch.chdir(tmp_path)  # the project's own bundle is found from any folder
    assert main(["ship", "--run", "run", "--dataset-file", "dataset.json", "--output", str(two), "--force"]) == 0
    (run / "models").rename(tmp_path / "elsewhere")
    (tmp_path / "models").mkdir()
    torch.save({}, tmp_path / "models/model.pt")  # another training's, in the folder where the command is given
    versions.write_text(json.dumps({"settings": {"image_size": IMAGE_SIZE, "model_dir": "models"}}))
    with pytest.raises(TskdError, match=r"run/models/model\.pt: expected the trained weights.* --model"):
        ship_run(BUNDLE, run, tmp_path / "e_segmentation", dataset_file)
    command = ["ship", "--run", "run", "--dataset-file", "dataset.json", "--model", "elsewhere/model.pt"]
    assert main([*command, "--output", str(tmp_path / "e_segmentation"), "--force"]) == 0
    for path in one.rglob("*"):
        if path.is_file() and path.name not in ("README.md", "metadata.json"):  # which have what the run recorded
            assert (two / path.relative_to(one)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("segresnet", {"network_def#init_filters": 8}),
        ("flexible_unet", {}),
        ("train", {"network_def#hidden_size": 48, "network_def#mlp_dim": 96, "network_def#feature_size": 4}),
    ],
)
def test_another_student_is_shipped_with_its_own_network(tmp_path: Path, name: str, keys: dict[str, int]) -> None:
    ship(tmp_path, "nii.gz")  # for its dataset.json
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs/train.json"), str(BUNDLE / f"configs/{name}.json")])
    parser.update({"image_size": IMAGE_SIZE, "num_classes": len(LABELS), **keys})
    network = parser.get_parsed_content("network_def").eval()
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    torch.save(network.state_dict(), run / "models/model.pt")
    made_with = {"settings": {"image_size": IMAGE_SIZE}, "config": ["train.json", f"{name}.json"], "network_keys": keys}
    (run / "versions.json").write_text(json.dumps(made_with))
    copy = ship_run(BUNDLE, run, tmp_path / "other_segmentation", tmp_path / "dataset.json", force=True)
    shipped = ConfigParser()
    shipped.read_config(str(copy / "configs/inference.json"))
    with bundle_imports(copy):
        again = shipped.get_parsed_content("network_def").eval()
    again.load_state_dict(torch.load(copy / "models/model.pt", weights_only=True))
    x = torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))
    train = _json(copy / "configs/train.json")
    assert train["network_def"] == _json(copy / "configs/inference.json")["network_def"]
    stock = train["network_def"].get("network", train["network_def"])  # where modules without use are left out
    assert {key: stock[key.partition("#")[2]] for key in keys} == keys
    assert "tskd" not in set(_values(_json(copy / "configs/inference.json")))
    assert len(list((copy / "models").iterdir())) == 1


def test_what_was_not_evaluated_or_has_learned_nothing_is_shipped_by_force_alone(tmp_path: Path) -> None:
    ship(tmp_path, "nii.gz")
    run, dataset_file = tmp_path / "run", tmp_path / "dataset.json"
    (run / "models").mkdir(parents=True)
    (tmp_path / "weights.pt").rename(run / "models/model.pt")
    (run / "versions.json").write_text(json.dumps({"settings": {"image_size": IMAGE_SIZE}}))
    with pytest.raises(TskdError, match="expected the evaluation of the model, found none"):
        ship_run(BUNDLE, run, tmp_path / "a_segmentation", dataset_file)
    scores = {"mean_dice": 0.02, "patients": 4, "labels": {"liver": {"dice": {"mean": 0.02, "n": 4}}}}
    (run / "summary.json").write_text(json.dumps(scores))
    with pytest.raises(TskdError, match=r"found a mean Dice of 0\.020"):
        ship_run(BUNDLE, run, tmp_path / "a_segmentation", dataset_file)
    forced = ship_run(BUNDLE, run, tmp_path / "a_segmentation", dataset_file, force=True)
    assert "Mean Dice 0.020 on 4 patients" in (forced / "docs/README.md").read_text()
    (run / "summary.json").write_text(json.dumps({**scores, "mean_dice": 0.8}))
    good = ship_run(BUNDLE, run, tmp_path / "b_segmentation", dataset_file)
    assert "Mean Dice 0.800 on 4 patients" in (good / "docs/README.md").read_text()


def test_a_data_set_of_other_labels_or_scaling_is_refused(tmp_path: Path) -> None:
    """A permuted list of labels would name every structure wrongly, and nothing else would show it."""
    ship(tmp_path, "nii.gz", intensity={"window": [-160, 240]})
    file, run = tmp_path / "dataset.json", tmp_path / "run"
    (run / "models").mkdir(parents=True)
    (tmp_path / "weights.pt").rename(run / "models/model.pt")
    made = {"settings": {"image_size": IMAGE_SIZE}, **provenance({"dataset_file": str(file), "vfm": "mobile_sam"})}
    (run / "versions.json").write_text(json.dumps(made))
    content = _json(file)
    first, second = (name for index, name in LABELS.items() if index in "12")
    for change, found in (
        ({"labels": {**LABELS, "1": second, "2": first}}, f'"1": "{second}"'),
        ({"intensity": {"window": [-1000, 400]}}, "-1000, 400"),
        ({"modality": "CT"}, '"CT"'),
    ):
        datalist.write(tmp_path / "other.json", {**content, **change})
        with pytest.raises(TskdError, match=rf"expected {next(iter(change))} .*, which the training had") as raised:
            ship_run(BUNDLE, run, tmp_path / "x_segmentation", tmp_path / "other.json", force=True)
        assert found in str(raised.value)
    datalist.write(tmp_path / "other.json", {**content, "name": "renamed"})
    with pytest.raises(TskdError, match="other images or lists"):
        ship_run(BUNDLE, run, tmp_path / "x_segmentation", tmp_path / "other.json")
    copy = ship_run(BUNDLE, run, tmp_path / "x_segmentation", file, force=True)
    assert "Weights of its teacher: MobileSAM, Apache-2.0." in (copy / "LICENSE").read_text()
    made["settings"]["prediction_type"] = "epsilon"
    (run / "versions.json").write_text(json.dumps(made))
    with pytest.raises(TskdError, match="expected a student or a teacher, found a diffusion model"):
        ship_run(BUNDLE, run, tmp_path / "y_segmentation", file, force=True)


@pytest.mark.parametrize("high_res", [False, True])
def test_a_teacher_ships_with_its_values_and_says_what_it_is(tmp_path: Path, high_res: bool) -> None:
    ship(tmp_path, "nii.gz")
    file, run, size = tmp_path / "dataset.json", tmp_path / "run", 64
    network = build_sam("mobile_sam", len(LABELS), size, high_res_features=high_res).eval()
    save_weights(network, run / "models/model.pt")
    settings = {"image_size": size, "vfm": "mobile_sam", "largest_component": [1]}
    made = {"settings": settings, **provenance({"dataset_file": str(file), "vfm": "mobile_sam"})}
    keys = {"network_def#high_res_features": True} if high_res else {}
    (run / "versions.json").write_text(json.dumps({**made, "network_keys": keys}))
    copy = ship_run(BUNDLE, run, tmp_path / "teacher_segmentation", file, force=True)
    config, metadata = (_json(copy / f"configs/{name}.json") for name in ("inference", "metadata"))
    assert (config["image_size"], config["num_classes"], config["largest_component"]) == (size, len(LABELS), [1])
    assert not (copy / "configs/train.json").exists()
    assert "tskd" in metadata["required_packages_version"]
    assert "This is a teacher (mobile_sam)" in (copy / "docs/README.md").read_text()
    assert "MobileSAM, Apache-2.0" in (copy / "LICENSE").read_text()
    backend = TorchBackend(read_bundle(copy), "cpu")
    x = torch.rand(1, 1, size, size)
    with torch.no_grad():
        assert torch.equal(backend.network(x), network(x))


def test_a_package_that_an_option_needs_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = ship(tmp_path, "nii.gz")
    check_packages(str(bundle))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skimage" else found(name))
    check_packages(str(bundle))
    with pytest.raises(SystemExit, match=r"not installed: pip install scikit-image$"):
        check_packages(str(bundle), largest_component=True)
