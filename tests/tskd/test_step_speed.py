"""The fastest way to train is the one that takes least; what was measured is kept, and read again."""

import itertools
import json
import re
from collections.abc import Callable

import pytest
import torch

from tskd.errors import TskdError
from tskd.machine_file import NAME, Measured, Way, processor_name, read_measured, write_measured
from tskd.networks import on_device
from tskd.step_speed import ROUNDS, _take_turns, measure_speed, speed_table
from tskd.workflow.commands import BUNDLES, STUDENT

DEFAULT = Way("float32", 8, "channels_last")


def machine(**shares: float) -> Measured:
    """A CPU on which a setting takes its share of the default's 50 ms an image."""
    ways = itertools.product(("float32", "bfloat16"), (4, 8, 16), ("channels_last", "contiguous_format"))
    times = {}
    for way in ways:
        times[Way(*way)] = 50.0
        for value in way:
            times[Way(*way)] *= shares.get(str(value) if isinstance(value, str) else f"batch_{value}", 1.0)
    return Measured("cpu", "a processor", 1, torch.__version__, "lite_unet", 128, times, processor_name())


def test_settings_are_chosen_one_after_the_other():
    assert machine().faster() == {}
    measured = machine(bfloat16=0.6, batch_16=0.9, batch_4=1.4, contiguous_format=1.2)
    faster = measured.faster()
    assert list(faster) == ["amp_dtype", "batch_size"]  # the layout is the fastest already
    assert faster["amp_dtype"] == ("bfloat16", pytest.approx(0.6))
    assert faster["batch_size"] == (16, pytest.approx(0.9))
    assert machine(contiguous_format=0.8).faster() == {"memory_format": ("contiguous_format", pytest.approx(0.8))}
    assert machine(bfloat16=0.97).faster() == {}  # not clearly
    text = speed_table(measured)
    assert "Fastest: bfloat16, batch 16, channels_last, 0.54 of the default's time." in text
    assert re.search(r"bfloat16 +16 +channels_last(.|\n)*float32 +8 +channels_last .*default$", text, re.MULTILINE)
    assert "Fastest: the default (float32, batch 8, channels_last)" in speed_table(machine())


def test_on_a_gpu_the_default_is_bfloat16():
    measured = machine(bfloat16=0.5)._replace(device="cuda")
    assert measured.default == Way("bfloat16", 8, "channels_last")
    assert measured.faster() == {}


def test_ways_take_turns_and_the_median_of_the_rounds_counts():
    now, order = [0.0], []
    costs = {"a": itertools.cycle([1.0, 1.0, 1.0, 50.0]), "b": itertools.cycle([2.0])}  # a is disturbed in one round

    def step(name: str) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            now[0] += next(costs[name])

        return run

    ways = {DEFAULT: step("a"), DEFAULT._replace(batch_size=16): step("b")}
    times = _take_turns(ways, 0.1, lambda: now[0])
    assert order == ["a", "b"] * (1 + ROUNDS)
    assert [*times.values()] == [1.0, 2.0]


def test_what_was_measured_is_read_again_until_torch_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("TSKD_CACHE", str(tmp_path))
    assert read_measured() is None
    measured = machine(bfloat16=0.6)
    write_measured(measured)
    assert read_measured() == measured
    write_measured(measured._replace(torch="0.4.1"))
    assert read_measured() is None
    write_measured(measured._replace(processor="another one, 64 cores"))  # a home folder that machines share
    assert read_measured() is None
    (tmp_path / NAME).write_text(json.dumps({"device": "cpu"}))
    assert read_measured() is None


def test_the_bundles_student_is_measured():
    ways = (DEFAULT, DEFAULT._replace(amp_dtype="bfloat16", memory_format="contiguous_format"))
    measured = measure_speed(BUNDLES / STUDENT, 32, "cpu", 0.0, ways=ways)
    assert measured.threads == torch.get_num_threads()
    assert all(0 < value < 2000 for value in measured.milliseconds.values())
    assert "lite_unet at 32 px" in speed_table(measured)
    if not torch.cuda.is_available():
        with pytest.raises(TskdError, match="found cuda and no CUDA device"):
            measure_speed(BUNDLES / STUDENT, 32, "cuda")
    with pytest.raises(TskdError, match="Pass --bundles"):
        measure_speed(BUNDLES / "nowhere", 32, "cpu")


def test_the_layout_changes_no_result():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 2, 1)).eval()
    image = torch.rand(2, 3, 9, 9)
    expected = network(image)
    laid_out = on_device(network, "cpu")
    assert laid_out[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(laid_out(image), expected)
    assert on_device(network, "cpu", "contiguous_format")[0].weight.is_contiguous()
    with pytest.raises(TskdError, match="expected channels_last or contiguous_format, found 'nchw'"):
        on_device(network, "cpu", "nchw")
