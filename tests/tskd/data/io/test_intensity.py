"""The scaling of intensities: in numpy, as a stock transform, and in dataset.json."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tskd.data import check, scale_intensity
from tskd.data.io.intensity import PERCENTILES, PRESETS, Intensity, preset
from tskd.errors import TskdError

CT = Intensity("window", -160, 240)


@given(st.lists(st.integers(-1000, 3000), min_size=2, max_size=50), st.floats(0.1, 10), st.floats(-500, 500))
def test_percentile_scaling_ignores_gain_and_offset(values, gain, offset):
    array = np.array(values, np.float64)
    scaled = PERCENTILES.scale(array)
    assert scaled.dtype == np.float32
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    np.testing.assert_allclose(PERCENTILES.scale(array * gain + offset), scaled, atol=1e-3)


def test_window():
    np.testing.assert_allclose(CT.scale(np.array([-1000, -160, 40, 240, 3000])), [0, 0, 0.5, 1, 1])


def test_an_empty_volume_is_black():
    for scaling in PRESETS.values():
        assert not scaling.scale(np.full((3, 3, 3), 7)).any()


@pytest.mark.parametrize("intensity", [PERCENTILES, Intensity("percentiles", 2, 98), CT, PRESETS["body"]])
def test_the_stock_transform_is_the_same(intensity, tmp_path):
    """What bundles do to a volume is what the preparer did to the slices of the others."""
    volume = np.random.default_rng(0).normal(0, 300, (9, 8, 7)).astype(np.float32)
    (tmp_path / "dataset.json").write_text(json.dumps(_dataset(intensity.to_json())))
    transform = scale_intensity(tmp_path / "dataset.json")
    assert type(transform).__name__ == intensity.transform()["_target_"]
    found = transform({"image": torch.from_numpy(volume)[None]})["image"][0]
    np.testing.assert_allclose(np.asarray(found), intensity.scale(volume), atol=1e-5)


def test_a_bright_lesion_does_not_make_the_organs_dark():
    """Two volumes of one body, one with a lesion of a hundredth of the voxels, four times as bright as all else."""
    noise = np.random.default_rng(0).uniform(0, 5, (20, 20, 20))
    body = noise.copy()
    body[4:16, 4:16, 4:16] += 100
    lesion = body.copy()
    lesion[4:9, 4:8, 4:8] = 500
    organ = (slice(10, 12), slice(10, 12), slice(10, 12))
    dark, alike = (
        np.median(scaling.scale(lesion)[organ]) / np.median(scaling.scale(body)[organ])
        for scaling in (PERCENTILES, PRESETS["body"])
    )
    assert dark < 0.3
    assert 0.95 < alike <= 1


def test_presets_go_by_name():
    assert preset("body") is PRESETS["body"]
    with pytest.raises(TskdError, match="expected one of percentiles, body, found 'zscore'"):
        preset("zscore")


def test_percentiles_where_nothing_is_said(tmp_path):
    assert Intensity.of(tmp_path / "no file.json") == PERCENTILES
    (tmp_path / "dataset.json").write_text(json.dumps(_dataset(None)))
    assert Intensity.of(tmp_path / "dataset.json") == PERCENTILES


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"window": [240, -160]}, r"expected window \[low, high\] in order, found \[240.0, -160.0\]"),
        ({"percentiles": [0.5, 101]}, r"expected percentiles \[low, high\] in order"),
        ({"zscore": [0, 1]}, "expected one of percentiles, window, body, found 'zscore'"),
        ({"window": 240}, r"expected one of percentiles, window, body with its \[low, high\]"),
        ("CT", r"expected one of percentiles, window, body with its \[low, high\]"),
    ],
)
def test_anything_else_is_refused(value, message, tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(_dataset(value)))
    for read in (Intensity.of, check):
        with pytest.raises(TskdError, match=message):
            read(path)


def _dataset(intensity):
    data = {"name": "toy", "modality": "CT", "channels": 1, "labels": {"0": "background", "1": "liver"}}
    lists: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    return {**data, **lists, **({} if intensity is None else {"intensity": intensity})}
