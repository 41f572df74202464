"""YAML in the docs is a part of a study, and fits its schema."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tskd.workflow import read_yaml
from tskd.workflow.schema import WORKFLOW, schema_problems

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "bundles").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[dict[str, Any]]:
    content = [yaml.safe_load(match[2]) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    return [block for block in content if isinstance(block, dict)]


WITH_STUDIES = [page for page in PAGES if blocks(page)]


def test_there_are_pages_with_studies() -> None:
    assert ROOT / "docs/how-to/studies.md" in WITH_STUDIES


@pytest.mark.parametrize("page", WITH_STUDIES, ids=lambda page: page.name)
def test_every_block_fits_the_schema(page: Path) -> None:
    for block in blocks(page):
        study = {**read_yaml(WORKFLOW / "own_images.yaml"), **block}
        assert not schema_problems(study, "study.schema.json"), block


def test_a_mistyped_key_is_seen() -> None:
    wrong = {**read_yaml(WORKFLOW / "own_images.yaml"), "methods": {"mae": {"pretrained": "mae"}}}
    assert schema_problems(wrong, "study.schema.json")
