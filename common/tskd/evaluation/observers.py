"""Score masks that no training of this project made, as a method: a second observer's, another program's."""

import tempfile
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from tskd.data.checks import file_problems
from tskd.data.datalist import IGNORE, LISTS, entries, raise_if, read
from tskd.errors import TskdError
from tskd.evaluation.predicted_files import predicted_masks
from tskd.evaluation.writer import MetricsWriter


def score_labels(
    dataset_file: str | Path,
    prediction_key: str | None,
    method: str,
    output_dir: str | Path,
    section: str = "test",
    budget: int | str = "no",
    predictions: str | Path | None = None,
) -> Path:
    """Score the files of one key of a list against `label`, with the metrics and files of an evaluation.

    Args:
        dataset_file: path of dataset.json.
        prediction_key: key of the entries whose files are scored, such as `label_2nd`; None with `predictions`.
        method: name in the tables.
        output_dir: folder for metrics.csv, summary.json, cases.json and predictions/.
        section: "test" or "validation".
        budget: number of labels in the tables; a method is compared with others of its budget only.
        predictions: folder with masks of another program instead, found by `predicted_masks`.

    Returns:
        Path of metrics.csv.

    Raises:
        TskdError: both or none of key and folder, entries without the key, files that `tskd check` refuses, or as
            `MetricsWriter`.
    """
    if (prediction_key is None) == (predictions is None):
        raise TskdError("expected --prediction-key or --predictions, found both or none. Give one of them.")
    with tempfile.TemporaryDirectory() as draft:
        cases, key = entries(dataset_file, section), prediction_key or "label_2nd"
        if predictions is not None:
            masks = predicted_masks(cases, predictions, Path(draft), len(read(dataset_file)["labels"]) - 1)
            cases = [{**entry, key: masks[entry["case"]]} for entry in cases]
        return _score(Path(dataset_file), cases, key, method, Path(output_dir), section, budget)


def _score(
    dataset_file: Path,
    cases: list[dict[str, str]],
    prediction_key: str,
    method: str,
    output_dir: Path,
    section: str,
    budget: int | str,
) -> Path:
    data = read(dataset_file)
    without = [entry["case"] for entry in cases if prediction_key not in entry]
    if without:
        raise TskdError(
            f"{dataset_file}: expected the key '{prediction_key}' in every entry of '{section}', found none in "
            f"{', '.join(without[:5])} ({len(without)} of {len(cases)}). Add the files, or name another key or section."
        )
    only: dict[str, Any] = {**data, **{name: [] for name in LISTS}, section: cases}
    raise_if(file_problems(only, Path(dataset_file).resolve().parent), dataset_file)
    keys = list(dict.fromkeys(("image", "label", prediction_key)))
    load = Compose([LoadImaged(keys, image_only=True), EnsureChannelFirstd(keys)])

    def step(_: Engine, entry: dict[str, str]) -> list[dict[str, Any]]:
        item = load(entry)
        item["pred"] = item[prediction_key].masked_fill(item["label"] == IGNORE, 0)
        return [item]

    engine = Engine(step)
    MetricsWriter(output_dir, data["labels"], data["name"], budget, method, seed=0, save_predictions=True).attach(
        engine
    )
    engine.run(cases)
    return Path(output_dir, "metrics.csv")
