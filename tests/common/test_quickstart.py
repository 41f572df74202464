"""The quickstart's commands, log and table."""

import json
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.errors import TskdError
from common.evaluation.rows import MetricRow, write_rows
from common.options import check_overrides
from common.quickstart import METHODS, Step, run_step, steps, table


def test_every_override_of_every_step_names_a_key_of_its_configs(tmp_path: Path) -> None:
    bundle_steps = [step for step in steps(tmp_path, seed=0) if step.command[0] == "monai.bundle"]
    assert len(bundle_steps) >= 9
    for step in bundle_steps:
        check_overrides(step.command)
        files = step.command[step.command.index("--config_file") + 1]
        assert "run" in ConfigParser.load_config_files(json.loads(files.replace("'", '"')))


def test_a_failing_step_shows_the_end_of_its_log(tmp_path: Path) -> None:
    step = Step("nothing", ("common.cli", "check", str(tmp_path / "none.json")))
    with pytest.raises(TskdError, match=r"none\.json"):
        run_step(step, "[1/1]", tmp_path / "01.log")


def test_a_finished_step_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = Step("version", ("common.cli", "--version"))
    assert run_step(step, "[1/1]", tmp_path / "01.log")
    assert "tskd" in (tmp_path / "01.log").read_text()
    (tmp_path / "01.log").write_text("kept")
    assert not run_step(step, "[1/1]", tmp_path / "01.log")
    assert (tmp_path / "01.log").read_text() == "kept"
    assert "done before" in capsys.readouterr().out
    assert run_step(step, "[1/1]", tmp_path / "01.log", again=True)
    assert sys.executable in (tmp_path / "01.done").read_text()


def test_only_a_step_with_another_command_starts_in_an_empty_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = Step("version", ("common.cli", "--version", "--output_dir", str(out)))
    for step, again, kept in ((first, False, False), (first, False, True), (first, True, False)):
        out.mkdir(exist_ok=True)
        (out / "file").touch()
        (tmp_path / "01.done").unlink(missing_ok=True)
        run_step(step, "[1/1]", tmp_path / "01.log", again=again)
        assert (out / "file").exists() is kept


def test_steps_clear_only_folders_of_their_own(tmp_path: Path) -> None:
    owners: dict[Path, str] = {}
    for step in steps(tmp_path, seed=0):
        for folder in step.outputs():
            assert folder not in owners, (step.name, owners[folder])
            owners[folder] = step.name
            assert folder.is_relative_to(tmp_path)
            assert folder != tmp_path
    assert owners[tmp_path / "soft_labels"] == "teacher: soft labels"
    assert owners[tmp_path / "synthetic"] == "DDPM: synthetic images"


@pytest.mark.parametrize(("tskd", "verdict"), [(0.8, "better"), (0.4, "not better")])
def test_the_table_says_who_wins(tmp_path: Path, tskd: float, verdict: str) -> None:
    for method in METHODS:
        (tmp_path / method).mkdir()
        value = tskd if method == "tskd" else 0.5
        rows = [MetricRow("toy", "8", method, "0", g, g, "liver", "dice", value) for g in "ab"]
        write_rows(tmp_path / method / "metrics.csv", rows)
        profile = {"parameters": 5_900_000, "gmac": 2.5, "ms_per_image": 42.0}
        (tmp_path / method / "profile.json").write_text(json.dumps(profile))
    text = table(tmp_path)
    assert "2 test patients" in text
    assert f"distillation was {verdict} than" in text
    assert f"{tskd - 0.5:+.3f} mean Dice" in text
