"""Labelled cases are taught by a teacher that did not see their patient; every other case by the teacher."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.distillation import fold_teachers, soft_labels_identity
from tskd.errors import TskdError
from tskd.files import sha256, write_json
from tskd.networks import build_sam
from tskd.state import save_weights

FOLDS = {"case_0": 0, "case_2": 1, "case_3": 0}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Three teachers and their files: the one of all labels, then those of two folds."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        network = build_sam("mobile_sam", 3, 64).eval()
        path = tmp_path_factory.mktemp("models") / "model.pt"
        save_weights(network, path)
        found.append((network, path))
    return found


@pytest.fixture
def write_folds(write, models, teacher):
    """`write` with the first model as teacher, which it leaves loaded with some model's weights."""
    network = build_sam("mobile_sam", 3, 64)
    network.load_state_dict(models[0][0].state_dict())
    options = {"teacher": models[0][1], "fold_models": [path for _, path in models[1:]], "case_folds": FOLDS}
    return lambda **changes: write(network=network, **{**options, **changes})


@torch.no_grad()
def test_each_case_is_taught_by_its_own_teacher(write_folds, models, entries, tmp_path):
    write_folds(embedding=False)
    for entry in entries:
        stored = load_file(tmp_path / "soft" / f"{entry['case']}.safetensors")["logits"].float()
        image = PREPROCESSING({"image": entry["image"]})["image"][None]
        said = [network.forward_features(image)["logits_low"][0] for network, _ in models]
        near = [bool((stored - logits).abs().max() < 0.01 * logits.abs().max()) for logits in said]
        fold = FOLDS.get(entry["case"])
        assert near == [index == (0 if fold is None else fold + 1) for index in range(3)]


def test_the_manifest_and_the_identity_know_the_teachers(write_folds, models, tmp_path):
    write_folds()
    manifest = json.loads((tmp_path / "soft" / "manifest.json").read_text())
    hashes = [sha256(path) for _, path in models]
    assert manifest["teacher"] == hashes[0]
    assert manifest["fold_teachers"] == hashes[1:]
    assert {case: info.get("fold") for case, info in manifest["cases"].items()} == {
        **dict.fromkeys([f"case_{number}" for number in range(5)]), **FOLDS,
    }  # fmt: skip
    first = soft_labels_identity(tmp_path / "soft")
    write_folds(output_dir=tmp_path / "other", fold_models=[models[2][1], models[1][1]])
    assert soft_labels_identity(tmp_path / "other") != first
    with pytest.raises(TskdError, match=f"fold_teachers: expected ..{hashes[2]}.* found ..{hashes[1]}"):
        write_folds(fold_models=[models[2][1], models[1][1]])
    with pytest.raises(TskdError, match="fold_teachers: expected"):
        write_folds(fold_models=[], case_folds={})


def test_only_a_case_whose_fold_has_changed_is_written_again(write_folds, tmp_path):
    assert write_folds() == 5
    assert write_folds(case_folds={**FOLDS, "case_0": 1}) == 1
    assert write_folds(case_folds={**FOLDS, "case_0": 1}) == 0


def test_the_check_uses_each_cases_teacher_too(write_folds):
    write_folds()
    assert write_folds(check=5) == 5  # recomputed, and nothing raised


def test_models_in_another_order_or_number_are_refused(tmp_path, caplog):
    """A teacher would be asked about the very cases that it was trained on."""
    for fold in range(3):
        settings = {"fold": fold, "folds": 3, "num_labelled": 8}
        write_json(tmp_path / f"fold{fold}" / "versions.json", {"settings": settings})
    write_json(tmp_path / "plain" / "versions.json", {"settings": {"num_labelled": 8}})
    first, second, third, plain = (
        tmp_path / name / "models" / "model.pt" for name in ("fold0", "fold1", "fold2", "plain")
    )
    assert fold_teachers([first, second, third], 8) == [first, second, third]
    assert fold_teachers([]) == []
    assert not caplog.text
    for models, budget, message in (
        ([first, third, second], 8, r"fold_models\[1\]: expected a training with fold 1 \(found 2\)"),
        ([first, second], 8, r"fold_models\[0\]: .*folds 2 \(found 3\)"),
        ([first, second, third], 20, r"num_labelled 20 \(found 8\)"),
        ([first, second, plain], 8, r"fold_models\[2\]: .*fold 2 \(found None\)"),
    ):
        with pytest.raises(TskdError, match=message):
            fold_teachers(models, budget)
    fold_teachers([tmp_path / "elsewhere" / "model.pt"])
    assert "nobody can tell whether this teacher has seen fold 0" in caplog.text


def test_a_fold_without_a_model(write_folds):
    with pytest.raises(TskdError, match="found 2 models and cases of fold 2"):
        write_folds(case_folds={"case_0": 2})
