"""Calibration of predicted probabilities: expected calibration error, Brier score, and entropy against error.

A case is read once, in pieces, so that the memory does not grow with its size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tskd.errors import TskdError

BINS = 15
REGIONS = ("all pixels", "foreground")  # foreground: where truth or prediction is not background
SCALES = ("confidence", "entropy")
_CHUNK = 1 << 18  # pixels


@dataclass(frozen=True)
class Calibration:
    """Sums over the pixels of a case, from which every measure of calibration follows.

    `bins[region, scale]` is [BINS, 3]: pixels, sum of the confidence (highest probability) or of the entropy (divided
    by log C, so in [0, 1]), and correct pixels, in bins of equal width of that scale. `squared_error` is the sum of the
    squared distances between probabilities and one-hot truth.
    """

    bins: dict[tuple[str, str], NDArray]
    squared_error: float

    @property
    def pixels(self) -> int:
        """Number of pixels with a label and a probability."""
        return int(self.bins["all pixels", "confidence"][:, 0].sum())


def calibration_sums(prob: NDArray, label: NDArray, ignore_index: int = 255) -> Calibration:
    """Return the sums of confidence, entropy and correctness over the pixels of a case.

    Pixels whose truth is `ignore_index` are left out, and so are those whose probabilities are all 0: the network did
    not see them (a crop that was undone).

    Args:
        prob: class probabilities, [C, ...], in [0, 1].
        label: true class indices, the shape of one channel of `prob`.
        ignore_index: index of pixels without a label.

    Raises:
        TskdError: shapes or class indices that do not fit, or probabilities that do not sum to 1.
    """
    bins = {(region, scale): np.zeros((BINS, 3)) for region in REGIONS for scale in SCALES}
    squared_error = 0.0
    for p, truth in _chunks(np.asarray(prob), np.asarray(label), ignore_index):
        predicted = p.argmax(axis=0)
        correct, foreground = predicted == truth, (predicted > 0) | (truth > 0)
        log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
        entropy = -(p * log_p).sum(axis=0) / np.log(max(p.shape[0], 2))
        for scale, values in zip(SCALES, (p.max(axis=0), entropy), strict=True):
            bins["all pixels", scale] += _bin_sums(values, correct)
            bins["foreground", scale] += _bin_sums(values[foreground], correct[foreground])
        true_class = np.take_along_axis(p, truth[None], axis=0)[0]
        squared_error += float((np.square(p).sum(axis=0) - 2 * true_class + 1).sum())
    return Calibration(bins, squared_error)


def calibration_error(bins: NDArray) -> float | None:
    """Return the expected calibration error from bins of confidence (Guo et al., arXiv 1706.04599).

    Args:
        bins: [bins, 3]: pixels, sum of the confidence, correct pixels.

    Returns:
        A value in [0, 1], 0 where confidence equals accuracy in every bin; None where there is no pixel.
    """
    pixels, total, correct = bins.T
    return float(np.abs(correct - total).sum() / pixels.sum()) if pixels.sum() else None


def error_detection_auroc(bins: NDArray) -> float | None:
    """Return the area under the ROC curve of entropy as a detector of wrong pixels, from the bins.

    Args:
        bins: [bins, 3]: pixels, sum of the entropy, correct pixels; ascending entropy.

    Returns:
        A value in [0, 1]: 1 where every error is less certain than every correct pixel, 0.5 where entropy says nothing;
        None where all pixels are correct, or all wrong.
    """
    correct, wrong = bins[:, 2], bins[:, 0] - bins[:, 2]
    pairs = correct.sum() * wrong.sum()
    correct_below = np.cumsum(correct) - correct
    return float((wrong * (correct_below + correct / 2)).sum() / pairs) if pairs else None


def expected_calibration_error(prob: NDArray, label: NDArray, ignore_index: int = 255) -> float | None:
    """Return the `calibration_error` over all labelled pixels of a case; arguments as `calibration_sums`."""
    return calibration_error(calibration_sums(prob, label, ignore_index).bins["all pixels", "confidence"])


def brier_score(prob: NDArray, label: NDArray, ignore_index: int = 255) -> float | None:
    """Return the Brier score: squared distance between probabilities and one-hot truth, summed over classes.

    Arguments as `calibration_sums`. The result is in [0, 2], 0 for certain and correct everywhere; None where no pixel
    counts.
    """
    case = calibration_sums(prob, label, ignore_index)
    return case.squared_error / case.pixels if case.pixels else None


def _bin_sums(values: NDArray, correct: NDArray) -> NDArray:
    """Return [BINS, 3]: pixels, sum of the values and number correct, in bins ]k/BINS, (k+1)/BINS] of the values."""
    index = np.clip(np.ceil(values * BINS).astype(int) - 1, 0, BINS - 1)
    sums = (np.bincount(index, weights=weights, minlength=BINS) for weights in (None, values, correct))
    return np.stack([np.asarray(column, dtype=float) for column in sums], axis=1)


def _chunks(prob: NDArray, label: NDArray, ignore_index: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield [C, N] and [N] of the pixels that count, a chunk of the case at a time, to bound the memory."""
    if prob.shape[1:] != label.shape:
        raise TskdError(f"expected probabilities [C, ...] over a label {label.shape}, found {prob.shape}.")
    flat, truth = prob.reshape(prob.shape[0], -1), label.reshape(-1)
    for start in range(0, truth.size, _CHUNK):
        t = truth[start : start + _CHUNK]
        p = flat[:, start : start + _CHUNK].astype(np.float64)
        counts = (t != ignore_index) & p.any(axis=0)
        p, t = p[:, counts], t[counts].astype(np.int64)
        if p.size and (p.min() < -1e-3 or np.abs(p.sum(axis=0) - 1).max() > 1e-2):
            raise TskdError(
                "expected probabilities that sum to 1 over the classes; apply softmax before scoring `prob`."
            )
        if t.size and t.max() >= prob.shape[0]:
            raise TskdError(f"expected class indices below {prob.shape[0]} (channels of `prob`), found {t.max()}.")
        yield p, t
