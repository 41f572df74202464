"""Variables, parameters and functions say what they are: none is just `found`, `own`, `place`, `other` or `again`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VAGUE = {"found", "own", "place", "places", "other", "others", "again"}
# the folder is of the commit that the README's quickstart was measured with: a change would want a new measurement
EXCEPTIONS = {("common/tskd/distillation/soft_labels/read.py", "found")}


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that the source defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name


def vague(source: str) -> set[str]:
    """Names that say nothing of what they are of."""
    return {name for name in names(ast.parse(source)) if name.strip("_") in VAGUE}


def test_no_name_of_the_package_is_vague() -> None:
    files = [path for folder in ("common", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 200
    seen = {
        (path.relative_to(ROOT).as_posix(), name) for path in files for name in vague(path.read_text(encoding="utf-8"))
    }
    assert seen == EXCEPTIONS


@pytest.mark.parametrize(
    "source",
    ["found = 1", "def place(): ...", "def f(*, other): ...", "for own in []: ...", "f = lambda found: 1",
     "class A:\n def b(self): self._found = 1", "if found := 1: ...",
     "import a as other", "try: ...\nexcept E as again: ..."],
)  # fmt: skip
def test_each_kind_of_name_is_seen(source: str) -> None:
    assert vague(source)


def test_a_longer_name_may_have_the_word() -> None:
    assert not vague("place_kidneys = other_patients = found_at = 1\na.found(own=2)")
