"""Import what a MONAI bundle carries of its own (`scripts`), without leaving it to the next bundle of the process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def bundle_imports(bundle: Path) -> Iterator[None]:
    """Make the bundle's own packages importable, and forget them after: other bundles' have the same names."""
    names = {path.stem for path in bundle.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}

    def bundle_modules() -> dict[str, Any]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}

    hidden, sys_path = bundle_modules(), list(sys.path)
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(bundle.resolve()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = sys_path
        for name in bundle_modules():
            del sys.modules[name]
        sys.modules.update(hidden)
