"""Distillation in rounds, as in noisy student training (Xie et al., arXiv 1911.04252): a student teaches the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_rounds(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study whose pretrainings with the key `rounds` are written out.

    Of a pretraining P of three rounds, P_round_1 learns from its teachers, P_round_2 from the student of P_round_1, P
    from that of P_round_2. All start alike; each is a method of its own, so that the report says what a round brought.

    Args:
        config: content of a study file; it is not changed.
    """
    pretraining, teachers = dict(config.get("pretraining", {})), dict(config.get("teachers", {}))
    methods = dict(config["methods"])
    for name, settings in config.get("pretraining", {}).items():
        learned = {key: value for key, value in settings.items() if key != "rounds"}
        user: Mapping[str, Any] = next((method for method in methods.values() if method.get("pretrain") == name), {})
        for number in range(1, settings.get("rounds", 1)):
            one = round_name(name, number)
            pretraining[one] = {**learned, "round_of": name}
            methods[one] = {**user, "pretrain": one}
            teachers[one] = {"method": one}
            learned = {key: value for key, value in learned.items() if key != "teacher_weights"} | {"teacher": one}
        pretraining[name] = learned
    written = {"pretraining": pretraining, "teachers": teachers, "methods": methods}
    return {**config, **{key: value for key, value in written.items() if value}}


def round_name(pretraining: str, number: int) -> str:
    """Return the name of a round before the last, as pretraining, method and teacher."""
    return f"{pretraining}_round_{number}"
