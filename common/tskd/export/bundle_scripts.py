"""A shipped bundle's `scripts/`: the modules of tskd that read files as they are meant, importing each other."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

_ENTRIES = (
    *(f"tskd.export.{name}" for name in ("segment_files", "accept_better", "required_packages", "unused_modules")),
    "tskd.networks.lite_unet",  # also where another network ships: MONAI Label has one `scripts` for all its bundles
)
CHECK = {"_target_": "scripts.required_packages.check_packages", "_mode_": "callable"}
_IMPORT = re.compile(r"^( *)from (tskd[\w.]*) import ", re.MULTILINE)
RUN = {  # keys of its inference.json; MONAI makes the bundle's folder importable just before `run`
    "segment": {"_target_": "scripts.segment_files.segment", "_mode_": "callable"},
    "check_packages": CHECK,
    "run": [
        "$@check_packages(@as_given(str(@bundle_root)), @displayable_configs#keep_largest_component)",
        "$@segment(@evaluator, @postprocessing, @datalist, @input_dir, @mask_dir, @in_channels)",
    ],
}


def write_scripts(folder: Path) -> None:
    """Write the modules that any shipped inference.json and train.json name, and every module that these need."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Reads and checks files as tskd does; written by `tskd ship`."""\n')
    waiting, done = list(_ENTRIES), set()
    while waiting:
        module = waiting.pop()
        if module in done:
            continue
        done.add(module)
        text = _source(module)
        waiting += [name for _, name in _IMPORT.findall(text)]
        local = _IMPORT.sub(lambda match: f"{match[1]}from scripts.{match[2].rpartition('.')[2]} import ", text)
        (folder / f"{module.rpartition('.')[2]}.py").write_text(local, encoding="utf-8")


def _source(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")
