"""Score label files of the data set as a method: inter-observer agreement."""

from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from tskd.data.checks import file_problems
from tskd.data.datalist import IGNORE, LISTS, entries, raise_if, read
from tskd.errors import TskdError
from tskd.evaluation.writer import MetricsWriter


def score_labels(
    dataset_file: str | Path,
    prediction_key: str,
    method: str,
    output_dir: str | Path,
    section: str = "test",
    budget: int | str = "no",
) -> Path:
    """Score the files of one key of a list against `label`, with the metrics and files of an evaluation.

    Args:
        dataset_file: path of dataset.json.
        prediction_key: key of the entries whose files are scored, such as `label_2nd`.
        method: name in the tables.
        output_dir: folder for metrics.csv, summary.json, cases.json and predictions/.
        section: "test" or "validation".
        budget: number of labels in the tables; a method is compared with others of its budget only.

    Returns:
        Path of metrics.csv.

    Raises:
        TskdError: entries without the key, files that `tskd check` refuses, or as `MetricsWriter`.
    """
    data = read(dataset_file)
    cases = entries(dataset_file, section)
    without = [entry["case"] for entry in cases if prediction_key not in entry]
    if without:
        raise TskdError(
            f"{dataset_file}: expected the key '{prediction_key}' in every entry of '{section}', found none in "
            f"{', '.join(without[:5])} ({len(without)} of {len(cases)}). Add the files, or name another key or section."
        )
    only: dict[str, Any] = {**data, **{name: [] for name in LISTS if name != section}}
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
