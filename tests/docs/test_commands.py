"""The commands of the docs: `tskd`, `monai.bundle run`, `make` and `snakemake` lines name what exists.

Bash itself expands each page's shell blocks, with every program replaced by a function that writes down its arguments.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from tskd.cli import app
from tskd.errors import TskdError
from tskd.options import check_overrides

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bundles/*/docs/*.md"))
    if page.name not in ("CHANGELOG.md", "shipped.md")  # old commands; a template
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
BLOCK = re.compile(r"^( *)```(?:bash|sh|shell|console)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
RECORD = r"""PATH=/nowhere
record() { printf '%s\037' "$@"; printf '\036'; }
command_not_found_handle() { record "$@"; }
for name in tskd python torchrun snakemake make; do eval "$name() { record $name \"\$@\"; }"; done  # bash 3 of macOS
source() { :; }; cd() { :; }; export() { :; }; basename() { printf '%s' "${1##*/}"; }
"""


# docs/results/about.md says what these are; the letters of folds, seeds and budgets get one of their values
RESULTS = """T=bundles/teacher_segmentation/configs D=bundles/ddpm_synthesis/configs
S=bundles/student_segmentation/configs F=0 N=20 R=0 K=2 M=tskd
"""


def commands(page: str, before: str = "set -u\n") -> list[list[str]]:
    """Return the commands of a page's shell blocks, word by word, as bash would start them.

    Args:
        page: Markdown.
        before: script that runs first; by default, an error where a variable was never set.

    Raises:
        ValueError: bash does not understand the page, or a variable is nowhere set.
    """
    script = before + RECORD + "\n".join(block for _, block in BLOCK.findall(page))
    bash = shutil.which("bash") or "bash"
    with tempfile.TemporaryDirectory() as folder:  # a page may write a file: `dot > rules.svg`
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, cwd=folder)
    if faults := re.findall(r".*(?:unbound variable|syntax error).*", done.stderr):
        raise ValueError("; ".join(faults))
    return [line.split("\x1f")[:-1] for line in done.stdout.split("\x1e") if line.strip()]


def _in_this_project(word: str) -> str:
    """Return a list of config files less the reader's own; a shipped bundle's configs are the student's."""
    word = re.sub(r",'\w+\.json'", "", word)
    return re.sub(r"(?<![\w/])(?!bundles/)[\w/.-]+/configs/|^configs/", "bundles/student_segmentation/configs/", word)


def problem(command: list[str]) -> str:
    """Return what is wrong with a command; empty where nothing is."""
    if command[0] == "tskd" and not {"-h", "--help"} & set(command):
        try:
            app.parse_args(command[1:], exit_on_error=False, print_error=False)
        except CycloptsError as error:
            return " ".join(str(error).split())
    program = "tskd" if command[0] == "tskd" else "monai.bundle"
    if program in command and command[command.index(program) + 1 :][:1] == ["run"]:
        try:
            check_overrides([_in_this_project(word) for word in command[command.index(program) + 2 :]])
        except TskdError as error:
            return str(error)
    if command[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return ", ".join(f"no target {word}" for word in command[1:] if "=" not in word and word not in targets)
    files = [word for word in command if re.match(r"(?:workflow|tests|benchmarks)/", word)]
    return ", ".join(f"no file {name}" for name in files if not (ROOT / name).exists())


def spans(page: str) -> Iterator[str]:
    """Yield the code in a page's sentences and tables."""
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE))


def unknown_option(span: str) -> str:
    """Return what of `tskd command --option` in a sentence does not exist; its arguments may be left out."""
    words = span.split()
    node, chain = app, ["tskd"]
    for word in words[1:]:
        if word.startswith("-") or word not in set(node):
            break
        node = node[word]
        chain.append(word)
    rest = words[len(chain) :]
    if node is app and rest and not rest[0].startswith(("-", "...")) and rest[0].islower():
        return f"no command {rest[0]}"
    if node is app or not node.default_command:
        return ""
    known = {name for argument in node.assemble_argument_collection(parse_docstring=False) for name in argument.names}
    options = {word.split("=")[0] for word in rest if word.startswith("--")} - {"--help"}
    return ", ".join(f"{' '.join(chain)} has no {option}" for option in sorted(options - known))


def test_the_check_finds_what_is_wrong() -> None:
    page = "```bash\nS=bundles/student_segmentation\ntskd ship --runs a --output b_segmentation\ntskd shipp\n" + (
        "tskd run --config_file $S/configs/train.json --max_epoch 3\n"
        "python -m monai.bundle run --config_file $S/configs/train.json --max_epoch 3\nmake nothing\n```\n"
    )
    found = [problem(command) for command in commands(page)]
    assert all(found), found
    assert "max_epochs" in found[2]
    with pytest.raises(ValueError, match="unbound"):
        commands("```bash\ntskd check $NOWHERE\n```\n")
    assert unknown_option("tskd ship --runs RUN")
    assert unknown_option("tskd shipp")
    assert not unknown_option("tskd ship --run RUN")


@each_page
def test_commands_name_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    before = RESULTS if page.parent.name == "results" else "set -u\n"
    wrong = [f"{' '.join(command)}: {fault}" for command in commands(text, before) if (fault := problem(command))]
    wrong += [fault for span in spans(text) if span.startswith("tskd ") and (fault := unknown_option(span))]
    assert not wrong, "\n".join(wrong)


@each_page
def test_shell_blocks_are_marked_as_such(page: Path) -> None:
    """A command in a block without a language would escape the test above."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(\w*) *\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    bare = [block for language, block in blocks if language not in ("bash", "sh", "python", "yaml", "json", "output")]
    rest = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    bare += re.findall(r"^    +(?:tskd|python|snakemake|S|make|pip) .*", rest, re.MULTILINE)
    assert not [block for block in bare if re.search(r"^ *(tskd|python|make) ", block, re.MULTILINE)]
