"""Soft labels are what the teacher says, written once per case, and refused where anything has changed."""

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, ScaleIntensityRanged
from PIL import Image
from safetensors.torch import load_file

from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.distillation import AverageSoftLabelsd, add_soft_labels, soft_labels_identity
from tskd.errors import TskdError
from tskd.files import sha256


def change(image: str) -> None:
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(image)


@torch.no_grad()
def test_stored_equals_recomputed(write, teacher, entries, tmp_path):
    assert write() == 5
    for entry in entries:
        stored = load_file(tmp_path / "soft" / f"{entry['case']}.safetensors")
        pixels = torch.from_numpy(np.asarray(Image.open(entry["image"])).T / 255).float()  # x first
        expected = teacher.forward_features(pixels[None, None])
        torch.testing.assert_close(stored["logits"], expected["logits_low"][0].half(), atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(stored["embedding"], expected["embedding"][0].half(), atol=2e-3, rtol=2e-3)
        assert stored["logits"].shape == (3, 24, 16)
        assert stored["embedding"].shape == (256, 6, 4)


def test_finer_logits_are_averaged_to_the_grid(write, entries, tmp_path):
    write()
    write(output_dir=tmp_path / "coarse", grid=12)
    write(output_dir=tmp_path / "enough", grid=24)
    for entry in entries:
        name = f"{entry['case']}.safetensors"
        whole, coarse = load_file(tmp_path / "soft" / name), load_file(tmp_path / "coarse" / name)
        expected = torch.nn.functional.adaptive_avg_pool2d(whole["logits"].float(), (12, 12))
        torch.testing.assert_close(coarse["logits"].float(), expected, atol=4e-3, rtol=4e-3)
        assert coarse["embedding"].equal(whole["embedding"])
        assert load_file(tmp_path / "enough" / name)["logits"].equal(whole["logits"])
    with pytest.raises(TskdError, match=r"grid: expected 24, found 12"):
        write(output_dir=tmp_path / "coarse", grid=24)
    add_soft_labels(entries, [tmp_path / "soft", tmp_path / "enough"])
    with pytest.raises(TskdError, match=r"grid: expected \[24, 16\], found \[12, 12\]"):
        add_soft_labels(entries, [tmp_path / "soft", tmp_path / "coarse"])


def test_batch_size_does_not_matter(write, tmp_path):
    write()
    write(batch_size=5, output_dir=tmp_path / "other")
    for path in (tmp_path / "soft").glob("*.safetensors"):
        torch.testing.assert_close(load_file(path), load_file(tmp_path / "other" / path.name), atol=4e-3, rtol=4e-3)


def test_embedding_is_left_out_on_request(write, entries, tmp_path):
    write(embedding=False)
    assert list(load_file(tmp_path / "soft" / "case_0.safetensors")) == ["logits"]
    entry = add_soft_labels(entries, tmp_path / "soft")[0]
    assert list(AverageSoftLabelsd(embedding=False)(entry)) == ["image", "group", "case", "logits"]
    with pytest.raises(TskdError, match=r"case_0.safetensors: expected 'embedding', found \['logits'\]"):
        AverageSoftLabelsd()(entry)


def test_logits_are_left_out_on_request(write, entries, tmp_path):
    """As for a foundation model that was not tuned: its logits mean nothing."""
    write(logits=False)
    read = add_soft_labels(entries, tmp_path / "soft")
    assert sorted(load_file(read[0]["soft_labels"])) == ["embedding"]
    assert "logits" not in AverageSoftLabelsd(logits=False)(read[0])
    with pytest.raises(TskdError, match=r"expected 'logits', found .*--logits True"):
        AverageSoftLabelsd()(read[0])
    with pytest.raises(TskdError, match="logits: expected True, found False"):
        write()
    with pytest.raises(TskdError, match="nothing to write"):
        write(logits=False, embedding=False)


def test_reading_gives_what_was_written(write, entries, weights, tmp_path):
    write()
    found = add_soft_labels(entries, tmp_path / "soft", teacher=weights, preprocessing={"in_channels": 1})
    assert [{key: entry[key] for key in entries[0]} for entry in found] == entries
    loaded = AverageSoftLabelsd()(found[3])
    stored = load_file(tmp_path / "soft" / "case_3.safetensors")
    assert torch.equal(loaded["logits"], stored["logits"])
    assert torch.equal(loaded["embedding"], stored["embedding"])
    assert "soft_labels" not in loaded
    assert "soft_labels" in found[3]  # the datalist's entry itself is left alone


def test_folders_of_one_teacher_have_one_image_size(write, entries, tmp_path):
    write(description={"image_size": 32})
    write(description={"image_size": 64}, output_dir=tmp_path / "larger")
    with pytest.raises(TskdError, match=r"larger/manifest.json does not match; image_size: expected 32, found 64"):
        add_soft_labels(entries, [tmp_path / "soft", tmp_path / "larger"])


# ------------------------------------------------------------------------------------------------- resuming


def test_a_second_run_has_nothing_to_do(write, tmp_path):
    write()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "soft").glob("*.safetensors")}
    assert write() == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "soft").glob("*.safetensors")}


def test_a_killed_run_continues(write, entries, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(limit=3)  # the second batch is not finished
    assert not (tmp_path / "soft" / "manifest.json").exists()
    assert set(json.loads((tmp_path / "soft" / "manifest.0.json").read_text())["cases"]) == {"case_0", "case_1"}
    assert write() == 3
    write(output_dir=tmp_path / "whole")
    for path in (tmp_path / "whole").glob("*.safetensors"):
        torch.testing.assert_close(load_file(tmp_path / "soft" / path.name), load_file(path), atol=4e-3, rtol=4e-3)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("soft", "whole")]
    assert manifests[0] == manifests[1]


def lose_entry(folder: Path, entries: list[dict[str, str]]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["cases"]["case_2"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def lose_file(folder: Path, entries: list[dict[str, str]]) -> None:
    (folder / "case_2.safetensors").unlink()


def change_image(folder: Path, entries: list[dict[str, str]]) -> None:
    change(entries[2]["image"])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lose_entry, "case_2: no soft labels"),
        (lose_file, "case_2: .*case_2.safetensors is gone"),
        (change_image, "case_2: .*image_2.png has changed since its soft labels were written"),
    ],
)
def test_what_is_lost_or_changed_is_refused_and_only_that_is_written_again(harm, message, write, entries, tmp_path):
    write()
    harm(tmp_path / "soft", entries)
    with pytest.raises(TskdError, match=message) as caught:
        add_soft_labels(entries, tmp_path / "soft")
    assert "case_1" not in str(caught.value)
    assert write() == 1
    assert len(add_soft_labels(entries, tmp_path / "soft")) == 5


def test_all_missing_cases_are_counted(write, entries, tmp_path):
    write(entries=entries[:1])
    more = entries + [{**entries[1], "case": f"other_{number}"} for number in range(3)]
    with pytest.raises(TskdError, match=r"case_1: no soft labels; .*case_4: no soft labels; .* and 2 more"):
        add_soft_labels(more, tmp_path / "soft")


def test_no_partial_files_are_left(write, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file above 1000 bytes, as on a full disk
        with pytest.raises(TskdError, match=r"case_0.safetensors: cannot write the soft labels"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "soft").iterdir()) == []
    assert write() == 5


def test_damaged_file(write, entries, tmp_path):
    write()
    path = tmp_path / "soft" / "case_0.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TskdError, match=r"case_0.safetensors: cannot read the soft labels"):
        AverageSoftLabelsd()(add_soft_labels(entries, tmp_path / "soft")[0])


# ---------------------------------------------------------------------------------- the same teacher and images


def test_soft_labels_on_another_grid_are_others(write, tmp_path):
    """A distillation that was stopped does not go on with them."""
    identities = []
    for grid in (None, 8, 4):
        write(grid=grid, output_dir=tmp_path / f"soft_{grid}")
        identities.append(soft_labels_identity(tmp_path / f"soft_{grid}"))
    assert len(set(identities)) == 3


def test_another_teacher_is_refused_with_both_hashes(write, entries, weights, tmp_path):
    write()
    stored = soft_labels_identity(tmp_path / "soft")
    other = tmp_path / "other.pt"
    other.write_bytes(b"other weights")
    write(teacher=other, output_dir=tmp_path / "other")
    own = soft_labels_identity(tmp_path / "other")
    assert stored != own
    both = ",".join(sorted([stored, own]))
    stored, own = sha256(weights), sha256(other)
    for attempt in (
        lambda: add_soft_labels(entries, tmp_path / "soft", teacher=other),
        lambda: add_soft_labels(entries, [tmp_path / "other", tmp_path / "soft"]),
        lambda: write(teacher=other),
    ):
        with pytest.raises(TskdError, match=f"teacher: expected {own}, found {stored}"):
            attempt()
    assert soft_labels_identity([tmp_path / "soft", tmp_path / "other"]) == both


def test_the_identity_tells_how_the_images_were_put_to_the_teacher(write, description, tmp_path):
    changes: list[dict[str, Any]] = [
        {}, {"description": {**description, "intensity": "other"}}, {"dtype": "bfloat16"},
    ]  # fmt: skip
    found = []
    for number, change in enumerate(changes):
        write(output_dir=tmp_path / str(number), **change)
        found.append(soft_labels_identity(tmp_path / str(number)))
    write(output_dir=tmp_path / "again", embedding=False)  # says the same about the image, only less
    assert len(set(found)) == 3
    assert soft_labels_identity(tmp_path / "again") == found[0]


def test_another_preprocessing_is_refused_with_both_values(write, entries, description, tmp_path):
    write()
    with pytest.raises(TskdError, match="in_channels: expected 3, found 1"):
        add_soft_labels(entries, tmp_path / "soft", preprocessing={"in_channels": 3})
    with pytest.raises(TskdError, match=r"expected \{'image_size': 96, .*found \{'image_size': 64"):
        write(description={**description, "image_size": 96})
    with pytest.raises(TskdError, match="embedding: expected False, found True"):
        write(embedding=False)
    with pytest.raises(TskdError, match="autocast: expected bfloat16, found None"):
        write(dtype="bfloat16")
    with pytest.raises(TskdError, match="amp_dtype: expected bfloat16, float32 or None, found 'float16'"):
        write(dtype="float16")
    first, second, _, last = PREPROCESSING.transforms
    brighter = Compose([first, second, ScaleIntensityRanged("image", 0, 200, 0, 1), last])
    with pytest.raises(TskdError, match=r"transforms: expected [0-9a-f]{64}, found [0-9a-f]{64}"):
        write(preprocessing=brighter)


def test_folders_are_joined_and_equal_case_names_told_apart_by_the_image(write, entries, tmp_path):
    """Two cohorts may number their cases alike."""
    other = [{**entries[4], "case": "case_0"}]
    write(entries=entries[:2])
    write(entries=other, output_dir=tmp_path / "second")
    found = add_soft_labels(entries[:2] + other, [tmp_path / "soft", tmp_path / "second"])
    assert [Path(entry["soft_labels"]).parent.name for entry in found] == ["soft", "soft", "second"]


def test_case_names_must_be_unique(write, entries):
    with pytest.raises(TskdError, match=r"unique case names, found more than once: \['case_0'\]"):
        write(entries=[entries[0], entries[0]])


def test_no_folder_and_no_manifest(entries, tmp_path):
    with pytest.raises(TskdError, match="at least one folder"):
        add_soft_labels(entries, [])
    with pytest.raises(TskdError, match=r"manifest.json: expected the soft labels' manifest, found none"):
        add_soft_labels(entries, tmp_path / "nowhere")


def test_manifest_tells_shapes_and_preprocessing_but_no_folders(write, description, tmp_path):
    write()
    manifest = json.loads((tmp_path / "soft" / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("preprocessing", "embedding", "dtype")} == {
        "preprocessing": description, "embedding": True, "dtype": "float16",
    }  # fmt: skip
    assert manifest["cases"]["case_0"]["shapes"] == {"logits": [3, 24, 16], "embedding": [256, 6, 4]}
    assert str(tmp_path) not in json.dumps(manifest)
