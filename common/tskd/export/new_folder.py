"""A folder that appears in one step, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tskd.errors import TskdError


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """Yield a draft beside `output`, which takes its name when the body is done.

    Raises:
        TskdError: there is something at `output`.
    """
    output = Path(output).resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TskdError(f"{output}: expected a new or empty folder, found files in it. Choose another or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export_") as folder:
        draft = Path(folder) / output.name
        draft.mkdir()
        yield draft
        if output.exists():
            output.rmdir()
        os.rename(draft, output)
