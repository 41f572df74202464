"""The docs: length of the README, links and anchors, the figure of results, sizes of pictures."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bundles/*/docs/*.md"))
    if page.name != "shipped.md"
)
GENERATED = {"reference/cli.md", "reference/configs.md", "reference/study.md", "reference/api.md", "changes.md"}


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


def test_the_figure_of_results_is_that_of_the_csvs() -> None:
    figure = runpy.run_path(str(ROOT / "docs/draw_results.py"))["figure"]
    assert figure() == (ROOT / "docs/img/results.svg").read_text(encoding="utf-8")


def test_the_readmes_table_has_the_figures_numbers() -> None:
    """Every mean Dice of the README's table stands in the figure, which is drawn from the CSVs."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:CHAOS|USGRA|ISIC|CHASE).*$", text, re.MULTILINE)
    assert 3 <= len(rows) <= 5
    drawn = re.findall(r">(0\.\d{3})</text>", (ROOT / "docs/img/results.svg").read_text(encoding="utf-8"))
    for row in rows:
        numbers = re.findall(r"\b0\.\d{3}\b", row.rsplit("|", 2)[0])
        assert len(numbers) == 3
        assert any(drawn[i : i + 3] == numbers for i in range(0, len(drawn), 3)), row


def test_pictures_are_small() -> None:
    assert sum(file.stat().st_size for file in (ROOT / "docs/img").iterdir()) < 2_000_000
