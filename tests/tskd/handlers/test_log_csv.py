"""Each epoch of a run has its rows once."""

import csv

import torch

from tskd.handlers import LogCsv


def rows(path) -> list[tuple[int, int, str, float]]:
    with path.open(newline="") as file:
        return [(int(r["epoch"]), int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]


class Terms:
    last_terms: dict


def test_has_the_mean_of_each_epoch_and_the_validation(validation, run_engine, tmp_path):
    terms, values = Terms(), [1.0, 2.0, 6.0, 8.0]
    validator = validation([0.25, 0.75])

    def step(engine, _batch):
        value = torch.tensor(values[engine.state.iteration - 1])
        terms.last_terms = {"kl": value / 10}
        return {"loss": value}

    log = LogCsv(tmp_path / "new" / "log.csv", validator.validator, terms)
    run_engine([validator, log], 2, step, data=(0, 0))
    found = rows(tmp_path / "new" / "log.csv")
    assert sorted(found) == [
        (1, 2, "kl", 0.15),
        (1, 2, "loss", 1.5),
        (1, 2, "validation_dice", 0.25),
        (2, 4, "kl", 0.7),
        (2, 4, "loss", 7.0),
        (2, 4, "validation_dice", 0.75),
    ]


def test_of_a_resumed_run_equals_that_of_a_whole_one(place, training, tmp_path):
    """Rows of an epoch that is run again appear once, whatever the order of the handlers in the config."""

    def log(name):
        return {place: [LogCsv(tmp_path / name / "log.csv")]}

    training(tmp_path / "whole", **log("whole")).go()
    training(tmp_path / "parts", kill_after=2, **log("parts")).go()
    with (tmp_path / "parts" / "log.csv").open("a") as file:
        file.write("3,9,loss,123\n")  # as if killed between the log and the checkpoint of epoch 3
    training(tmp_path / "parts", **log("parts")).go()
    assert rows(tmp_path / "parts" / "log.csv") == rows(tmp_path / "whole" / "log.csv")
    before = (tmp_path / "parts" / "log.csv").read_text()
    training(tmp_path / "parts", **log("parts")).go()  # a finished run
    assert (tmp_path / "parts" / "log.csv").read_text() == before


def test_of_a_run_that_starts_anew(training, tmp_path):
    for _ in range(2):
        training(tmp_path, max_epochs=1, resume="never", before=[LogCsv(tmp_path / "log.csv")]).go()
    assert [row[:3] for row in rows(tmp_path / "log.csv")] == [(1, 3, "loss")]


def test_takes_decollated_outputs(run_engine, tmp_path):
    run_engine([LogCsv(tmp_path / "log.csv")], 1, lambda *_: [{"loss": 2.0}, {"loss": 2.0}])
    assert rows(tmp_path / "log.csv") == [(1, 1, "loss", 2.0)]


def test_a_row_that_a_full_disk_cut_is_dropped(run_engine, tmp_path):
    (tmp_path / "log.csv").write_text("epoch,step,name,value\n1,2,loss,1.5\n1")  # the row of epoch 12
    run_engine([LogCsv(tmp_path / "log.csv")], 3, lambda *_: {"loss": torch.tensor(7.0)}, data=(0,))
    assert [row[0] for row in rows(tmp_path / "log.csv")] == [1, 2, 3]
    assert {row[3] for row in rows(tmp_path / "log.csv")} == {7.0}
