"""Print the README's commands as a script, at the size in which continuous integration runs them."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def listed() -> list[dict[str, str]]:
    """Entries of readme_commands.yaml: `readme`, and `ci` where it differs."""
    return yaml.safe_load((ROOT / "tests/readme_commands.yaml").read_text(encoding="utf-8"))


def commands(text: str) -> list[str]:
    """Commands of a page's shell blocks: continued lines joined, comments removed."""
    blocks = re.findall(r"^```(?:bash|sh|shell|console)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in lines]
    return [line for line in found if line]


if __name__ == "__main__":
    print("\n".join(entry.get("ci", entry["readme"]) for entry in listed()))
