"""A mistyped override is an error that lists the close names; all that MONAI takes is let through."""

import json
import re
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from tests.forked import run_module
from tskd.errors import TskdError
from tskd.options import check_overrides, command_line, file_list, with_none
from tskd.workflow.commands import TEACHER, bundle_command

pytestmark = pytest.mark.process

TRAIN = {
    "max_epochs": 10,
    "learning_rate": 0.001,
    "network_def": {"_target_": "UNETR", "img_size": [64, 64]},
    "augmentation": {"rotate": 15},
    "train": {"handlers": [{"interval": 1}, {"name": "a"}], "trainer": {"max_epochs": "@max_epochs"}},
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "train.json").write_text(json.dumps(TRAIN))
    (tmp_path / "overlay.json").write_text(json.dumps({"section": "test", "augmentation#flip": 0.5}))
    return str(tmp_path / "train.json")


def both(config: str) -> str:
    return str([config, config.replace("train", "overlay")])


def refused(*arguments: str) -> str:
    with pytest.raises(TskdError) as caught:
        check_overrides(["run", *arguments])
    return str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        ["--max_epochs", "3"],
        ["--max_epochs=3"],
        ["--max-epochs", "3"],
        ["--augmentation#rotate", "-5"],
        ["--augmentation::rotate", "5"],
        ["--+augmentation", "{'rotate': 5}"],
        ["--network_def#hidden_size", "96"],  # an argument of a component, which its class checks
        ["--train#handlers#1#name", "b"],
        ["--train#trainer#max_epochs", "3"],
        ["--logging_file", "x.conf", "--meta_file", "m.json", "--run_id", "other", "--init_id", "a", "--final_id", "b"],
        ["training", "--max_epochs", "3"],
        ["--tracking", "mlflow", "--experiment_name", "trial", "--run_name=a", "--tracking_uri", "u"],
    ],
)
def test_known_keys_pass(options, config):
    check_overrides(["run", *options, "--config_file", config])
    check_overrides(["run", f"--config_file={config}", *options])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--max_epochss", "--max_epochss: no such key; close names: max_epochs"),
        ("--max-epoch", "--max_epoch: no such key; close names: max_epochs"),
        ("--learning_rat=0.1", "--learning_rat: no such key; close names: learning_rate"),
        ("--augmentation#rotat", "--augmentation#rotat: no such key in augmentation; close names: rotate"),
        ("--train#trainr#max_epochs", "no such key in train; close names: trainer"),
        ("--train#handlers#2#interval", "no such key in train#handlers"),
        ("--train#handlers#0#intervall", "no such key in train#handlers#0; close names: interval"),
        ("--network_def#hidden_siz", "no such argument of UNETR; close names: hidden_size"),
        ("--optimzer#lr", "--optimzer#lr: no such key"),
        ("--max_epochs#a", "no such key in max_epochs; close names: none"),
        ("--+augmentatio", "close names: augmentation"),
        ("--surest_synthetic", "--surest_synthetic: this key is now called max_confident_synthetic"),
        ("-e", "--e: no such key"),
        ("--override", "--override: no such key"),
        ("--experiment_name", "--experiment_name: no such key"),  # without --tracking
    ],
)
def test_unknown_keys_are_refused_with_the_close_ones(option, message, config):
    assert message in refused("--config_file", config, *option.split("=", 1)[:1], "1")
    assert message in refused("--config_file", config, option if "=" in option else f"{option}=1")


def test_a_name_like_no_other_lists_what_there_is(config):
    message = refused("--config_file", config, "--zzz", "1")
    assert all(key in message for key in TRAIN)


def test_all_problems_at_once(config):
    message = refused(
        "--config_file", config, "--max_epochss", "1", "--seedd", "--learning_rate", "1", "--batchsize", "2"
    )
    assert all(key in message for key in ("--max_epochss", "--seedd", "--batchsize"))
    assert "--learning_rate" not in message


@pytest.mark.parametrize("value", ["true", "false", "null"])
def test_jsons_words_are_are_refused(value, config):
    message = refused("--config_file", config, "--learning_rate", value)
    assert message.startswith(f"--learning_rate {value}: expected True, False or '$None'")


@pytest.mark.parametrize("option", [["--learning_rate", "None"], ["--learning_rate=None"]])
def test_a_none_that_monai_would_pass_over_is_refused_and_written_as_it_takes_it(option, config):
    message = refused("--config_file", config, *option)
    assert message == "--learning_rate: expected '$None', found None, which MONAI passes over"
    written = [text.replace("None", "$None") for text in option]
    assert with_none(["run", "--a", "1", *option]) == ["run", "--a", "1", *written]
    check_overrides(["run", "--config_file", config, *written, "--logging_file", "None"])


def test_null_in_a_study_reaches_the_run():
    command = bundle_command(TEACHER, ["train"], {"ema_decay": None, "seed": 0})
    assert command[-4:] == ("--ema_decay", "$None", "--seed", "0")


def test_keys_of_overlays_count(config):
    check_overrides(["run", "--config_file", both(config), "--section", "validation", "--augmentation#flip", "1"])
    check_overrides(["run", "--config_file", both(config).strip("[]").replace("'", ""), "--section", "validation"])
    assert "close names" in refused("--config_file", config, "--section", "validation")


def test_args_file_is_read(config, tmp_path):
    (tmp_path / "args.json").write_text(json.dumps({"config_file": config, "max_epochs": 1}))
    check_overrides(["run", "--args_file", str(tmp_path / "args.json"), "--learning_rate", "1"])
    assert "--seedd" in refused("--args_file", str(tmp_path / "args.json"), "--seedd", "1")
    (tmp_path / "args.json").write_text(json.dumps({"config_file": config, "max_epoch": 1}))
    assert "--max_epoch: no such key" in refused("--args_file", str(tmp_path / "args.json"))


def test_missing_config_files_are_named(config, tmp_path):
    missing = str(tmp_path / "other.json")
    assert f"not found: {missing}" in refused("--config_file", f"['{config}','{missing}']")


def test_other_commands_are_left_alone():
    check_overrides(["tests", "-q", "--durations=3"])
    check_overrides([])


def test_command_line_of_this_process_is_the_default(config, monkeypatch):
    monkeypatch.setattr("sys.argv", ["monai.bundle", "run", "--config_file", config, "--max_epochss", "1"])
    with pytest.raises(TskdError, match="max_epochss"):
        check_overrides()


def test_command_line():
    options = command_line(["run", "--a", "1", "--b=2=3", "--flag", "--c-d", "-4", "-e", "5"])
    assert options == {"a": "1", "b": "2=3", "flag": "", "c_d": "-4", "e": "5"}


@pytest.mark.parametrize("value", ["['a.json', 'b.json']", '["a.json","b.json"]', "a.json,b.json", "[a.json,b.json]"])
def test_file_list(value):
    assert file_list(value) == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("key", "value", "monai"),
    [
        ("dataset_dir", "/data/study #2", "/data/study ::2"),
        ("dataset_dir", "study#2", "study::2"),
        ("dataset_dir", "$'/x#1'", "/x::1"),
        ("folders", "['/a', '/b#1']", "['/a', '/b::1']"),
        ("all", "$@dataset_dir + '/x#1'", "/x::1"),
    ],
)
def test_a_value_that_monai_would_read_as_another_is_refused(tmp_path, key, value, monai):
    config = tmp_path / "config.json"
    config.write_text('{"dataset_dir": "", "folders": [], "all": "$@dataset_dir"}')
    message = f"--{key} {value}: expected no #, which MONAI reads as ::. Rename the folder or file"
    with pytest.raises(TskdError, match=f"^{re.escape(message)}$"):
        check_overrides(["run", "--config_file", str(config), f"--{key}", value])
    assert ConfigParser({"dataset_dir": "", key: value}).get_parsed_content(key) == monai  # what it would have been


def test_a_hash_that_monai_understands_is_none_of_a_value(tmp_path):
    """References, keys of the config, and its files, which MONAI opens before it reads anything as a reference."""
    config = tmp_path / "C#" / "config.json"
    config.parent.mkdir()
    config.write_text('{"network": {"width": 3}, "may_differ": [], "all": "$@network#width"}')
    keys = ["--may_differ", "['network#width', 'a/b#c']", "--all", "$@network#width * 2"]
    check_overrides(["run", "--config_file", str(config), *keys])
    parser = ConfigParser(ConfigParser.load_config_file(str(config)))
    parser["all"] = keys[3]
    assert parser.get_parsed_content("all") == 6


def test_typo_ends_monai_with_the_message_alone(tmp_path):
    """A bundle's own configs through MONAI's command line, as a user starts them."""
    configs = Path(__file__).parents[2] / "bundles" / "student_segmentation" / "configs"
    files = str([str(configs / name) for name in ("train.json", "distill.json")])
    command = ["monai.bundle", "run", "--config_file", files, "--tap", "vit.norm", "--max_epochss", "1"]
    done = run_module(command, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last == "error: unknown override: --max_epochss: no such key; close names: max_epochs"
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_tskd_run_refuses_below_a_mistyped_parent_and_runs_the_rest(tmp_path):
    """Where MONAI's own command ends in a KeyError."""
    (tmp_path / "config.json").write_text('{"network": {"width": 3}, "run": ["$print(\'width\', @network#width)"]}')
    command = ["tskd.cli", "run", "--config_file", "config.json", "--meta_file", "config.json"]
    done = run_module([*command, "--netwrk#width", "4"], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: unknown override: --netwrk#width: no such key; close names: network"
    assert "Traceback" not in done.stderr
    done = run_module([*command, "--network#width", "4"], cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr
    assert "width 4" in done.stdout
    done = run_module([*command, "--network#width", "None"], cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"})
    assert "width None" in done.stdout, done.stderr
    done = run_module(command[:2], cwd=tmp_path)
    assert done.stderr.splitlines()[-1].startswith("error: expected --config_file")
