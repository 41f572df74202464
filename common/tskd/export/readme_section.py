"""Replace a section of a shipped README; `tskd ship` copies this module into the bundle's `scripts/`."""

import re
from pathlib import Path

EXPORTED = "Other formats"  # section that lists the network's files in other formats
ACCURACY = "Accuracy"


def replace_section(readme: Path, heading: str, body: str) -> None:
    """Write a text in the place of what follows a heading; nothing where there is no such file or heading.

    Args:
        readme: Markdown file with headings of the second level.
        heading: without its `##`.
        body: new content, without the heading.
    """
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
        pattern = rf"^(## {re.escape(heading)}\n).*?(?=^## |\Z)"
        new = re.sub(pattern, lambda match: f"{match[1]}\n{body}\n\n", text, count=1, flags=re.MULTILINE | re.DOTALL)
        readme.write_text(new, encoding="utf-8")


def section(readme: Path, heading: str) -> str:
    """Return what follows a heading, stripped; "" where there is no such file or heading."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return section[1].strip() if section else ""
