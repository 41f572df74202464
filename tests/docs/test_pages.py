"""The docs: length of the README, links and anchors, the figure of results, sizes of pictures."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bundles/*/docs/*.md"))
    if page.name != "shipped.md"
)
TABLE = re.compile(r"<!-- results table.*?<!-- end -->", re.DOTALL)
GENERATED = {"reference/cli.md", "reference/study.md", "reference/api.md", "changes.md"} | {
    f"reference/bundles/{folder.name}.md" for folder in (ROOT / "bundles").iterdir()
}


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert len(text.split()) <= 900
    assert not [line for line in text.splitlines() if len(line) > 160]


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings as MkDocs and GitHub both make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {word.strip().replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if target.is_relative_to(ROOT / "docs") and target.relative_to(ROOT / "docs").as_posix() in GENERATED:
            continue
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


@pytest.fixture(scope="module")
def drawing() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs/draw_results.py"))


def test_the_figure_of_results_is_that_of_the_csvs(drawing: dict[str, Any]) -> None:
    assert drawing["figure"]() == (ROOT / "docs/img/results.svg").read_text(encoding="utf-8")


def test_the_tables_of_results_are_those_of_the_csvs(drawing: dict[str, Any]) -> None:
    """Means, test patients, seeds, differences and p values."""
    readme, page = (
        drawing["TABLE"].search((ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "docs/results.md")
    )
    assert readme[2] == drawing["table"](drawing["IN_README"], intervals=False)
    assert 3 <= len(readme[2].splitlines()) - 2 <= 5
    assert page[2] == drawing["table"]()


def test_the_table_of_results_has_the_differences_of_the_pages_it_links(drawing: dict[str, Any]) -> None:
    """There `tskd results` has written the labels alone less the distilled student: the sign is the other."""
    for line in drawing["table"]().splitlines()[2:]:
        page = re.search(r"results/\w+\.md", line)[0]
        difference = re.search(r"([+-][\d.]+) \[(-?[\d.]+), (-?[\d.]+)\].*?, (p [=<] [\d.]+) ", line)
        gain, low, high = (0.0 - float(number) for number in difference.groups()[:3])
        row = rf"\| supervised \| .* \| Dice \| \d+ \| {gain:.3f} \[{high:.3f}, {low:.3f}\] .* \| <?([\d.]+) \|\n"
        p_values = re.findall(row.replace("-0.000", "-?0.000"), (ROOT / "docs" / page).read_text(encoding="utf-8"))
        assert difference[4] in {f"p {sign} {float(p):.{n}f}" for p in p_values for sign in "=<" for n in (2, 4)}, line


@pytest.mark.parametrize(
    "page", ["README.md", "docs/results.md", "docs/how-to/images.md", "docs/explanation/method.md"]
)
def test_a_number_of_a_summary_stands_on_a_page_it_links_to(page: str) -> None:
    """Dice, p values and hours of a paragraph or table row are those of the results pages that are linked there.

    The tables of the results pages are compared with the CSVs elsewhere.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    wrong = []
    for part in re.split(r"\n\n|(?<=\|)\n(?=\|)", TABLE.sub("", text)):
        links = [link for link in re.findall(r"\]\(([^)#\s]+\.md)", part) if "results" in link]
        numbers = re.findall(r"\b0\.\d{3,4}\b|\b\d+\.\d hours", part)
        pages = "".join((ROOT / page).parent.joinpath(link).read_text(encoding="utf-8") for link in links)
        wrong += [f"{number} in: {part[:80]}" for number in numbers if number not in pages]
    assert not wrong, "\n".join(wrong)


def test_the_architecture_page_has_the_real_tree() -> None:
    """Each folder of the package, each file at its top and each top folder has its line, in its place."""
    block = re.search(
        r"^```text\n(.*?)^```", (ROOT / "docs/explanation/architecture.md").read_text("utf-8"), re.M | re.S
    )
    assert block
    drawn, above = set(), [""]
    for line in block[1].splitlines():
        names, depth = re.split(r" {3,}", line.strip())[0].split("  "), (len(line) - len(line.lstrip())) // 2
        drawn |= {"/".join([*above[1 : depth + 1], name.rstrip("/")]) for name in names}
        above[depth + 1 :] = [names[-1].rstrip("/")]
    package = ROOT / "common/tskd"
    folders = {file.parent for file in package.rglob("__init__.py")} | set((ROOT / "bundles").glob("*_*"))
    files = {file for file in package.glob("*.py") if file.name != "__init__.py"}
    real = {path.relative_to(ROOT).as_posix() for path in folders | files}
    missing = real - drawn
    assert not missing
    assert not [path for path in drawn if not (ROOT / path).exists()]


def test_what_no_result_was_measured_with_is_marked_experimental() -> None:
    """Overlays and loss terms are named on a results page, or under Experimental on the page of promises."""
    pages = [page for page in (ROOT / "docs/results").glob("*.md") if not page.name.startswith(("about", "plan"))]
    measured = "".join(page.read_text(encoding="utf-8") for page in pages)
    marked = (ROOT / "docs/explanation/promises.md").read_text(encoding="utf-8").partition("## Experimental")[2]
    configs = [file for file in (ROOT / "bundles").glob("*/configs/*.json") if file.name != "metadata.json"]
    losses, more = (
        json.loads((ROOT / f"bundles/student_segmentation/configs/{name}.json").read_text(encoding="utf-8"))
        for name in ("distill", "more_losses")
    )
    names = {file.stem for file in configs} | set(losses["loss"]["terms"]) | {key.split("#")[-1] for key in more}
    plain = {"train", "unetr", "evaluate", "inference", "inference_2d", "images_2d", "soft_labels", "distill"}
    unsaid = [
        name
        for name in sorted(names - plain)
        if not re.search(rf"\b{name}(\b|_)", measured) and not re.search(rf"`{name}(\.json)?`", marked)
    ]
    assert not unsaid


def test_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in (ROOT / "docs/img").iterdir()}
    assert sum(sizes.values()) < 2_000_000
    assert not [name for name, size in sizes.items() if size > 300_000]
