"""What lies in a folder and is not taken: counted and named, so that nothing is dropped without a word."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tskd.data.io.identities import without_identity


@dataclass
class Inventory:
    """Count the files of the input, and those not used by the reason.

    Args:
        num_files: files, folders and table columns looked at.
        left: reason -> names.
        slices: slices written, of volumes.
        blank_slices: slices left out because they are one grey everywhere.
        identity: names, ids and dates of patients, for which the text has codes.
    """

    num_files: int = 0
    left: dict[str, list[str]] = field(default_factory=dict)
    slices: int = 0
    blank_slices: int = 0
    identity: tuple[str, ...] = ()

    def leave(self, reason: str, names: Iterable[str]) -> None:
        """Count what is not used."""
        if names := list(names):
            self.left[reason] = [*self.left.get(reason, []), *names]

    def folder(self, folder: str | os.PathLike[str], used: Iterable[Path]) -> None:
        """Count a folder's files (and folders), of which only `used` are taken."""
        taken = {path.name for path in used}
        for path in sorted(Path(folder).iterdir()):
            self.num_files += 1
            if path.name in taken:
                continue
            if path.name.startswith("."):
                reason = "hidden"
            elif path.is_dir():
                reason = "a folder"
            else:
                reason = f"with the ending {path.suffix}" if path.suffix else "without an ending"
            self.leave(reason, [path.name])

    def __str__(self) -> str:
        """N found, M used, and the rest by reason with a few names."""
        unused = sum(map(len, self.left.values()))
        text = f"{self.num_files} found, {self.num_files - unused} used"
        reasons = [
            f"{len(names)} {reason} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
            for reason, names in self.left.items()
        ]
        text += "; not used: " + ", ".join(reasons) if reasons else ""
        if self.slices or self.blank_slices:
            text += f"; {self.slices} training slices, {self.blank_slices} blank ones left out"
        return without_identity(text, self.identity)
