"""Jobs and GPU-hours of a study on a named card, counted before any image is there: nothing is computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from tskd.workflow.cards import Card, step_seconds
from tskd.workflow.commands import DDPM, TEACHER, config_files, defines_network, merged_config
from tskd.workflow.costs import FIXED, TRAININGS, keys
from tskd.workflow.steps import Step
from tskd.workflow.study import Study

IMAGES = 1000  # of a data set that is not prepared yet: those that a teacher answers for
SCORED = 300  # images or slices that an evaluation segments
FACTORS = {"lora": 2.0, "decoder": 1.1, "full": 3.0}  # of a forward pass that a teacher's training step costs
_PRETRAINED = {"pretrained": "@network_def", "init_weights": None, "encoder_weights": None, "init_from": None}
_NETWORK = ("vfm", "image_size", "num_classes", "in_channels")


class Count(NamedTuple):
    """Jobs of one kind, and their GPU-hours on the card."""

    jobs: int
    hours: float


def gpu_hours(study: Study, card: Card, images: int = IMAGES) -> dict[str, Count]:
    """Return kind of step -> jobs and hours on a card, one step after the other.

    A training step costs three forward passes (LoRA two, a head alone hardly more than one), counted in multiply-adds
    and divided by what the card reaches (`tskd.workflow.cards`).

    Args:
        study: the study.
        card: the card.
        images: real images that a teacher answers for, per data set and fold.
    """
    jobs: dict[str, int] = defaultdict(int)
    hours: dict[str, float] = defaultdict(float)
    forward = _Forward()
    for step in study.steps.values():
        jobs[step.rule] += 1
        hours[step.rule] += _seconds(study, step, card, images, forward) / 3600
    return {rule: Count(jobs[rule], hours[rule]) for rule in jobs}


def table(counts: Mapping[str, Count], card: str) -> str:
    """Return the counts as text, with the sums below."""
    rows = [f"  {'step':<12}{'jobs':>7}{'GPU-hours':>12}"]
    rows += [f"  {rule:<12}{count.jobs:>7,}{count.hours:>12,.1f}" for rule, count in counts.items()]
    jobs, hours = sum(count.jobs for count in counts.values()), sum(count.hours for count in counts.values())
    return "\n".join([f"on one {card}", *rows, f"  {'in all':<12}{jobs:>7,}{hours:>12,.1f}"])


def _seconds(study: Study, step: Step, card: Card, images: int, forward: _Forward) -> float:
    if step.configs is None or step.rule in FIXED:
        return 0.0  # on the CPU
    bundle, settings = step.configs[0], _settings(step)
    batch = int(settings.get("batch_size", 1))
    if step.rule in TRAININGS:
        factor = (
            3.0 if bundle != TEACHER else FACTORS[settings.get("fine_tuning#mode", settings["fine_tuning"]["mode"])]
        )
        steps = int(settings["max_epochs"]) * int(settings["iterations_per_epoch"])
        return steps * step_seconds(factor * batch * forward.gmac(step, settings), card)
    synthetic = study.config.get("synthesis", {}).get("num_images", 0)
    passes = {
        "soft_labels": synthetic if "/soft_labels/synthetic" in step.path else images,
        "synthesise": synthetic * int(settings.get("steps") or 25),
    }.get(step.rule, SCORED)
    return passes / batch * step_seconds(batch * forward.gmac(step, settings), card)


def _settings(step: Step) -> dict[str, Any]:
    assert step.configs
    return {**merged_config(*step.configs), **keys(step)}


class _Forward:
    """Multiply-adds of a forward pass, counted once for each kind of network."""

    def __init__(self) -> None:
        self.known: dict[tuple[Any, ...], float] = {}

    def gmac(self, step: Step, settings: Mapping[str, Any]) -> float:
        """Return 10^9 multiply-adds of an image through the network of a step."""
        assert step.configs
        bundle, configs = step.configs
        chosen = {key: settings[key] for key in _NETWORK if key in settings and not str(settings[key]).startswith("$")}
        networks = {key: value for key, value in keys(step).items() if key.startswith("network_def#")}
        if bundle in (TEACHER, DDPM) or "evaluate" in configs:
            configs = ("train", *(name for name in configs if name not in ("evaluate", "inference", "soft_labels")))
            configs = tuple(name for name in dict.fromkeys(configs) if not name.startswith(("images_2d", "untuned")))
        if bundle != DDPM:  # the other overlays leave the network as it is
            configs = (configs[0], *(name for name in configs[1:] if defines_network(bundle, name)))
        if bundle == TEACHER:
            chosen["num_classes"] = 2  # its masks cost next to nothing
        key = (bundle, configs, *sorted(chosen.items()), *sorted(networks.items()))
        if key not in self.known:
            self.known[key] = _forward_gmac(bundle, configs, {**chosen, **networks})
        return self.known[key]


def _forward_gmac(bundle: str, configs: tuple[str, ...], settings: Mapping[str, Any]) -> float:
    """Build a bundle's network on the meta device, and count."""
    import torch
    from monai.bundle import ConfigParser

    from tskd.step_costs import forward_gmac

    parser = ConfigParser()
    parser.read_config(list(config_files(bundle, configs)))
    chosen = {
        **_PRETRAINED,
        **{key: _number(value) for key, value in settings.items()},
        "device": "$torch.device('meta')",
    }
    parser.update({key: value for key, value in chosen.items() if key.split("#")[0] in parser})
    name, size = "network_def" if bundle != DDPM else "network", int(parser["image_size"])
    channels = 1 if bundle == TEACHER else int(parser["in_channels"])
    with torch.device("meta"):
        network = parser.get_parsed_content(name)
    more = {"timesteps": torch.zeros(1, dtype=torch.long, device="meta")} if bundle == DDPM else {}
    return forward_gmac(network, (channels, size, size), **more)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value
