"""The catalogue of inputs quotes the messages of the code."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _templates() -> list[str]:
    """Every text of the package, with … for what is filled in."""
    found = []
    for path in sorted((ROOT / "common/tskd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found.append(_text(node))
    return [text for text in found if text]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ""


def test_every_quoted_message_is_in_the_code() -> None:
    templates = _templates()
    text = (ROOT / "docs/inputs.md").read_text(encoding="utf-8")
    quotes = []
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ")
        quotes += re.findall(r"`([^`]+)`", cells[2]) if line.startswith("|") and len(cells) >= 4 else []
    assert len(quotes) > 40
    missing = [quote for quote in quotes if not any(quote in template for template in templates)]
    assert not missing


def test_the_catalogue_is_in_the_navigation() -> None:
    assert "inputs.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
