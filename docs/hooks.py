"""Pages of the documentation site that are made from the project: command line, bundles, study files, API, changes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ("teacher_segmentation", "ddpm_synthesis", "student_segmentation")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those in docs/."""
    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the file tree in its place on the architecture page."""
    return markdown.replace("<!-- file tree -->", file_tree())


def file_tree() -> str:
    """Return the package's files, a heading a folder and a line a file, with the first line of its docstring."""
    package, lines = ROOT / "common" / "tskd", []
    folders = [package, *sorted(path for path in package.rglob("*") if (path / "__init__.py").is_file())]
    for folder in folders:
        lines.append(f"\n### {folder.relative_to(package.parent).as_posix()}\n\n{_about(folder / '__init__.py')}\n")
        files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        if files:
            lines += ["| file | what |", "| --- | --- |"]
            lines += [f"| `{path.name}` | {_about(path)} |" for path in files]
    return "\n".join(lines)


def _about(file: Path) -> str:
    """Return the first paragraph of a file's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path and the Markdown of every generated page."""
    yield "reference/cli.md", command_line()
    for name in BUNDLES:
        yield f"reference/bundles/{name}.md", bundle(name)
    yield "reference/study.md", study()
    rooms = dict(api())
    yield "reference/api.md", _api_index(rooms)
    for room, text in rooms.items():
        yield f"reference/api/{room}.md", text
    yield "changes.md", _changes()


def command_line() -> str:
    """Return the reference of the `tskd` command, made from its parser."""
    from tskd.cli import app

    text: str = app.generate_docs()
    text = re.sub(r"^## Table of Contents\n.*?(?=^\*\*Commands)", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^# tskd$", "# Command line", text, count=1, flags=re.MULTILINE)
    return re.sub(r"<(?=[A-Z])", "&lt;", text).replace("[@", r"\[@")


def bundle(name: str) -> str:
    """Return the page that a bundle ships with, without links to files that are not on the site."""
    text = (ROOT / "bundles" / name / "docs" / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^]]+)\]\((?!http)[^)]+\)", r"`\1`", text)


def study() -> str:
    """Return the keys of a study file, from its JSON schema."""
    schema = json.loads((ROOT / "workflow" / "study.schema.json").read_text(encoding="utf-8"))
    lines = [
        "# STUDY.yaml\n",
        "One YAML file describes a study: data sets, folds, numbers of labels, methods, seeds. The table is made "
        "from its schema, `workflow/study.schema.json`. `NAME` stands for a name of your own.\n",
        "| key | type | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{key}` | {kind} | {text} |" for key, kind, text in _keys(schema, schema, "")]
    return "\n".join(lines) + "\n"


def _keys(node: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    children = {**node.get("properties", {})}
    if isinstance(node.get("additionalProperties"), dict):
        children["NAME"] = node["additionalProperties"]
    for name, given in children.items():
        child, key = _resolve(given, schema), f"{prefix}{name}"
        yield key, _kind(child), str(child.get("description", "")).replace("|", "\\|")
        yield from _keys(child, schema, f"{key}.")


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a node with its reference followed; a description beside the reference wins."""
    while "$ref" in node:
        found: dict[str, Any] = schema
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = {**found, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def _kind(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    kind = node.get("type", "")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def api() -> Iterator[tuple[str, str]]:
    """Yield a room of the package and its page, one block a module that says something."""
    package = ROOT / "common" / "tskd"
    rooms: dict[str, list[str]] = {}
    for module in sorted(package.rglob("*.py")):
        parts = module.relative_to(package.parent).with_suffix("").parts
        if parts[-1] == "__init__" or any(part.startswith("_") for part in parts):
            continue
        rooms.setdefault(parts[1] if len(parts) > 2 else "tskd", []).append(".".join(parts))
    for room, modules in rooms.items():
        title = "tskd: single files" if room == "tskd" else f"tskd.{room}"
        blocks = "\n\n".join(f"## {name.removeprefix('tskd.')}\n\n::: {name}" for name in modules)
        yield room, f"# {title}\n\n{blocks}\n"


def _api_index(rooms: dict[str, str]) -> str:
    lines = [
        "# API\n",
        "Made from the docstrings. The [architecture](../explanation/architecture.md) says what is where.\n",
    ]
    lines += [f"- [{'tskd' if room == 'tskd' else f'tskd.{room}'}](api/{room}.md)" for room in sorted(rooms)]
    return "\n".join(lines) + "\n"


def _changes() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
