"""Write the memorisation gate's result as a table and as pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from tskd.synthesis.contact_sheet import contact_sheet
from tskd.synthesis.image_loading import load_images, picture_size
from tskd.synthesis.memorisation.similarity import Limits, Verdict

COLUMNS = ("synthetic", "training_case", "similarity", "threshold", "flagged", "reason")
FEATURE_COLUMNS = ("feature_twin", "feature_similarity", "feature_threshold")


def table(numbers: Sequence[int], cases: Sequence[str], verdict: Verdict, limits: Limits) -> str:
    """Return memorisation.csv: one line an image.

    Args:
        numbers: of the synthetic images.
        cases: names of all training images; each line has those that the image is most like.
        verdict: on the synthetic images.
        limits: thresholds.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(() if verdict.cosine is None else FEATURE_COLUMNS)])
    for row, number in enumerate(numbers):
        twin, similarity = cases[int(verdict.twin[row])], f"{float(verdict.similarity[row]):.4f}"
        line = [f"{number:06d}", twin, similarity, f"{limits.pixels:.4f}"]
        line += ["yes" if verdict.flagged[row] else "no", verdict.reason(row)]
        if verdict.cosine is not None and verdict.feature_twin is not None:
            twin, cosine = cases[int(verdict.feature_twin[row])], f"{float(verdict.cosine[row]):.4f}"
            line += [twin, cosine, f"{limits.features:.4f}"]
        writer.writerow(line)
    return text.getvalue()


def pairs(
    synthetic: Sequence[Mapping[str, str]],
    real: Sequence[Mapping[str, str]],
    verdict: Verdict,
    limits: Limits,
    channels: int,
) -> Image.Image:
    """Draw the 16 most suspicious pairs: synthetic image left, right the training image nearest to it.

    Suspicious is what exceeds its threshold by most of the room that is left up to 1, in either comparison.
    """
    size = picture_size(synthetic[0]["image"])
    comparisons = [("", verdict.similarity, verdict.twin, _excess(verdict.similarity, limits.pixels))]
    if verdict.cosine is not None and verdict.feature_twin is not None and limits.features is not None:
        excess = _excess(verdict.cosine, limits.features)
        comparisons.append(("features ", verdict.cosine, verdict.feature_twin, excess))
    largest, which = torch.stack([excess for *_, excess in comparisons]).max(0)
    tiles, captions = [], []
    for row in largest.argsort(descending=True)[:16].tolist():
        name, similarity, twin, _ = comparisons[int(which[row])]
        pair = load_images([synthetic[row], real[int(twin[row])]], size, channels)[0]
        tiles.append(torch.cat(list(pair), dim=1))
        captions.append(f"{name}{float(similarity[row]):.2f}{' flagged' if verdict.flagged[row] else ''}")
    return contact_sheet(tiles, 4, captions)


def _excess(similarity: torch.Tensor, limit: float) -> torch.Tensor:
    """Return the excess over the threshold as a share of its distance to 1: 1 for an exact copy, 0 at the threshold."""
    return (similarity - limit) / max(1 - limit, 1e-6)
