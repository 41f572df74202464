"""A synthetic dataset: the same images however the work is cut, and never two models in one folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from monai.transforms import LoadImage
from PIL import Image

from tskd.data.checks import check
from tskd.data.datalist import read
from tskd.errors import TskdError
from tskd.synthesis import SyntheticFolder
from tskd.synthesis.contact_sheet import contact_sheet, read_image, to_pixels, write_image
from tskd.synthesis.folder import publish

SCHEDULER = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


@pytest.fixture
def run(make_network, fill, tmp_path):
    def run(folder="a", num_images=5, amp_dtype=None, schedule=SCHEDULER, **options):
        return fill(tmp_path / folder, make_network(amp_dtype=amp_dtype), schedule, num_images, **options).path

    return run


def pngs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "images").iterdir())}


def test_batch_size_and_ranks_do_not_change_a_byte(run):
    whole = pngs(run("a"))
    assert list(whole) == [f"{k:06d}.png" for k in range(5)]
    assert pngs(run("b", batch_size=2)) == whole
    for rank, made in ((1, 2), (0, 5)):
        shared = run("c", batch_size=3, rank=rank, world_size=2)
        assert len(pngs(shared)) == made
    assert pngs(shared) == whole


def test_a_stopped_run_continues_and_leaves_finished_images_alone(run):
    whole = pngs(run("a"))
    folder = run("b", num_images=2)
    write_image(folder / "images" / "000000.png", torch.zeros(1, 16, 16))
    marked = pngs(folder)["000000.png"]
    run("b")
    assert pngs(folder) == {**whole, "000000.png": marked}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "other"}, "model: the folder has 'weights', this run 'other'"),
        ({"sampler": "ddim"}, r"sampler: the folder has 'dpmsolver\+\+', this run 'ddim'"),
        ({"seed": 1}, "seed: the folder has 0, this run 1"),
        ({"steps": 3}, "steps: the folder has 2, this run 3"),
        ({"schedule": DDPMScheduler(1000)}, "schedule: the folder has"),
        ({"amp_dtype": "bfloat16"}, "amp_dtype: the folder has None, this run 'bfloat16'"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_with_both_values(run, change, message):
    before = pngs(run("a"))
    with pytest.raises(TskdError, match=message):
        run("a", **change)
    assert pngs(run("a")) == before


def test_the_list_says_what_the_images_are(run, cohort):
    folder = run("a")
    publish(folder, cohort, [0, 1, 2, 4], {"threshold": 0.7}, ["f" * 64])
    check(folder / "dataset.json", labelled=False)
    data = read(folder / "dataset.json")
    assert [entry["group"] for entry in data["unlabelled"]] == ["synthetic"] * 4
    assert [entry["index"] for entry in data["unlabelled"]] == [0, 1, 2, 4]
    assert data["labels"] == read(cohort)["labels"]
    expected = {"model": "weights", "sampler": "dpmsolver++", "steps": 2, "seed": 0, "trained_on": ["f" * 64]}
    assert {**expected, "memorisation": {"threshold": 0.7}}.items() <= data["provenance"].items()
    assert Image.open(folder / "contact_sheet.png").size == (18 * 4, 18)


def test_new_images_take_an_older_list_away(run, cohort):
    folder = run("a")
    publish(folder, cohort, range(5), {})
    assert {"dataset.json", "contact_sheet.png"} < {path.name for path in folder.iterdir()}
    (folder / "memorisation.json").write_text("{}")
    run("a", num_images=6)
    assert sorted(path.name for path in folder.iterdir()) == [".lock.0", "images", "sampling.json"]


def test_a_process_leaves_the_draft_of_another_alone(run, cohort):
    folder = run("a", num_images=2)
    (folder / ".dataset.json.draft").write_text("half a li")  # of a process that is writing the same list
    publish(folder, cohort, range(2), {})
    assert (folder / ".dataset.json.draft").read_text() == "half a li"
    assert len(read(folder / "dataset.json")["unlabelled"]) == 2


def test_one_process_gates_and_a_dead_one_holds_nobody_up(tmp_path):
    folders = [SyntheticFolder(tmp_path, 2, {}, rank, 2) for rank in range(2)]
    runs = []

    def gate(name):
        def gate():
            assert not folders[1 - name].judge(lambda: runs.append("at the same time"))
            (tmp_path / "dataset.json").write_text("{}")
            runs.append(name)

        return gate

    folders[0].write([0], torch.rand(1, 1, 4, 4))
    assert not folders[0].judge(gate(0))  # the other one still has an image to make
    folders[1].write([1], torch.rand(1, 1, 4, 4))
    with pytest.raises(ZeroDivisionError):
        folders[1].judge(lambda: 1 / 0)
    assert folders[1].judge(gate(1))
    assert not folders[0].judge(gate(0))  # done by the other
    assert runs == [1]
    holder = "import fcntl, os, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); os.abort()"
    subprocess.run([sys.executable, "-c", holder, str(tmp_path / ".gate.lock")], capture_output=True)
    os.utime(tmp_path / "dataset.json", (2**32, 2**32))  # of a file server whose clock is ahead
    assert SyntheticFolder(tmp_path, 2, {}).judge(lambda: None)


def test_a_rank_outside_the_world_is_refused(tmp_path):
    with pytest.raises(TskdError, match="0 to 1"):
        SyntheticFolder(tmp_path, 4, {}, rank=2, world_size=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_comes_back_x_first_through_monais_reader(tmp_path, channels):
    image = torch.rand(channels, 6, 4)
    write_image(tmp_path / "image.png", image)
    read_back = LoadImage(reader="PILReader", image_only=True, ensure_channel_first=True)(tmp_path / "image.png")
    assert read_back.shape == image.shape
    np.testing.assert_array_equal(np.asarray(read_back), np.round(image.numpy() * 255))
    torch.testing.assert_close(read_image(tmp_path / "image.png"), image, atol=0.5 / 255 + 1e-6, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_contact_sheet_holds_the_tiles_in_order():
    images = [torch.full((1, 4, 3), k / 10) for k in range(5)]
    sheet = np.asarray(contact_sheet(images, columns=2))
    assert sheet.shape == (3 * 5, 2 * 6)
    for k, image in enumerate(images):
        row, column = k // 2 * 5, k % 2 * 6
        np.testing.assert_array_equal(sheet[row : row + 3, column : column + 4], to_pixels(image))


def test_settings_are_on_disk_before_the_first_image(tmp_path):
    SyntheticFolder(tmp_path / "new", 4, {"model": "m", "seed": 3})
    assert json.loads((tmp_path / "new" / "sampling.json").read_text()) == {"model": "m", "seed": 3}
