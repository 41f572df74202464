"""The comparison finds altered copies, agrees with the textbook formula, and keeps patients apart."""

import numpy as np
import pytest
import torch

from tskd.data.datalist import entries
from tskd.synthesis import load_images
from tskd.synthesis.memorisation.correlation import (
    max_cosine_similarity,
    max_cross_correlation,
    nearest_other_patient,
    pixel_descriptor,
    structureless,
)


@pytest.fixture(scope="module")
def real(cohort):
    images, _, groups = load_images(entries(cohort, "transfer"), 64)
    return images, groups


def noised(images):
    return (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


ALTERATIONS = {
    "identical": lambda images: images,
    "flipped in x": lambda images: images.flip(2),
    "flipped in y": lambda images: images.flip(3),
    "turned by 180 degrees": lambda images: images.flip(2, 3),
    "brighter": lambda images: images * 0.7 + 0.2,
    "gamma": lambda images: images**0.7,
    "noised": noised,
    "shifted": lambda images: images.roll(3, 2),
    "shifted, flipped, darker and noised": lambda images: noised(images.roll((-3, 2), (2, 3)).flip(2) * 0.8),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_copies_find_their_original_and_exceed_every_other_patient(real, name):
    images, groups = real
    pixels = pixel_descriptor(images)
    threshold = nearest_other_patient(pixels, pixels, groups, groups, 1.1)[0].max()
    chosen = torch.arange(0, len(images), 5)
    similarity, twin = max_cross_correlation(pixel_descriptor(ALTERATIONS[name](images[chosen])), pixels)
    assert torch.equal(twin, chosen)
    assert similarity.min() > threshold


def test_equals_the_textbook_correlation():
    rng = np.random.default_rng(0)
    query, reference = rng.normal(size=(2, 10, 10)).astype(np.float32)
    best = -1.0
    for flip in (reference, reference[::-1], reference[:, ::-1], reference[::-1, ::-1]):
        for dx in range(5):
            for dy in range(5):
                window = flip[dx : dx + 6, dy : dy + 6]
                best = max(best, np.corrcoef(query[2:8, 2:8].ravel(), window.ravel())[0, 1])
    similarity, _ = max_cross_correlation(torch.from_numpy(query)[None], torch.from_numpy(reference)[None], max_shift=2)
    assert similarity.item() == pytest.approx(best, abs=1e-5)


def test_the_same_patient_is_left_out(real):
    pixels, groups = pixel_descriptor(real[0]), real[1]
    alone, _ = max_cross_correlation(pixels, pixels)
    others, twin, repeated = nearest_other_patient(pixels, pixels, groups, groups, 0.98)
    torch.testing.assert_close(alone, torch.ones_like(alone))
    assert others.max() < 0.9
    assert all(groups[k] != groups[int(t)] for k, t in enumerate(twin))
    assert not repeated.any()


def test_one_picture_of_two_patients_is_no_measure_of_how_alike_patients_are(real):
    images, groups = real
    pixels, groups = pixel_descriptor(torch.cat([images, images[:1].flip(2)])), [*groups, "another patient"]
    others, _, repeated = nearest_other_patient(pixels, pixels, groups, groups, 0.98)
    assert others.max() < 0.9
    assert repeated.nonzero().tolist() == [[0, len(images)], [len(images), 0]]


def test_an_empty_image_is_like_nothing(real):
    empty = pixel_descriptor(torch.full((1, 1, 64, 64), 0.3))
    similarity, _ = max_cross_correlation(empty, pixel_descriptor(real[0]))
    assert similarity.item() == 0
    assert structureless(empty).tolist() == [True]
    assert not structureless(pixel_descriptor(real[0])).any()


def test_colour_and_size_are_brought_together(real):
    large = torch.nn.functional.interpolate(real[0][:3], (128, 128), mode="bicubic").expand(-1, 3, -1, -1)
    similarity, twin = max_cross_correlation(pixel_descriptor(large), pixel_descriptor(real[0]))
    assert twin.tolist() == [0, 1, 2]
    assert similarity.min() > 0.97


def test_features_are_compared_by_their_cosine_and_apart_by_patient():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])  # mean 0
    best, twin = max_cosine_similarity(torch.tensor([[2.0, 0.0]]), vectors)
    assert (best.item(), twin.item()) == (1.0, 0)
    best, twin = max_cosine_similarity(torch.tensor([[2.0, 0.0]]), vectors, torch.tensor([[True, False, False]]))
    assert (best.item(), twin.item()) == (0.0, 1)
