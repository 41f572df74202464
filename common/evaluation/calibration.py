"""How far predicted probabilities can be trusted: expected calibration error and Brier score."""

import numpy as np
from numpy.typing import NDArray

from common.errors import TskdError


def expected_calibration_error(prob: NDArray, label: NDArray, bins: int = 15, ignore_index: int = 255) -> float | None:
    """Mean gap between confidence and accuracy over equal-width bins of confidence (Guo et al., arXiv 1706.04599).

    Args:
        prob: class probabilities, [C, ...], in [0, 1].
        label: true class indices, the shape of one channel of `prob`.
        bins: number of bins of the highest probability.
        ignore_index: pixels with this truth are left out.

    Returns:
        A value in [0, 1], 0 where confidence equals accuracy in every bin; None where no pixel has a label.
    """
    prob, label = _known_pixels(prob, label, ignore_index)
    if not label.size:
        return None
    confidence, right = prob.max(axis=0), prob.argmax(axis=0) == label
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # the sum over bins of (pixels in bin / pixels) * |accuracy - confidence| in one pass
    gap = np.bincount(index, weights=right.astype(float) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / label.size)


def brier_score(prob: NDArray, label: NDArray, ignore_index: int = 255) -> float | None:
    """Mean squared distance between the probabilities and the one-hot truth, summed over classes.

    Args:
        prob: class probabilities, [C, ...], in [0, 1].
        label: true class indices, the shape of one channel of `prob`.
        ignore_index: pixels with this truth are left out.

    Returns:
        A value in [0, 2], 0 for certain and right everywhere; None where no pixel has a label.
    """
    prob, label = _known_pixels(prob, label, ignore_index)
    if not label.size:
        return None
    true_class = np.take_along_axis(prob, label[None], axis=0)[0]
    return float((np.square(prob).sum(axis=0) - 2 * true_class + 1).mean())


def _known_pixels(prob: NDArray, label: NDArray, ignore_index: int) -> tuple[NDArray, NDArray]:
    """Flatten to [C, N] and [N], without the ignored pixels."""
    prob, label = np.asarray(prob, dtype=np.float64), np.asarray(label)
    if prob.shape[1:] != label.shape:
        raise TskdError(f"expected probabilities [C, ...] over a label {label.shape}, found {prob.shape}.")
    known = label != ignore_index
    prob, label = prob[:, known], label[known].astype(np.int64)
    if prob.size and (prob.min() < -1e-3 or np.abs(prob.sum(axis=0) - 1).max() > 1e-2):
        raise TskdError("expected probabilities that sum to 1 over the classes; apply softmax before scoring `prob`.")
    if label.size and label.max() >= prob.shape[0]:
        raise TskdError(f"expected class indices below {prob.shape[0]} (channels of `prob`), found {label.max()}.")
    return prob, label
