"""Settings, hash and identity of a run, from the config that builds its handlers."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine
from monai.bundle import ConfigParser

from tskd.errors import TskdError
from tskd.handlers import Checkpointing, WriteVersions
from tskd.handlers.run_config import config_hash, merged_config, running_parser, training_identity, used_settings

TRAIN: dict[str, Any] = {
    "imports": ["$import os"],
    "output_dir": "out",
    "dataset_dir": "data",
    "dataset_file": "$@dataset_dir + '/dataset.json'",
    "seed": 0,
    "_desc_seed": "a remark",
    "learning_rate": 0.1,
    "device": "cpu",
    "max_epochs": 1,
    "init_weights": None,
    "classes": "$2 + 3",
    "unused": 3,
    "entries": [{"image": "a.png"}],
    "fine_tuning": {"rank": 4, "targets": ["q", "v"]},
    "network": {"_target_": "torch.nn.Linear", "in_features": "@classes", "out_features": 1},
    "train": {
        "named_handlers": {
            "checkpoint": {"_target_": "tskd.handlers.Checkpointing", "output_dir": "@output_dir", "objects": {}},
            "versions": {"_target_": "tskd.handlers.WriteVersions", "output_dir": "@output_dir"},
        }
    },
    "used": [
        "@train#named_handlers",
        "@seed",
        "@learning_rate",
        "@network",
        "@dataset_file",
        "@fine_tuning",
        "@entries",
    ],
}


def parser_of(**changes: Any) -> ConfigParser:
    """A parser that has built everything in `used`."""
    parser = ConfigParser(deepcopy(TRAIN))
    parser.update({key.replace("__", "#"): value for key, value in changes.items()})
    parser.get_parsed_content("used")
    return parser


def hash_of(**changes: Any) -> str:
    return config_hash(merged_config(parser_of(**changes)))


def differing(**changes: Any) -> set[str]:
    """Keys in which the identity with the changes is another one."""
    one, two = training_identity(parser_of()), training_identity(parser_of(**changes))
    return {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}


def test_a_handler_knows_the_parser_that_builds_it(tmp_path: Path) -> None:
    parser = parser_of()
    handlers = [parser.get_parsed_content(f"train#named_handlers#{name}") for name in ("checkpoint", "versions")]
    assert all(handler.parser is parser for handler in handlers)
    assert running_parser() is None
    assert Checkpointing(tmp_path, {}).parser is WriteVersions(tmp_path).parser is None


def test_settings_are_the_plain_values_that_the_run_has_used() -> None:
    assert used_settings(parser_of(learning_rate=0.2)) == {
        "output_dir": "out", "dataset_dir": "data", "dataset_file": "data/dataset.json", "seed": 0, "classes": 5,
        "learning_rate": 0.2, "fine_tuning": {"rank": 4, "targets": ["q", "v"]},
    }  # fmt: skip
    assert used_settings(None) == {}


def test_identity_is_of_all_settings_but_paths_device_and_length() -> None:
    assert not differing(output_dir="else/where", dataset_dir="/data", device="cuda:0", max_epochs=9, imports=[])
    assert not differing(_desc_seed="another remark")
    tracked = {"tracking_uri": "sqlite:////a/b.db", "experiment_name": "toy", "run_name": None}
    assert not differing(**tracked, used=[*TRAIN["used"], "@tracking_uri"]) - {"used#0", "used"}
    assert "tracking_uri" not in used_settings(parser_of(**tracked, used=["@tracking_uri"]))
    assert differing(learning_rate=0.2, fine_tuning__rank=8) == {"learning_rate", "fine_tuning#rank"}
    assert differing(network__out_features=2) == {"network#out_features"}
    assert differing(network__bias=False) == {"network#bias"}


def test_weights_to_start_from_count_by_their_content(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("first.pt", "copy.pt", "other.pt"))
    for file, content in ((first, b"weights"), (copy, b"weights"), (other, b"others")):
        file.write_bytes(content)
    one, two, three = (training_identity(parser_of(init_weights=str(file))) for file in (first, copy, other))
    assert one == two
    assert one["init_weights"] != three["init_weights"]
    assert training_identity(parser_of())["init_weights"] == "None"


def test_hash_is_of_the_settings_and_not_of_the_places() -> None:
    same = [hash_of(output_dir="/elsewhere"), hash_of(seed=0), hash_of(_desc_seed="no matter")]
    assert set(same) == {hash_of()}
    other = [
        hash_of(seed=1), hash_of(fine_tuning__rank=11), hash_of(unused="sam_vit_b"), hash_of(unused="/x/a.pth"),
        hash_of(imports=[]),
    ]  # fmt: skip
    assert len({hash_of(), *other}) == 1 + len(other)
    assert hash_of(unused="/x/a.pth") == hash_of(unused="elsewhere/b.pth")


def test_a_checkpoint_of_other_settings_is_refused_with_both_values(tmp_path: Path) -> None:
    def run(**changes: Any) -> None:
        parser = parser_of(output_dir=str(tmp_path), **changes)
        engine = Engine(lambda *_: None)
        parser.get_parsed_content("train#named_handlers#checkpoint").attach(engine)
        engine.run([0], max_epochs=changes.get("max_epochs", 1))

    run()
    run(max_epochs=2, device="cuda:0")
    with pytest.raises(TskdError) as refused:
        run(learning_rate=0.3, network__bias=False)
    assert "learning_rate: this run has 0.3, the checkpoint 0.1; network#bias: this run has False, the checkpoint" in (
        str(refused.value)
    )
    may_differ = ["learning_rate", "network#bias"]
    run(max_epochs=2, learning_rate=0.3, network__bias=False, train__named_handlers__checkpoint__may_differ=may_differ)
