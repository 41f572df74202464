"""The report is one file without a network, and its numbers are those of the CSV."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tskd.cli import main
from tskd.errors import TskdError
from tskd.evaluation import write_report
from tskd.evaluation.metrics import METRICS
from tskd.evaluation.report.overlays import TRUTH, choose_cases, load_upright, overlay
from tskd.evaluation.report.run_tables import duration
from tskd.evaluation.report.search_table import search_table
from tskd.evaluation.report.tables import format_metric, format_p, metric_heading, with_interval
from tskd.evaluation.rows import MetricRow, read_rows, write_rows

METHODS = ("scratch", "teacher", "student")
Writer = Callable[..., Path]


class Page(HTMLParser):
    """Collects headings, tables and images of the report."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.ids: list[str | None] = []
        self.text: list[str] = []
        self._heading = self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [str(values[key]) for key in ("href", "src") if key in values]
        if tag == "img":
            self.images.append(values)
        elif tag == "table":
            self.tables[self._heading] = []
        elif tag == "tr":
            self.tables[self._heading].append([])

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        if self._tag == "h3":
            self._heading = data
        elif self._tag in ("td", "th"):
            self.tables[self._heading][-1].append(data)
        if data.strip() and self._tag != "style":
            self.text.append(data.strip())


def markdown_tables(text: str) -> dict[str, list[list[str]]]:
    tables: dict[str, list[list[str]]] = {}
    for block in text.split("\n\n"):
        if block.startswith("**"):
            heading = block.strip("*\n")
        elif block.startswith("|"):
            head, ruler, *lines = block.splitlines()
            assert set(ruler) <= set("|-: ")
            tables[heading] = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in [head, *lines]]
            assert all(len(row) == ruler.count("|") - 1 for row in tables[heading])
    return tables


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, write_run: Writer, write_dataset: Writer) -> Path:
    root = tmp_path_factory.mktemp("report")
    runs = [write_run(root / "runs" / f"{m}_{b}_{s}", m, b, s) for m in METHODS for b in (80, 40) for s in (0, 1)]
    dataset = write_dataset(root / "data", "phantom", "training")
    write_dataset(root / "synthetic", "synthetic", "unlabelled")
    check = (
        "synthetic,training_case,similarity,flagged,reason,feature_similarity,feature_twin\n"
        "000000,1_012,0.25,no,,0.5,1_012\n000001,2_003,0.75,yes,pixels,0.6,3_001\n"
    )
    (root / "synthetic" / "memorisation.csv").write_text(check)
    summary = {"quantile": 0.999, "held_out": {"images": 40, "flagged": 1}}
    (root / "synthetic" / "memorisation.json").write_text(json.dumps(summary))
    Image.new("L", (40, 20)).save(root / "synthetic" / "memorisation.png")
    (root / "search").mkdir()
    trials = "trial,state,value,learning_rate\n0,COMPLETE,0.81234,0.001\n1,PRUNED,,0.01\n"
    (root / "search" / "trials.csv").write_text(trials)
    more = {"synthetic": root / "synthetic", "search": root / "search", "title": "Phantom <report>"}
    write_report(runs, root / "out", "scratch", dataset, **more)
    return root / "out"


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    page = Page()
    page.feed((report / "report.html").read_text())
    return page


def test_tables_hold_the_numbers_of_the_csv(report: Path, page: Page) -> None:
    with open(report / "numbers.csv", newline="") as stream:
        numbers = {(n["method"], n["budget"], n["label"], n["metric"]): n for n in csv.DictReader(stream)}

    def cell(method: str, budget: str, label: str, metric: str) -> str:
        number = numbers[method, budget, label, metric]
        return with_interval(float(number["mean"]), float(number["low"]), float(number["high"]), metric)

    main = page.tables["Methods, mean over all organs"]
    assert len(main) == 7
    for method, budget, seeds, patients, dice, median, worst, hd95 in main[1:]:
        overall = numbers[method, budget, "all organs", "dice"]
        assert (seeds, patients) == ("2", "7")
        assert dice == cell(method, budget, "all organs", "dice")
        assert hd95 == cell(method, budget, "all organs", "hd95")
        assert median == f"{float(overall['median']):.3f}"
        assert worst == f"{float(overall['worst']):.3f} (patient {overall['worst_patient']})"
    for title, metric in (("Dice by organ, mean [95%]", "dice"), ("HD95 by organ, pixels, mean [95%]", "hd95")):
        columns, *lines = page.tables[title]
        assert len(lines) == 6
        for method, budget, *cells in lines:
            assert cells == [cell(method, budget, label, metric) for label in columns[2:]]
    every = page.tables["Every metric, mean over all organs"]
    names = {metric_heading(metric, "pixels"): metric for metric in METRICS}
    assert len(every) == 1 + 6 * 3
    for method, name, budget, mean, median, worst in every[1:]:
        number = numbers[method, budget, "all organs", names[name]]
        assert mean == cell(method, budget, "all organs", names[name])
        assert median == format_metric(float(number["median"]), names[name])
        assert worst == f"{format_metric(float(number['worst']), names[name])} (patient {number['worst_patient']})"


def test_calibration_table_is_that_of_the_csv(report: Path, page: Page) -> None:
    with open(report / "calibration.csv", newline="") as stream:
        bins = list(csv.DictReader(stream))
    lines = page.tables["Calibration, all pixels of all cases together"][1:]
    assert len(lines) == 6 * 2
    for method, region, budget, pixels, confidence, accuracy, error, _ in lines:
        region_bins = [b for b in bins if (b["method"], b["budget"], b["region"]) == (method, budget, region)]
        n, mean, correct = np.array(
            [[float(b[k]) for k in ("pixels", "mean", "accuracy")] for b in region_bins if b["scale"] == "confidence"]
        ).T
        assert pixels == f"{n.sum() / 1e6:.3f}"
        assert (confidence, accuracy) == tuple(f"{np.average(v, weights=n):.3f}" for v in (mean, correct))
        assert error == f"{np.average(np.abs(mean - correct), weights=n):.3f}"


def test_every_method_has_a_model_card(report: Path, page: Page) -> None:
    text = "\n".join(page.text)
    with open(report / "numbers.csv", newline="") as stream:
        numbers = [n for n in csv.DictReader(stream) if (n["label"], n["metric"]) == ("all organs", "dice")]
    for method in METHODS:
        card = (report / f"model_card_{method}.md").read_text()
        method_numbers = [n for n in numbers if n["method"] == method]
        facts = [with_interval(float(n["mean"]), float(n["low"]), float(n["high"]), "dice") for n in method_numbers]
        facts += ["Architecture: UNETR", "5.90 million", "not for clinical use", "Only 7 patients", "Data phantom: CC0"]
        facts += ["config hash 0123456789ab", "training 6 of 3 patients"]
        for fact in facts:
            assert fact in card
            assert fact in text
        for line in card.splitlines():
            if line.startswith("- "):
                assert line.removeprefix("- ") in text


def test_markdown_has_the_same_tables_and_pictures(report: Path, page: Page) -> None:
    text = (report / "report.md").read_text()
    assert markdown_tables(text) == page.tables
    pictures = [line for line in text.splitlines() if line.startswith("![")]
    assert len(pictures) == len(page.images)
    for line in pictures:
        assert (report / line[line.rindex("(") + 1 : -1]).is_file()


def test_page_is_one_file_that_needs_no_network(page: Page) -> None:
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert all(image["alt"] for image in page.images)
    assert len(page.images) == 3 + 2 + 1 + 3 + 3


def test_page_fits_a_phone(report: Path, tmp_path: Path) -> None:
    """At 420 px the page does not scroll sideways: by its rules, and as measured in Chromium."""
    html = (report / "report.html").read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    style = html[html.index("<style>") : html.index("</style>")]
    assert not [
        w for w in re.findall(r"(?<!max-)width: (\d+)px", style.replace("@media (max-width", "")) if int(w) > 392
    ]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    tell = "<script>onload = () => parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
    (tmp_path / "page.html").write_text(html.replace("</body>", f"{tell}</body>"))
    listen = "onmessage = event => document.body.append('scrollWidth=' + event.data)"
    frame = '<iframe src="page.html" width="420" height="900" style="border:0"></iframe>'
    (tmp_path / "frame.html").write_text(f"<body>{frame}<script>{listen}</script></body>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = [chromium, *options, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri()]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    width = re.search(r"scrollWidth=(\d+)", text)
    assert width, text
    assert int(width[1]) <= 420


def test_page_says_what_was_run_and_names_no_folder(report: Path, page: Page) -> None:
    text = "\n".join(page.text)
    for words in ("torch 2.13.0", "1 h 2 min", "licence: CC0", "pancreas: in neither", "too few patients", "5.90"):
        assert words in text
    assert "Phantom <report>" in text
    assert "/home" not in text
    assert str(report.parent) not in text
    assert page.tables["Data: phantom"][1] == ["training", "6", "3"]
    check = page.tables["Memorisation check of 2 synthetic images"]
    assert check[1:] == [["similarity", "0.25", "0.5", "0.75"], ["feature similarity", "0.5", "0.55", "0.6"]]
    assert "Flagged: 1 of 2 synthetic images" in text
    assert "flagged by the same rule: 1 of 40" in text
    assert page.tables["Trials of search"][1:] == [["0", "complete", "0.8123", "0.001"], ["1", "pruned", "–", "0.01"]]
    assert {row[4] for row in page.tables["Stages"][1:]} == {"0123456789ab", "–"}


def test_one_run_alone_gives_a_report(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path / "run", "student", patients=2)
    for path in [*run.rglob("*.json"), *run.rglob("train_log.csv"), run / "calibration.csv"]:
        path.unlink()
    text = write_report([run], tmp_path / "out").read_text()
    assert "mean Dice" in text
    assert "Difference from" not in text
    assert "2 patients: the interval is too narrow" in text


def test_folds_of_one_method_are_merged(tmp_path: Path, write_run: Writer) -> None:
    """Folders of one name, method and seed whose patients differ: one line, and the best and worst of all of them."""
    whole = read_rows(write_run(tmp_path / "whole", "student") / "metrics.csv")
    folds = []
    for fold, patients in enumerate(({"1", "2", "3"}, {"4", "5", "6", "7"})):
        folder = write_run(tmp_path / f"fold{fold}" / "student", "student")
        write_rows(folder / "metrics.csv", [row for row in whole if row.group in patients])
        cases = json.loads((folder / "cases.json").read_text())
        (folder / "cases.json").write_text(json.dumps({k: v for k, v in cases.items() if v["group"] in patients}))
        folds.append(folder)
    pages = []
    for name, runs in (("merged", folds), ("one", [tmp_path / "whole"])):
        pages.append(Page())
        pages[-1].feed(write_report(runs, tmp_path / name).read_text())
    merged, one = pages
    for title in ("Methods, mean over all organs", "Dice by organ, mean [95%]", "Every metric, mean over all organs"):
        assert merged.tables[title] == one.tables[title]
    assert [row[0] for row in merged.tables["Runs"][1:]] == ["fold0/student", "fold1/student"]
    captions = [[t for t in p.text if ", seed 0, patient" in t and not t.startswith("Best")] for p in pages]
    assert len(captions[0]) == 3
    assert captions[0] == captions[1]


def test_missing_prediction_is_a_note(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path / "run", "student", patients=3)
    for path in (run / "prediction").iterdir():
        path.unlink()
    page = Page()
    page.feed(write_report([run], tmp_path / "out").read_text())
    assert sum("no picture, prediction not found" in text for text in page.text) == 3


def test_unknown_reference_writes_nothing(tmp_path: Path, write_run: Writer) -> None:
    with pytest.raises(TskdError, match="found 'teacher'"):
        write_report([write_run(tmp_path / "run", "student", patients=1)], tmp_path / "out", reference="teacher")
    assert not (tmp_path / "out").exists()


def test_runs_without_a_dice_are_named(tmp_path: Path, write_run: Writer) -> None:
    runs = [write_run(tmp_path / method, method, patients=2) for method in ("student", "teacher")]
    rows = [row for row in read_rows(runs[1] / "metrics.csv") if row.metric != "dice"]
    write_rows(runs[1] / "metrics.csv", rows)
    with pytest.raises(TskdError, match=r"^teacher \(.*, \d+ labels\): expected Dice in metrics\.csv, found none"):
        write_report(runs, tmp_path / "report")


def test_command_names_folders_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert "none: run tskd evaluate --run RUN first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no such file"), ("trial,value\n0,1\n", "missing"), ("trial,state,value\n", "at least one trial")],
)
def test_unreadable_trials_are_named(text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "trials.csv").write_text(text)
    with pytest.raises(TskdError, match=words):
        search_table(tmp_path)


def test_pixels_outside_the_field_of_view_are_not_drawn(tmp_path: Path) -> None:
    truth, guess = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 255
    truth[3:6, 3:6], guess[3:6, 3:6], guess[12:16, 12:16] = 1, 1, 1
    files = {}
    for name, array in (("image", truth), ("label", truth), ("prediction", guess)):
        files[name] = str(tmp_path / f"{name}.png")
        Image.fromarray(array.T).save(files[name])
    (ax,) = overlay(files)[0].axes
    assert len(ax.collections) == 2
    for lines in ax.collections:
        assert lines.get_paths()[0].get_extents().get_points().max() == 5.5


def test_best_median_and_worst_case() -> None:
    rows = [MetricRow("s", "1", "m", "0", f"p{k}", f"c{k}", "liver", "dice", k / 10) for k in (3, 9, 1, 5, 7)]
    assert [(c.rank, c.case, c.group, c.dice) for c in choose_cases(rows)] == [
        ("Best", "c9", "p9", 0.9),
        ("Median", "c5", "p5", 0.5),
        ("Worst", "c1", "p1", 0.1),
    ]
    assert [case.rank for case in choose_cases(rows[:2])] == ["Best", "Worst"]
    assert [case.rank for case in choose_cases(rows[:1])] == ["Only"]


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_overlay_is_upright_whatever_the_storage_order(flips: tuple[int, int, int], tmp_path: Path) -> None:
    """An organ at the patient's right and front lands at the left and top of the picture."""
    label = np.zeros((20, 16, 5), np.uint8)  # LPS: x to the left, y to the back
    label[3:7, 2:5, 3] = 1
    stored = label[tuple(slice(None, None, flip) for flip in flips)]
    affine = np.diag([-1.0 * flips[0], -2.0 * flips[1], 5.0 * flips[2], 1.0])
    files = {}
    for name in ("image", "label", "prediction"):
        files[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(stored, affine), files[name])
    upright, pixel = load_upright(files["label"])
    assert np.array_equal(upright[0], label)
    assert pixel == 2
    figure, where = overlay(files)
    assert where == "slice 4 of 5"
    (ax,) = figure.axes
    assert ax.images[0].get_array().shape == (16, 20)
    truth = next(c for c in ax.collections if np.asarray(c.get_edgecolor())[0][:3] == pytest.approx(_rgb(TRUTH)))
    (x0, y0), (x1, y1) = truth.get_paths()[0].get_extents().get_points()
    assert (x0, x1, y0, y1) == (2.5, 6.5, 1.5, 4.5)
    assert ax.yaxis_inverted()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["truth", "prediction"]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))


def test_text_of_numbers() -> None:
    assert format_metric(-0.0004, "dice") == "0.000"
    assert with_interval(12.34, 1.0, 99.99, "hd95") == "12.3 [1.0, 100.0]"
    assert with_interval(0.5, None, None, "dice") == "0.500"
    assert (format_p(0.00001), format_p(0.03125)) == ("<0.0001", "0.0312")
    assert [duration(s) for s in (4.21, 185, 4350)] == ["4.2 s", "3 min 5 s", "1 h 12 min"]


def test_importing_the_package_stays_light() -> None:
    code = "import sys, tskd.evaluation as e; assert 'write_report' in e.__all__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"matplotlib", "torch", "monai", "scipy"} & set(loaded)
