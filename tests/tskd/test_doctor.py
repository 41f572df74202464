"""What fits is found by measuring: plausible numbers, and a proposal that stays below the limit."""

import platform
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests import forked
from tskd import doctor
from tskd.cli import main
from tskd.commands.arguments import settings
from tskd.doctor import (
    MARGIN,
    Fit,
    Step,
    _machine_and_settings,
    _measure_step,
    _parser,
    _proposal,
    group_limits,
    search,
)
from tskd.errors import TskdError
from tskd.installation import NEEDED, _hub, check_installation, without_names
from tskd.teacher_advice import advice, card_memory, options
from tskd.workflow.commands import BUNDLES

pytestmark = pytest.mark.process

TOY = ["doctor", "--stage", "teacher", "--vfm", "mobile_sam", "--image_size", "64", "--device", "cpu"]


def machine(base: float, plain: float, checkpointed: float, limit: float):
    """A machine on which a step takes base + n * plain (or checkpointed) and fails above twice the limit."""

    def measure(batch_size: int, checkpointing: bool) -> Step:
        peak = base + batch_size * (checkpointed if checkpointing else plain)
        return Step(batch_size, checkpointing, None if peak > 2 * limit else round(peak), 1.0)

    return measure


@pytest.mark.parametrize(
    ("plain", "chosen"),
    [
        (10, (12, False)),  # 100 + 120
        (60, (3, False)),  # 100 + 180, 100 + 240 is too much
        (190, (1, False)),
        (250, (12, True)),  # 100 + 12 * 10
        (900, (12, True)),  # does not even run
    ],
)
def test_the_largest_divisor_that_fits(plain, chosen):
    limit = 300
    steps, proposed = search(machine(100, plain, 10, limit), 12, limit)
    assert proposed is not None
    assert (proposed.batch_size, proposed.checkpointing) == chosen
    assert proposed.peak is not None
    assert proposed.peak <= limit
    assert proposed in steps


def test_a_batch_that_cannot_fit_is_not_tried():
    steps, proposed = search(machine(100, 60, 10, 300), 12, 300)
    assert [step.batch_size for step in steps] == [1, 2, 3]
    assert proposed is not None


def test_nothing_fits():
    steps, proposed = search(machine(100, 900, 500, 300), 4, 300)
    assert proposed is None
    assert [(step.batch_size, step.checkpointing) for step in steps] == [(1, False), (1, True)]


def rows(text: str) -> list[tuple[int, int, str, float, str]]:
    pattern = r"^ +(\d+) +(\d+) +(True|False) +([\d.]+) +[\d.]+ +(yes|no)$"
    return [(int(b), int(a), c, float(p), fits) for b, a, c, p, fits in re.findall(pattern, text, re.MULTILINE)]


def test_measured_on_this_machine(capsys, monkeypatch):
    for key, value in forked.environment().items():
        monkeypatch.setenv(key, value)
    assert main([*TOY, "--batch_size", "2", "--memory-limit", "6", "--set", "fine_tuning#mode=decoder"]) == 0
    text = capsys.readouterr().out
    proposed = rows(text)
    assert [(batch, accumulation) for batch, accumulation, *_ in proposed] == [(1, 2), (2, 1)]
    assert proposed[1][3] >= proposed[0][3]  # more images, not less memory
    assert all(0.2 < peak <= 6 * MARGIN for *_, peak, _ in proposed)
    assert "mobile_sam, fine-tuning decoder, 64 px, on the CPU; limit 6.00 GiB" in text
    assert "Proposed: --batch_size 2 --accumulation_steps 1 --gradient_checkpointing False" in text


def test_values_are_read_as_the_bundle_reads_them():
    read = settings(["a=False", "b=None", "c=true", "d=[1, 2]", "e={'x': 1}", "f=mobile_sam", "g=0.5", "h=a=b"])
    assert read == {
        "a": False, "b": None, "c": True, "d": [1, 2], "e": {"x": 1}, "f": "mobile_sam", "g": 0.5, "h": "a=b",
    }  # fmt: skip


def test_the_bundles_are_named_where_there_are_none(capsys, tmp_path):
    assert main(["doctor", "--bundles", str(tmp_path)]) == 2
    assert "Pass --bundles" in capsys.readouterr().err


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_the_process_and_of_the_groups_above_it(version, tmp_path):
    line, top, name = [
        ("5:memory:/slurm/job_7", "memory", "memory.limit_in_bytes"), ("0::/slurm/job_7", "", "memory.max"),
    ][version - 1]  # fmt: skip
    membership = tmp_path / "membership"
    membership.write_text(f"4:cpu,cpuacct:/other\n{line}\n")
    assert group_limits(membership, tmp_path) == []
    (tmp_path / top / "slurm" / "job_7").mkdir(parents=True)
    (tmp_path / top / "slurm" / "job_7" / name).write_text("max\n" if version == 2 else "9223372036854771712\n")
    (tmp_path / top / "slurm" / name).write_text("4000\n")
    assert min(group_limits(membership, tmp_path)) == 4000
    assert group_limits(tmp_path / "no such file", tmp_path) == []


def test_an_unknown_key_is_said_from_any_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*TOY, "--set", "fine_tuning#rnk=2"]) == 2
    assert "fine_tuning#rnk: no such key in fine_tuning; close names: rank" in capsys.readouterr().err


SMALL_DIFFUSION = {
    "image_size": 32, "network_def#unet#block_out_channels": [16, 16], "network_def#unet#attention_head_dim": 8,
    "network_def#unet#down_block_types": ["DownBlock2D", "DownBlock2D"], "network_def#unet#layers_per_block": 1,
    "network_def#unet#up_block_types": ["UpBlock2D", "UpBlock2D"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("bundle", "settings", "name"),
    [
        ("student_segmentation", {"image_size": 64, "in_channels": 3}, "student UNETR"),
        ("ddpm_synthesis", SMALL_DIFFUSION, "diffusion model"),
    ],
)
def test_students_and_diffusion_models_are_measured_too(bundle, settings, name):
    parser = _parser(str(BUNDLES / bundle / "configs/train.json"), {**settings, "batch_size": 2, "device": "cpu"})
    facts = _machine_and_settings(parser)
    assert (facts["name"], facts["checkpointing"], facts["batch_size"]) == (name, False, 2)
    measured = _measure_step(parser)
    assert measured["peak"] > 2**28
    assert measured["seconds"] > 0
    said = _proposal(Step(1, False, 2**30, 2.0), facts)
    assert said.startswith("Proposed: --batch_size 1 --accumulation_steps 2 --iterations_per_epoch")
    updates = facts["max_epochs"] * facts["iterations_per_epoch"]
    assert f"{updates:,} updates of 2 images: about {duration(updates * 4)} here" in said


def duration(seconds):
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


STAGES = {"teacher": "teacher_segmentation", "student": "student_segmentation", "diffusion": "ddpm_synthesis"}


def test_every_stage_gets_its_keys_and_the_times_are_added(monkeypatch):
    asked = {}

    def measure(bundle, settings, memory_limit):
        asked[bundle.name] = (dict(settings), memory_limit)
        return Fit(
            f"table of {bundle.name}",
            f"network of {bundle.name}",
            {"teacher_segmentation": 7200}.get(bundle.name, 5400),
        )

    monkeypatch.setattr(doctor, "doctor", measure)
    folders = {stage: BUNDLES / name for stage, name in STAGES.items()}
    loss, teachers, rotate = (
        {"loss#dice_weight": 1.0},
        {"network_def#high_res_features": True},
        {"augmentation#rotate": 1},
    )
    given = {"vfm": "mobile_sam", "image_size": 64, "sampler": "ddim", **loss, **teachers, **rotate}
    texts = [*doctor.every_stage(folders, given, 3.0)]
    assert asked == {
        "teacher_segmentation": ({"vfm": "mobile_sam", "image_size": 64, **loss, **teachers, **rotate}, 3.0),
        "student_segmentation": ({"image_size": 64, **loss, **rotate}, 3.0),
        "ddpm_synthesis": ({"image_size": 64, "sampler": "ddim"}, 3.0),
    }
    assert [fits for _, fits in texts] == [True] * 4
    assert re.search(r"teacher +about 2\.0 h +network of teacher_segmentation\n", texts[-1][0])
    assert texts[-1][0].endswith("together  about 5.0 h")
    monkeypatch.setattr(doctor, "doctor", lambda *_: Fit("nothing fits", "a network", None))
    text, fits = [*doctor.every_stage(folders, {})][-1]
    assert not fits
    assert "does not fit" in text
    with pytest.raises(TskdError, match=r"^imagesize: no stage's train.json has such a key"):
        next(doctor.every_stage(folders, {"imagesize": 64}))


def test_seconds_of_a_training_are_those_of_its_updates():
    facts = {"batch_size": 8, "max_epochs": 3, "iterations_per_epoch": 50}
    assert doctor._whole_training(Step(8, False, 1, 0.5), facts) == 3 * 50 * 0.5
    assert doctor._whole_training(Step(2, False, 1, 0.5), facts) == 3 * 50 * 4 * 0.5


def test_without_checkpointing_one_way_is_tried():
    steps, proposed = search(machine(100, 900, 10, 300), 4, 300, (False,))
    assert proposed is None
    assert [step.checkpointing for step in steps] == [False]


def test_advice_follows_the_memory(capsys):
    found = options(24, ["mobile_sam", "dinov3_small"], [256])
    assert [option.image_size for option in found] == [256, 256]
    assert all(option.images > 8 for option in found)
    assert options(2, ["mobile_sam"], [256])[0].images < found[0].images
    text = advice(found, "RTX 4090", 24)
    assert "--vfm mobile_sam --image_size 256" in text
    assert "None fits" in advice(options(0.01, ["mobile_sam"], [256]), "a card", 0.01)
    assert card_memory("rtx4090", None) == ("rtx4090", 24)
    assert main(["doctor", "--teachers", "--card", "RTX 9"]) == 2
    assert "close names" in capsys.readouterr().err


def test_the_installation_is_described_without_paths(monkeypatch):
    text, sound = check_installation(compile_seconds=0, hub_seconds=0)
    assert sound
    assert re.search(r"^ok {7}\d+ CPU cores.*, threads: \d+$", text, re.MULTILINE)
    assert platform.node() not in text
    assert re.search(r"^ok {7}torch \d", text, re.MULTILINE)
    assert re.search(r"^(ok|note) +\d+ GiB free in the working folder$", text, re.MULTILINE)
    assert str(Path.home()) not in text
    monkeypatch.setitem(NEEDED, "a-package-that-is-not-there", "training")
    text, sound = check_installation(compile_seconds=0, hub_seconds=0)
    assert not sound
    assert "missing  a-package-that-is-not-there (training)" in text


@pytest.mark.parametrize(("text", "kept"), [
    ("OSError: /home/mia/env/lib/x.so: cannot open", "OSError: x.so: cannot open"),
    ("see 'C:\\Users\\mia\\cl.exe', or not", "see 'cl.exe', or not"),
    ("g++ not there: 3/4 of it", "g++ not there: 3/4 of it"),
])  # fmt: skip
def test_messages_lose_their_folders(text, kept):
    assert without_names(text) == kept


def test_the_hub_is_asked_as_its_library_asks_it(monkeypatch):
    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(401)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.handle_request, daemon=True).start()
        assert _hub(5.0) == "ok       the mirror in HF_ENDPOINT can be reached"
    assert _hub(5.0).startswith("note     the mirror in HF_ENDPOINT cannot be reached")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in _hub(5.0)
