"""How far predicted probabilities can be trusted: calibration error, Brier score, and entropy against error.

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
_PIECE = 1 << 18  # pixels


@dataclass(frozen=True)
class Calibration:
    """Sums over the pixels of a case, from which every measure of calibration follows.

    `bins[region, scale]` is [BINS, 3]: pixels, sum of the confidence (highest probability) or of the entropy (divided
    by log C, so in [0, 1]), and pixels that are right, in bins of equal width of that scale. `squares` is the sum of
    the squared distances between probabilities and one-hot truth.
    """

    bins: dict[tuple[str, str], NDArray]
    squares: float

    @property
    def pixels(self) -> int:
        """Number of pixels with a label and a probability."""
        return int(self.bins["all pixels", "confidence"][:, 0].sum())


def calibrate(prob: NDArray, label: NDArray, ignore_index: int = 255) -> Calibration:
    """Tally confidence, entropy and correctness of a case.

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
    squares = 0.0
    for p, truth in _pieces(np.asarray(prob), np.asarray(label), ignore_index):
        guess = p.argmax(axis=0)
        right, foreground = guess == truth, (guess > 0) | (truth > 0)
        logarithm = np.log(p, out=np.zeros_like(p), where=p > 0)
        entropy = -(p * logarithm).sum(axis=0) / np.log(max(p.shape[0], 2))
        for scale, values in zip(SCALES, (p.max(axis=0), entropy), strict=True):
            bins["all pixels", scale] += _tally(values, right)
            bins["foreground", scale] += _tally(values[foreground], right[foreground])
        true_class = np.take_along_axis(p, truth[None], axis=0)[0]
        squares += float((np.square(p).sum(axis=0) - 2 * true_class + 1).sum())
    return Calibration(bins, squares)


def calibration_error(bins: NDArray) -> float | None:
    """Mean gap between confidence and accuracy over bins of confidence (Guo et al., arXiv 1706.04599).

    Args:
        bins: [bins, 3]: pixels, sum of the confidence, pixels that are right.

    Returns:
        A value in [0, 1], 0 where confidence equals accuracy in every bin; None where there is no pixel.
    """
    pixels, total, right = bins.T
    return float(np.abs(right - total).sum() / pixels.sum()) if pixels.sum() else None


def error_detection(bins: NDArray) -> float | None:
    """Chance that a wrong pixel has a higher entropy than a right one: the area under the ROC curve, from the bins.

    Args:
        bins: [bins, 3]: pixels, sum of the entropy, pixels that are right; ascending entropy.

    Returns:
        A value in [0, 1]: 1 where every error is less certain than every right pixel, 0.5 where entropy says nothing;
        None where all pixels are right, or all wrong.
    """
    right, wrong = bins[:, 2], bins[:, 0] - bins[:, 2]
    pairs = right.sum() * wrong.sum()
    below = np.cumsum(right) - right
    return float((wrong * (below + right / 2)).sum() / pairs) if pairs else None


def expected_calibration_error(prob: NDArray, label: NDArray, ignore_index: int = 255) -> float | None:
    """`calibration_error` over all labelled pixels of a case; arguments as `calibrate`."""
    return calibration_error(calibrate(prob, label, ignore_index).bins["all pixels", "confidence"])


def brier_score(prob: NDArray, label: NDArray, ignore_index: int = 255) -> float | None:
    """Mean squared distance between the probabilities and the one-hot truth, summed over classes.

    Arguments as `calibrate`. The result is in [0, 2], 0 for certain and right everywhere; None where no pixel counts.
    """
    case = calibrate(prob, label, ignore_index)
    return case.squares / case.pixels if case.pixels else None


def _tally(values: NDArray, right: NDArray) -> NDArray:
    """[BINS, 3]: pixels, sum of the values and number right, in bins ]k/BINS, (k+1)/BINS] of the values."""
    index = np.clip(np.ceil(values * BINS).astype(int) - 1, 0, BINS - 1)
    sums = (np.bincount(index, weights=weights, minlength=BINS) for weights in (None, values, right))
    return np.stack([np.asarray(column, dtype=float) for column in sums], axis=1)


def _pieces(prob: NDArray, label: NDArray, ignore_index: int) -> Iterator[tuple[NDArray, NDArray]]:
    """[C, N] and [N] of the pixels that count, a piece of the case at a time."""
    if prob.shape[1:] != label.shape:
        raise TskdError(f"expected probabilities [C, ...] over a label {label.shape}, found {prob.shape}.")
    flat, truth = prob.reshape(prob.shape[0], -1), label.reshape(-1)
    for start in range(0, truth.size, _PIECE):
        t = truth[start : start + _PIECE]
        p = flat[:, start : start + _PIECE].astype(np.float64)
        counts = (t != ignore_index) & p.any(axis=0)
        p, t = p[:, counts], t[counts].astype(np.int64)
        if p.size and (p.min() < -1e-3 or np.abs(p.sum(axis=0) - 1).max() > 1e-2):
            raise TskdError(
                "expected probabilities that sum to 1 over the classes; apply softmax before scoring `prob`."
            )
        if t.size and t.max() >= prob.shape[0]:
            raise TskdError(f"expected class indices below {prob.shape[0]} (channels of `prob`), found {t.max()}.")
        yield p, t
