"""The graph of a study: what is shared, what each step is told, and which files are refused."""

import ast
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from tskd.data import read, write
from tskd.errors import TskdError
from tskd.workflow import Study, check_study, read_yaml
from tskd.workflow.chain import shortened
from tskd.workflow.choose_student import choose_student
from tskd.workflow.commands import STUDENT, TEACHER, config_files, merged_config
from tskd.workflow.ending import table
from tskd.workflow.schema import WORKFLOW
from tskd.workflow.sublist import first_images

TOY = Path(__file__).with_name("toy.yaml")


def toy(**changes: Any) -> dict[str, Any]:
    return {**read_yaml(TOY), **changes}


def value(command: tuple[str, ...], key: str) -> str:
    return command[command.index(f"--{key}") + 1]


@pytest.mark.parametrize("name", ["shared", "paper", "chaos_256"])
def test_shared_work_is_one_step(name: str) -> None:
    config = read_yaml(WORKFLOW / f"{name}.yaml")
    study = check_study(config, name)
    count = Counter(step.rule for step in study.steps.values())
    cells = [cell for dataset in config["datasets"] for cell in study.cells(dataset)]
    trained = [teacher for teacher, settings in config["teachers"].items() if "train" in settings]
    assert count["prepare"] == count["ddpm"] == count["synthesise"] == len({cell[:2] for cell in cells})
    assert count["teacher"] == len(trained) * len(cells)
    assert count["evaluate"] == len(config["methods"]) * len(cells)
    assert count["report"] == len(config["datasets"])


@pytest.mark.parametrize(
    "name", ["shared", "paper", "quickstart", "chaos_20", "chaos_256", "chaos_synthesis", "own_volumes", "own_images"]
)
def test_all_students_of_a_study_see_as_many_images(name: str) -> None:
    config = read_yaml(WORKFLOW / f"{name}.yaml")
    everywhere = config.get("overrides", {})

    def images(stage: dict[str, Any]) -> int:
        keys = merged_config("student_segmentation", ("train", *stage.get("configs", [])))
        keys = keys | everywhere.get("all", {}) | everywhere.get("student", {}) | stage.get("overrides", {})
        return keys["max_epochs"] * keys["iterations_per_epoch"] * keys["batch_size"]

    def before(pretraining: dict[str, Any]) -> int:
        return images(pretraining) + (images(pretraining["start"]) if "start" in pretraining else 0)

    seen = {
        method: (images(stages["finetune"]) if "finetune" in stages else 0)
        + (before(config["pretraining"][stages["pretrain"]]) if "pretrain" in stages else 0)
        for method, stages in config["methods"].items()
        if "finetune" in stages
    }
    assert len(set(seen.values())) == 1, seen


def test_an_untrained_teacher_answers_once_for_all_budgets_and_seeds() -> None:
    study = check_study(read_yaml(WORKFLOW / "paper.yaml"), "paper")
    labels = [step.path for step in study.steps.values() if step.rule == "soft_labels" and "/untuned/" in step.path]
    assert len(labels) == 2 * len(study.config["datasets"]) * len(study.folds)  # real and synthetic
    agnostic = [step for step in study.steps.values() if "/task_agnostic/" in step.path and step.rule == "distil"]
    assert len(agnostic) == len(study.config["datasets"]) * len(study.folds) * len(study.config["seeds"])
    assert not [step for step in agnostic if "--teacher_model" in step.command or "--num_labelled" in step.command]


def test_every_step_comes_after_what_it_needs() -> None:
    for name in ("shared", "paper", "chaos_20", "chaos_256", "chaos_synthesis", "own_volumes", "own_images"):
        seen: set[str] = set()
        for output, step in check_study(read_yaml(WORKFLOW / f"{name}.yaml"), name).steps.items():
            assert {needed.output for needed in step.needs} <= seen
            seen.add(output)


def test_a_student_is_told_where_its_teacher_and_images_are() -> None:
    config = toy(synthesis={"num_images": 4})
    config["pretraining"]["distilled"]["transfer"]["synthetic"] = 3
    steps = check_study(config, "toy").steps
    at = "results/phantom/split"
    distil = steps[f"{at}/distil/distilled/budget-4/seed-1/models/model.pt"].command
    assert value(distil, "transfer_files") == str([f"{at}/dataset/dataset.json", f"{at}/synthetic-3/dataset.json"])
    labels = [f"{at}/soft_labels/{source}/small/budget-4/seed-1" for source in ("real", "synthetic")]
    assert value(distil, "soft_labels") == str(labels)
    assert value(distil, "teacher_model") == f"{at}/teachers/small/budget-4/seed-1/models/model.pt"
    tune = steps[f"{at}/finetune/tskd/budget-4/seed-1/models/model.pt"].command
    assert value(tune, "init_weights") == f"{at}/distil/distilled/budget-4/seed-1/models/model.pt"
    assert (value(tune, "num_labelled"), value(tune, "seed"), value(tune, "num_classes")) == ("4", "1", "5")


def test_a_student_may_learn_from_the_labelled_images_and_synthetic_ones_alone() -> None:
    config = toy(synthesis={"num_images": 4})
    config["pretraining"]["distilled"]["transfer"] = {"real": "labelled", "synthetic": "all"}
    config["pretraining"]["mae"] = {"transfer": {"real": "labelled"}, "configs": ["mae"]}
    config["methods"]["mae"] = {"pretrain": "mae", "finetune": {}}
    steps = check_study(config, "toy").steps
    at = "results/phantom/split"
    distil = steps[f"{at}/distil/distilled/budget-4/seed-1/models/model.pt"].command
    assert value(distil, "transfer_files") == str([f"{at}/labelled-4/dataset.json", f"{at}/synthetic/dataset.json"])
    labels = [f"{at}/soft_labels/{source}/small/budget-4/seed-1" for source in ("real", "synthetic")]
    assert value(distil, "soft_labels") == str(labels)
    assert steps[f"{at}/labelled-4/dataset.json"].command[-3:] == (
        f"{at}/dataset/dataset.json",
        "4",
        f"{at}/labelled-4/dataset.json",
    )
    rival = steps[f"{at}/rival/mae/budget-4/seed-1/models/model.pt"].command  # another one for each budget
    assert value(rival, "transfer_files") == str([f"{at}/labelled-4/dataset.json"])


def test_a_generator_of_the_labelled_images_alone_is_trained_for_each_budget() -> None:
    config = toy(synthesis={"num_images": 4, "real": "labelled"})
    config["datasets"]["phantom"]["budgets"] = [4, "all"]
    config["pretraining"]["distilled"]["transfer"] = {"real": "labelled", "synthetic": 3}
    config["pretraining"]["mae"] = {"transfer": {"real": True, "synthetic": "all"}, "configs": ["mae"]}
    config["methods"]["mae"] = {"pretrain": "mae", "finetune": {}}
    steps = check_study(config, "toy").steps
    at = "results/phantom/split"
    for budget in (4, "all"):
        for made in (f"ddpm-labelled-{budget}/models/model.pt", f"synthetic-labelled-{budget}/dataset.json"):
            step = steps[f"{at}/{made}"]
            assert value(step.command, "dataset_dir") == f"{at}/labelled-{budget}"
            assert steps[f"{at}/labelled-{budget}/dataset.json"] in step.needs
        drawn = f"{at}/synthetic-labelled-{budget}"
        assert value(steps[f"{drawn}/dataset.json"].command, "model_dir") == f"{at}/ddpm-labelled-{budget}/models"
        distil = steps[f"{at}/distil/distilled/budget-{budget}/seed-1/models/model.pt"].command
        lists = [f"{at}/labelled-{budget}/dataset.json", f"{drawn}-3/dataset.json"]
        assert value(distil, "transfer_files") == str(lists)
        labels = f"{at}/soft_labels/synthetic-labelled-{budget}/small/budget-{budget}/seed-1"
        assert labels in value(distil, "soft_labels")
        assert value(steps[f"{labels}/manifest.json"].command, "dataset_files") == str([f"{drawn}/dataset.json"])
        rival = steps[f"{at}/rival/mae/budget-{budget}/seed-1/models/model.pt"].command
        assert value(rival, "transfer_files") == str([f"{at}/dataset/dataset.json", f"{drawn}/dataset.json"])
    assert "--synthetic" not in steps["results/phantom/report/report.html"].command  # there are two sets


def test_all_labels_need_no_limit_and_are_one_budget_in_every_fold() -> None:
    config = toy(folds={"of": 2})
    config["datasets"]["phantom"] |= {"budgets": ["all"], "prepare": {"preparer": "volumes"}}
    config["pretraining"]["distilled"]["transfer"] = {"real": "labelled"}
    steps = check_study(config, "toy").steps
    assert not [path for path, step in steps.items() if "--num_labelled" in step.command]
    scores = [step.command for step in steps.values() if step.rule == "evaluate"]
    assert {value(command, "budget") for command in scores} == {"all"}
    assert steps["results/phantom/fold-1/labelled-all/dataset.json"].command[-2] == "all"
    assert "results/phantom/fold-1/finetune/tskd/budget-all/seed-0/models/model.pt" in steps


def test_another_network_reaches_its_evaluation_and_profile() -> None:
    config = toy(report={"profile": True})
    config["overrides"]["student"] = {"image_size": 64}
    config["methods"]["tskd"]["finetune"] = {
        "configs": ["segresnet"], "overrides": {"image_size": 96, "learning_rate": 0.1, "network_def#init_filters": 8},
    }  # fmt: skip
    config["teachers"]["small"]["train"].setdefault("overrides", {})["image_size"] = 128
    config["methods"]["teacher"] = {"teacher": "small"}
    steps = check_study(config, "toy").steps
    at = "results/phantom/split"
    student, teacher = f"{at}/finetune/tskd/budget-4/seed-1", f"{at}/teachers/small/budget-4/seed-1"
    evaluate = steps[f"{student}/metrics.csv"].command
    configs = ast.literal_eval(value(evaluate, "config_file"))
    assert [Path(file).stem for file in configs] == ["train", "segresnet", "evaluate"]
    assert (value(evaluate, "image_size"), value(evaluate, "network_def#init_filters")) == ("96", "8")
    assert "--learning_rate" not in evaluate
    profile = steps[f"{at}/finetune/tskd/budget-4/seed-0/profile.json"].command
    assert profile[2].endswith("student_segmentation:segresnet")
    assert (value(profile, "image_size"), value(profile, "set")) == ("96", "network_def#init_filters=8")
    assert value(steps[f"{teacher}/metrics.csv"].command, "image_size") == "128"
    soft = steps[f"{at}/soft_labels/real/small/budget-4/seed-1/manifest.json"].command
    assert value(soft, "image_size") == "128"
    assert "--max_epochs" not in soft
    config["teachers"]["small"]["train"]["overrides"]["augmentation#flip"] = 0.5
    soft = check_study(config, "toy").steps[f"{at}/soft_labels/real/small/budget-4/seed-1/manifest.json"].command
    assert value(soft, "augmentation#flip") == "0.5"  # its mirror images are averaged


def test_what_a_stage_does_to_images_and_masks_is_done_in_its_evaluation() -> None:
    config = toy()
    config["overrides"].pop("all", None)
    rule = {"largest_component": "[1,2]", "scale_intensity#upper": 99.0, "patience": 3}
    config["methods"]["tskd"]["finetune"] = {"overrides": rule}
    config["methods"]["teacher"] = {"teacher": "small"}
    config["teachers"]["small"]["train"].setdefault("overrides", {})["largest_component"] = "[3]"
    steps = Study(config).steps
    student = steps["results/phantom/split/finetune/tskd/budget-4/seed-1/metrics.csv"].command
    teacher = steps["results/phantom/split/teachers/small/budget-4/seed-1/metrics.csv"].command
    assert (value(student, "largest_component"), value(student, "scale_intensity#upper")) == ("[1,2]", "99.0")
    assert "--patience" not in student
    assert value(teacher, "largest_component") == "[3]"


def test_folds_reach_the_preparation_and_the_stage_has_the_last_word() -> None:
    config = toy(folds={"of": 3, "run": [2]}, data_root="/data")
    config["datasets"]["phantom"]["prepare"]["preparer"] = "volumes"
    config["datasets"]["phantom"]["prepare"]["options"]["source"] = "{data_root}/x"
    config["datasets"]["phantom"]["overrides"] = {"all": {"learning_rate": 1}, "student": {"learning_rate": 2}}
    config["methods"]["scratch"] = {"finetune": {"overrides": {"learning_rate": 3}}}
    steps = check_study(config, "toy").steps
    at = "results/phantom/fold-2"
    prepare = steps[f"{at}/dataset/dataset.json"].command
    assert (value(prepare, "fold"), value(prepare, "folds"), value(prepare, "source")) == ("2", "3", "/data/x")
    rates = {
        rule: value(next(step for step in steps.values() if step.rule == rule).command, "learning_rate")
        for rule in ("teacher", "distil")
    }
    assert rates == {"teacher": "1", "distil": "2"}
    assert value(steps[f"{at}/finetune/scratch/budget-4/seed-0/models/model.pt"].command, "learning_rate") == "3"


@pytest.mark.parametrize(
    ("bundle", "configs"), [(STUDENT, ("train", "distill", "task_agnostic")), (TEACHER, ("train",))]
)
def test_configs_are_merged_as_monai_merges_them(bundle: str, configs: tuple[str, ...]) -> None:
    assert merged_config(bundle, configs) == ConfigParser.load_config_files(list(config_files(bundle, configs)))


def test_the_schema_reports_all_problems_at_once() -> None:
    config = toy(seeds=[], methodz={}, threads="two")
    config["datasets"]["phantom"]["budgets"] = [0, "many"]
    del config["datasets"]["phantom"]["num_classes"]
    with pytest.raises(TskdError) as raised:
        check_study(config, "toy.yaml")
    message = str(raised.value)
    for part in (
        "toy.yaml: 6 problems",
        "top level: expected only the keys",
        "did you mean methods?",
        "seeds: expected at least 1 item, found []",
        "threads: expected integer, found 'two'",
        "datasets/phantom/budgets/0: expected at least 1, found 0",
        "datasets/phantom/budgets/1: expected one of all, found 'many'",
        "datasets/phantom: expected the key num_classes",
    ):
        assert part in message


def test_names_and_stages_that_do_not_fit_are_reported_at_once() -> None:
    config = toy(folds={"of": 2, "run": [2]}, report={"reference": "tsdk"})
    config["pretraining"]["other"] = {"teacher": "smal", "transfer": {"synthetic": 5}, "configs": ["distill"]}
    config["methods"] |= {
        "a": {"pretrain": "distiled", "finetune": {}},
        "b": {"teacher": "small"},
        "c": {"finetune": {}, "datasets": ["phantoms"]},
    }
    with pytest.raises(TskdError) as raised:
        check_study(config, "toy.yaml")
    message = str(raised.value)
    for part in (
        "folds/run: expected folds from 0 to 1, found 2",
        "datasets/phantom: expected a data set of patients for the folds, found phantom, which has none",
        "report/reference: expected one of teacher, tskd, a, b, c; found tsdk (did you mean tskd?)",
        "pretraining/other/teacher: expected one of small; found smal (did you mean small?)",
        "pretraining/other/transfer/synthetic: expected the key synthesis",
        "methods/a/pretrain: expected one of distilled, other; found distiled (did you mean distilled?)",
        "methods/b: expected another model than methods/teacher, found the same teacher small",
        "methods/c/datasets: expected one of phantom; found phantoms",
    ):
        assert part in message


def test_unknown_keys_and_configs_are_found_before_anything_runs() -> None:
    config = toy()
    config["methods"]["tskd"]["finetune"] = {"overrides": {"learning_rat": 1, "output_dir": "x"}}
    config["pretraining"]["distilled"]["configs"] = ["distil"]
    with pytest.raises(TskdError) as raised:
        check_study(config, "toy.yaml")
    for part in ("learning_rat: no such key; close names: learning_rate", "output_dir is set by", "found no distil"):
        assert part in str(raised.value)


def test_a_shared_key_is_set_where_the_configs_have_it_and_refused_where_none_has() -> None:
    config = read_yaml(WORKFLOW / "chaos_256.yaml")
    config["overrides"] = {"all": {"largest_component": [1]}, "ddpm": {"image_size": 32}, "student": {"keep": "last"}}
    del config["synthesis"]["train"]["overrides"]["image_size"]
    steps = list(check_study(config, "chaos_256").steps.values())
    where = {key: {step.rule for step in steps if f"--{key}" in step.command} for key in ("largest_component", "keep")}
    assert where == {
        "largest_component": {"teacher", "soft_labels", "distil", "rival", "finetune", "evaluate"},
        "keep": {"distil", "rival", "finetune", "evaluate"},
    }
    sizes = {step.rule: value(step.command, "image_size") for step in steps if step.rule == "ddpm"}
    assert sizes == {"ddpm": "32"}
    assert not [step for step in steps if step.rule == "synthesise" and "--image_size" in step.command]
    config["overrides"]["all"] = {"larges_component": [1]}
    with pytest.raises(TskdError, match="overrides/all: override larges_component: no such key"):
        check_study(config, "chaos_256")


def test_a_generator_that_sees_labels_is_refused() -> None:
    """One generator serves all budgets: with label maps it would have seen the labels that a budget leaves out."""
    config = read_yaml(WORKFLOW / "chaos_256.yaml")
    config["synthesis"]["train"]["configs"] = ["light_128", "label_maps"]
    with pytest.raises(TskdError, match="synthesis/train/configs: expected a generator that sees no labels"):
        check_study(config, "chaos_256")


def test_the_profile_is_of_the_network_that_is_trained_wherever_its_keys_stand() -> None:
    config = toy(report={"profile": True})
    (step,) = [s for s in check_study(config, "toy").steps.values() if s.rule == "profile" and "/finetune/" in s.path]
    assert {"network_def#hidden_size=48", "network_def#mlp_dim=96", "network_def#feature_size=4"} < set(step.command)


def test_only_runs_of_a_bundle_take_a_gpu() -> None:
    study = check_study(read_yaml(WORKFLOW / "chaos_256.yaml"), "chaos_256")
    with_gpu = {step.rule for step in study.steps.values() if "--gpu" in shlex.split(study.shell(step.output))}
    assert with_gpu.isdisjoint({"prepare", "transfer", "weights", "profile", "report"})
    assert {"teacher", "ddpm", "synthesise", "soft_labels", "distil", "finetune", "evaluate"} <= with_gpu


def test_paths_do_not_depend_on_where_the_study_lies() -> None:
    commands = [part for step in Study(toy()).steps.values() for part in step.command]
    root = str(WORKFLOW.parent)
    assert {part for part in commands if Path(part).is_absolute()} <= {part for part in commands if root in part}


def test_every_step_makes_a_file_of_its_own_and_has_a_log_of_its_own() -> None:
    study = check_study(read_yaml(WORKFLOW / "quickstart.yaml"), "quickstart")
    logs = {step.log for step in study.steps.values()}
    assert len(logs) == len(study.steps)
    assert not logs & set(study.steps)


def test_whole_patients_are_a_budget_of_their_own() -> None:
    config = toy()
    config["datasets"]["phantom"]["num_labelled_groups"] = [2]
    config["pretraining"]["distilled"]["transfer"] = {"real": "labelled"}
    steps = check_study(config, "toy").steps
    at = "results/phantom/split"
    tuned = steps[f"{at}/finetune/tskd/budget-2-patients/seed-0/models/model.pt"].command
    assert value(tuned, "num_labelled") == "2 patients"
    assert steps[f"{at}/labelled-2-patients/dataset.json"].command[-2] == "2-patients"
    scores = [step.command for step in steps.values() if step.rule == "evaluate"]
    assert {value(command, "budget") for command in scores} == {"4", "2 patients"}
    del config["datasets"]["phantom"]["budgets"]
    study = check_study(config, "toy")
    assert study.budgets("phantom") == ["2 patients"]
    student, _ = choose_student(study, "phantom")
    assert student is not None
    assert "budget-2-patients" in str(student.folder)
    short = shortened(config)["datasets"]["phantom"]
    assert short["num_labelled_groups"] == [2]
    assert "budgets" not in short


def test_sublist_of_whole_patients(tmp_path: Path) -> None:
    entry = {"image": "i", "label": "l"}
    training = [{**entry, "image": f"{c}.png", "group": c[0], "case": c} for c in ("a0", "b0", "a1", "c0")]
    content = {"name": "x", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "liver"}}
    write(tmp_path / "dataset.json", {**content, "training": training, "validation": [], "test": []})
    first_images(tmp_path / "dataset.json", "2 patients", tmp_path / "part" / "dataset.json")
    assert [e["case"] for e in read(tmp_path / "part" / "dataset.json")["training"]] == ["a0", "b0", "a1"]


@pytest.mark.parametrize(
    ("labels", "heads"),
    [(["all organs", "lesion"], ["lesion"]), (["all organs", "liver", "spleen"], ["liver", "spleen", "all organs"])],
)
def test_the_end_table_has_the_mean_of_several_structures_alone(
    labels: list[str], heads: list[str], tmp_path: Path
) -> None:
    lines = ["method,budget,label,metric,mean,patients"]
    lines += [f"teacher,4,{label},dice,0.{number},3" for number, label in enumerate(labels, start=5)]
    (tmp_path / "numbers.csv").write_text("\n".join(lines))
    study = check_study(read_yaml(TOY), "toy")
    title, head, row = table(study, "phantom", tmp_path / "numbers.csv")
    assert title == "  mean Dice over 3 test patients"
    assert head.split("labels")[1].split("parameters")[0].split() == " ".join(heads).split()
    assert row.split()[2 : 2 + len(heads)] == [f"0.{5 + labels.index(label)}00" for label in heads]


def test_the_student_s_projection_fits_the_embedding_of_an_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov2", "hidden_size": 24, "num_attention_heads": 2}')
    for vfm, channels in (("mobile_sam", None), ("dinov3_small", "384"), (str(tmp_path), "24")):
        config = toy()
        config["overrides"]["teacher"]["vfm"] = vfm
        study = check_study(config)
        distil = next(step for step in study.steps.values() if step.rule == "distil")
        found = value(distil.command, "embedding_channels") if "--embedding_channels" in distil.command else None
        assert found == channels
