"""Other students, several teachers, every term of the loss and the labels mixed in, through the real configs."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet
from PIL import Image
from safetensors.torch import load_file

from tests.bundles.conftest import BUNDLES, SMALL, user_error
from tests.forked import run_module
from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.data import entries, write
from tskd.distillation import write_soft_labels
from tskd.files import sha256
from tskd.networks import build_sam
from tskd.state import read_tensors
from tskd.workflow.commands import STUDENT, bundle_command
from tskd.workflow.evaluate_run import evaluate_command

SHORT = {"image_size": 64, "max_epochs": 1, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1}
TOY = {**SHORT, **SMALL}  # of the default network
STUDENTS = ("segresnet", "basic_unet", "flexible_unet", "swin_unetr")
TERMS = {
    "logits_dice", "logits_kl", "embedding", "logits_bce", "confidence_kl", "boundary_kl", "channel_wise", "attention",
    "region_affinity", "labelled",
}  # fmt: skip
UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 5, "channels": [4, 8], "strides": [2]}


@pytest.fixture(scope="module")
def soft(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft labels of a small SAM that knows nothing."""
    folder = tmp_path_factory.mktemp("students")
    torch.manual_seed(0)
    teacher = build_sam("mobile_sam", 5, 64)
    torch.save(teacher.state_dict(), folder / "model.pt")
    images = entries(cohort / "dataset.json", "transfer")
    write_soft_labels(teacher, images, PREPROCESSING, folder / "soft", folder / "model.pt", {"in_channels": 1})
    return folder / "soft"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", STUDENTS)
def test_each_student_is_distilled_and_stays_stock(
    name: str, soft: Path, cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    run_bundle(
        "student_segmentation", "train", "distill", name, **SHORT, dataset_dir=str(cohort), soft_labels=str(soft),
        output_dir=str(tmp_path),
    )  # fmt: skip
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / "student_segmentation/configs" / f"{file}.json") for file in ("train", name)])
    parser["image_size"] = 64
    stock = parser.get_parsed_content("network_def")
    stock.load_state_dict(torch.load(tmp_path / "models/model.pt", weights_only=True))
    assert type(stock).__module__.startswith("monai.networks.nets")
    shares = rows(tmp_path / "gradient_shares.csv")
    assert [row["term"] for row in shares] == ["logits_dice", "logits_kl", "embedding"]
    assert all(float(row["norm"]) > 0 for row in shares)  # also the embedding reaches the student, through the tap


@pytest.mark.parametrize(
    ("overlay", "keys"),
    [
        ([], {key.replace("__", "#"): value for key, value in SMALL.items()}),
        (["lite_unet"], {"encoder_weights": "random"}),
        (["flexible_unet"], {}),
    ],
    ids=["unetr", "lite_unet", "flexible_unet"],
)
def test_what_is_scored_is_the_network_that_was_validated(
    overlay: list[str], keys: dict[str, Any], cohort: Path, tmp_path: Path
) -> None:
    """By `tskd evaluate --run` on the validation list: its weights, and neither those it started from nor others."""
    values = {
        **SHORT,
        **keys,
        "dataset_dir": cohort,
        "output_dir": tmp_path,
        "batch_norm_batches": 2,
        "val_interval": 1,
    }
    train = bundle_command(STUDENT, ("train", *overlay), {**values, "model_dir": tmp_path / "models"})
    assert run_module(train, cwd=tmp_path).returncode == 0
    evaluate = evaluate_command(tmp_path, cohort / "dataset.json", "validation")
    assert run_module(evaluate, cwd=tmp_path).returncode == 0
    log = [row for row in rows(tmp_path / "train_log.csv") if row["name"] == "validation_val_mean_dice"]
    scored = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert scored["mean_dice"] == pytest.approx(float(log[-1]["value"]), abs=1e-6)


@pytest.fixture
def other_bundle(tmp_path: Path) -> Path:
    """A bundle of somebody else, with a network of MONAI."""
    for folder in ("configs", "models"):
        (tmp_path / "bundle" / folder).mkdir(parents=True)
    config = {"network_def": {"_target_": "UNet", **UNET}}
    (tmp_path / "bundle/configs/inference.json").write_text(json.dumps(config))
    torch.save(UNet(**UNET).state_dict(), tmp_path / "bundle/models/model.pt")
    return tmp_path / "bundle"


def test_all_terms_two_teachers_and_labels_then_fine_tuning(
    soft: Path, cohort: Path, other_bundle: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    data = {"dataset_dir": str(cohort), "num_labelled": 5}
    other_weights = tmp_path / "zeros.pt"  # in place of those that lie in the bundle
    state = torch.load(other_bundle / "models/model.pt", weights_only=True)
    torch.save({name: torch.zeros_like(value) for name, value in state.items()}, other_weights)
    run_bundle(
        "teacher_segmentation", "train", "soft_labels", "teacher_bundle", **SHORT, **data,
        teacher_bundle=str(other_bundle), soft_labels=str(tmp_path / "soft"), output_dir=str(tmp_path),
        model_file=str(other_weights),
    )  # fmt: skip
    manifest = json.loads((tmp_path / "soft/manifest.json").read_text())
    assert manifest["teacher"] == sha256(other_weights)
    assert manifest["preprocessing"]["vfm"] == "UNet"
    logits = load_file(next((tmp_path / "soft").glob("*.safetensors")))
    assert {key: value.shape for key, value in logits.items()} == {"logits": (5, 64, 64)}
    assert torch.equal(logits["logits"], torch.zeros(5, 64, 64, dtype=torch.float16))

    weights: dict[str, Any] = {f"loss__terms__{name}__weight": 0.5 for name in TERMS - {"labelled", "logits_kl"}}
    weights["loss__terms__logits_kl__weight"] = {
        "_target_": "tskd.distillation.Linear", "start": 0.2, "end": 0.1, "epochs": 4
    }  # fmt: skip
    run_bundle(
        "student_segmentation", "train", "distill", "more_losses", **TOY, **data, **weights, labelled_weight=0.5,
        soft_labels=[str(soft), str(tmp_path / "soft")], teacher_weights=[0.7, 0.3],
        batch_ratio={"labelled": 1, "unlabelled": 1}, output_dir=str(tmp_path / "distilled"),
    )  # fmt: skip
    shares = {row["term"]: row for row in rows(tmp_path / "distilled/gradient_shares.csv")}
    assert shares.keys() == TERMS
    assert float(shares["logits_kl"]["weight"]) == 0.2
    assert float(shares["labelled"]["value"]) > 0.1  # there is a labelled image in every batch
    assert {row["name"] for row in rows(tmp_path / "distilled/train_log.csv")} == TERMS | {"loss"}

    first = torch.load(tmp_path / "distilled/models/model.pt", weights_only=True)
    run_bundle(
        "student_segmentation", "train", **TOY, **data, init_weights=str(tmp_path / "distilled/models/model.pt"),
        layer_decay=0.5, freeze=["vit.patch_embedding", "vit.blocks.0"], output_dir=str(tmp_path / "tuned"),
        model_dir=str(tmp_path / "tuned/models"),
    )  # fmt: skip
    tuned = torch.load(tmp_path / "tuned/models/model.pt", weights_only=True)
    moved = {name for name, value in first.items() if not torch.equal(value, tuned[name])}
    assert not [name for name in moved if name.startswith(("vit.patch_embedding.", "vit.blocks.0."))]
    assert "vit.blocks.11.norm1.weight" in moved


@pytest.mark.parametrize(("name", "through"), [("embedding", True), ("attention", False), ("region_affinity", False)])
def test_only_the_embedding_is_compared_through_the_projection(name: str, through: bool) -> None:
    """Attention and affinity are of the student's own features: a projection would learn them in its place."""
    parser = ConfigParser()
    parser.read_config(
        [str(BUNDLES / f"student_segmentation/configs/{file}.json") for file in ("train", "distill", "more_losses")]
    )
    parser.update({"image_size": 64, "device": "cpu", f"loss#terms#{name}#weight": 1.0})
    tapped, term = parser.get_parsed_content("tapped"), parser.get_parsed_content(f"loss#terms#{name}")
    targets = {"embedding": torch.randn(2, 256, 4, 4), "logits": 5 * torch.randn(2, 5, 16, 16)}
    term(tapped(torch.rand(2, 1, 64, 64)), targets).backward()
    assert (tapped.projection.weight.grad is not None) == through
    assert tapped.network.vit.patch_embedding.patch_embeddings.weight.grad.abs().sum() > 0


@pytest.fixture
def archive(soft: Path, cohort: Path, tmp_path: Path) -> Path:
    """One more data set, of one image that the cohort has not, with soft labels of the same teacher."""
    (entry,) = entries(cohort / "dataset.json", "transfer")[:1]
    (tmp_path / "archive").mkdir()
    Image.open(entry["image"]).rotate(90).save(tmp_path / "archive/a.png")
    data = {
        **json.loads((cohort / "dataset.json").read_text()), "name": "archive", "training": [], "validation": [],
        "test": [], "unlabelled": [{"image": "a.png", "group": "a", "case": "archive_a"}],
    }  # fmt: skip
    write(tmp_path / "archive/dataset.json", data)
    teacher = build_sam("mobile_sam", 5, 64)
    teacher.load_state_dict(torch.load(soft.parent / "model.pt", weights_only=True))
    images = entries(tmp_path / "archive/dataset.json", "transfer")
    write_soft_labels(
        teacher, images, PREPROCESSING, tmp_path / "archive/soft", soft.parent / "model.pt", {"in_channels": 1}
    )
    return tmp_path / "archive"


def test_a_stopped_distillation_continues_as_if_it_had_not_stopped(
    soft: Path, cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    def train(name: str, epochs: int) -> Path:
        keys = {**TOY, "dataset_dir": str(cohort), "soft_labels": str(soft), "output_dir": str(tmp_path / name)}
        keys |= {"max_epochs": epochs, "lr_scheduler__total_steps": 4, "labelled_weight": 0.5, "num_labelled": 5}
        keys |= {"batch_ratio": {"labelled": 1, "unlabelled": 1}}
        run_bundle("student_segmentation", "train", "distill", **keys)
        return tmp_path / name

    train("parts", 1)
    parts, whole = train("parts", 2), train("whole", 2)
    assert (parts / "train_log.csv").read_text() == (whole / "train_log.csv").read_text()
    first, second = (read_tensors(run / "checkpoints/last.pt")["network"] for run in (parts, whole))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("overlays", [[], ["multi_gpu_train"]])
def test_the_network_is_compiled_where_that_is_asked_for(overlays: list[str], compiled: bool) -> None:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / f"student_segmentation/configs/{name}.json") for name in ("train", *overlays)])
    parser.update({"compile": compiled, "image_size": 64, "device": "cpu"})
    network = parser.get_parsed_content("train#trainer#network" + "#module" * len(overlays))
    assert isinstance(network, torch._dynamo.OptimizedModule) == compiled


@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_shares_are_measured_where_the_graph_can_be_kept(compiled: bool) -> None:
    """A compiled backward gives its buffers away: no second one is possible."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / f"student_segmentation/configs/{name}.json") for name in ("train", "distill")])
    parser.update({"compile": compiled, "image_size": 64, "device": "cpu", "student": torch.nn.Conv2d(1, 5, 1)})
    handler = parser.get_parsed_content("train#named_handlers#gradient_shares")
    assert (handler is None) == compiled


@pytest.mark.parametrize(
    ("bundle", "configs"),
    [("student_segmentation", ["train"]), ("student_segmentation", ["train", "distill"]),
     ("teacher_segmentation", ["train"])],
)  # fmt: skip
def test_labels_stay_in_their_place_when_resized(bundle: str, configs: list[str], tmp_path: Path) -> None:
    """96 px to 32: the middle pixel of three, so that a shift by one, either way, is none of the small image."""
    small = np.zeros((32, 32), np.uint8)
    small[4:9, 20:22] = 1
    large = np.kron(small, np.ones((3, 3), np.uint8))
    Image.fromarray(large.T * 255).save(tmp_path / "image.png")
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / bundle / f"configs/{name}.json") for name in configs])
    parser.update({"image_size": 32})
    parser.update({"train#preprocessing#then": []} if "distill" in configs else {})
    prepare = parser.get_parsed_content("train#preprocessing")
    for shift in (-1, 0, 1):
        Image.fromarray(np.roll(large, (shift, shift), (0, 1)).T).save(tmp_path / "label.png")
        item = prepare({key: str(tmp_path / f"{key}.png") for key in ("image", "label")})
        np.testing.assert_array_equal(item["label"][0].numpy(), small)


@pytest.mark.parametrize("bundle", ["student_segmentation", "teacher_segmentation"])
def test_the_budget_is_the_number_of_labels_also_where_there_are_none(bundle: str) -> None:
    for labels, budget in ((None, 3), (2, 2), (0, 0)):
        parser = ConfigParser()
        parser.read_config([str(BUNDLES / bundle / f"configs/{name}.json") for name in ("train", "evaluate")])
        parser.update({"num_labelled": labels, "dataset": {"training": [1, 2, 3]}})
        assert parser.get_parsed_content("budget") == budget


def refusal(run: Callable[..., Any], *configs: str, **keys: Any) -> str:
    with pytest.raises(Exception, match=r"evaluate|instantiate|belongs to another run") as raised:
        run("student_segmentation", "train", *configs, **TOY, **keys)
    return user_error(raised.value)


def test_a_finished_run_is_not_taken_for_one_of_other_images_terms_or_weights(
    soft: Path, archive: Path, cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    files = [str(cohort / "dataset.json"), str(archive / "dataset.json")]
    keys: dict[str, Any] = {"dataset_dir": str(cohort), "output_dir": str(tmp_path / "distilled")}
    keys["soft_labels"] = [str(soft), str(archive / "soft")]
    run_bundle("student_segmentation", "train", "distill", **TOY, **keys)
    run_bundle("student_segmentation", "train", "distill", **TOY, **keys)  # the same once more has nothing to do
    message = refusal(run_bundle, "distill", **keys, layer_decay=0.5, accumulation_steps=2)
    assert "accumulation_steps: this run has 2, the checkpoint 1; layer_decay: this run has 0.5, the check" in message
    others = {"augmentation#rotate": 90, "network_def#dropout_rate": 0.5, "tap": "vit.blocks.3"}
    message = refusal(run_bundle, "distill", **keys, **others)
    for text in ("network_def#dropout_rate: this run has 0.5", "rotate: this run has 90", "tap: this run has vit.bl"):
        assert text in message
    message = refusal(run_bundle, "distill", **keys, transfer_files=files)
    assert "belongs to another run; transfer: this run has " in message
    more = {"labelled_weight": 0.5, "batch_ratio": {"labelled": 1, "unlabelled": 1}, "num_labelled": 5}
    message = refusal(run_bundle, "distill", **keys, **more)
    for text in ("batch_ratio#labelled: this run has 1, the checkpoint None", "labelled_weight: this run has 0.5, the"):
        assert text in message

    pseudo = {**keys, "output_dir": str(tmp_path / "pseudo_label")}
    run_bundle("student_segmentation", "train", "pseudo_label", **TOY, **pseudo)
    assert "transfer: this run has " in refusal(run_bundle, "pseudo_label", **pseudo, transfer_files=files)

    model = tmp_path / "distilled/models/model.pt"
    tuning = {"dataset_dir": str(cohort), "init_weights": str(model)}
    tuning |= {"output_dir": str(tmp_path / "tuned"), "model_dir": str(tmp_path / "tuned/models")}
    run_bundle("student_segmentation", "train", **TOY, **tuning)
    shutil.move(model, tmp_path / "moved.pt")
    run_bundle("student_segmentation", "train", **TOY, **{**tuning, "init_weights": str(tmp_path / "moved.pt")})
    state = torch.load(tmp_path / "moved.pt", weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, model)  # distilled anew, into the same folder
    assert "belongs to another run; init_weights: this run has " in refusal(run_bundle, **tuning)


@pytest.mark.parametrize(
    "switch",
    [
        {"loss__terms__labelled__weight": 0.5},
        {"labelled_weight": {"_target_": "tskd.distillation.Linear", "start": 0.5, "end": 0.1, "epochs": 4}},
    ],
    ids=["term", "schedule"],
)
def test_labels_are_read_however_their_term_is_switched_on(
    switch: dict[str, Any], soft: Path, cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    run_bundle(
        "student_segmentation", "train", "distill", **TOY, **switch, dataset_dir=str(cohort), soft_labels=str(soft),
        num_labelled=5, batch_ratio={"labelled": 1, "unlabelled": 1}, output_dir=str(tmp_path),
    )  # fmt: skip
    shares = {row["term"]: row for row in rows(tmp_path / "gradient_shares.csv")}
    assert float(shares["labelled"]["weight"]) == 0.5
    assert float(shares["labelled"]["value"]) > 0.1
