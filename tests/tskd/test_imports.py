"""Who may import whom inside `tskd`, as DESIGN and pyproject.toml have it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECK = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"


def lint(folder: Path) -> subprocess.CompletedProcess:
    """import-linter with the contracts of the pyproject.toml in `folder`, on the package `tskd` there."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "common")}
    return subprocess.run(
        [sys.executable, "-c", CHECK], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_directions_are_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


def test_wrong_directions_are_found(tmp_path: Path):
    """The contract sees each kind of wrong import, and a module without a layer."""
    shutil.copytree(
        ROOT / "common" / "tskd", tmp_path / "common" / "tskd", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    wrong = [
        ("losses/shapes.py", "networks"),  # parts know nothing of each other
        ("networks/taps.py", "data"),
        ("data/split.py", "evaluation"),  # nor of the stages
        ("evaluation/rows.py", "synthesis"),  # nor do stages of each other
        ("synthesis/loss.py", "cli"),
        ("errors.py", "state"),
    ]
    for file, module in wrong:
        with (tmp_path / "common" / "tskd" / file).open("a") as stream:
            stream.write(f"\nimport tskd.{module}\n")
    (tmp_path / "common" / "tskd" / "extra.py").write_text('"""A module without a layer."""\n')
    done = lint(tmp_path)
    assert done.returncode == 1
    for file, module in wrong:
        importer = file.removesuffix(".py").replace("/", ".")
        assert f"tskd.{importer} -> tskd.{module}" in done.stdout, f"{importer} -> {module}\n{done.stdout}"
    assert "extra" in done.stdout


def test_package_loads_its_parts_on_first_use():
    """A config's `$import tskd` costs nothing, and any submodule is there by its name."""
    code = (
        "import sys, tskd\n"
        "assert not {'torch', 'monai'} & set(sys.modules)\n"
        "assert tskd.errors.TskdError.__mro__[1] is ValueError\n"
        "assert not {'torch', 'monai'} & set(sys.modules)\n"
        "try: tskd.eror\n"
        "except AttributeError as error: assert str(error) == \"module 'tskd' has no attribute 'eror'\"\n"
        "else: raise SystemExit('no AttributeError')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "common")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
