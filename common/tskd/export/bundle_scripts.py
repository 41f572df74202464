"""A shipped bundle's `scripts/`: the modules of tskd that read files as they are meant, importing each other."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

_ENTRIES = ("tskd.export.segment_files", "tskd.export.accept_better")  # of inference.json and of train.json
_IMPORT = re.compile(r"^( *)from (tskd[\w.]*) import ", re.MULTILINE)
RUN = {  # keys of its inference.json; MONAI makes the bundle's folder importable just before `run`
    "segment": {"_target_": "scripts.segment_files.segment", "_mode_": "callable"},
    "run": ["$@segment(@evaluator, @postprocessing, @datalist, @input_dir, @mask_dir, @in_channels)"],
}


def write_scripts(folder: Path) -> None:
    """Write `segment_files.py`, `accept_better.py` and every module of ours that it needs, side by side."""
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
        local = _IMPORT.sub(lambda found: f"{found[1]}from scripts.{found[2].rpartition('.')[2]} import ", text)
        (folder / f"{module.rpartition('.')[2]}.py").write_text(local, encoding="utf-8")


def _source(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")
