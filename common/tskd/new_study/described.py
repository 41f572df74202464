"""What the dataset.json of nnU-Net or of the Medical Segmentation Decathlon says of a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd.data.prepare.nnunet import MR_WORDS
from tskd.errors import TskdError


@dataclass(frozen=True)
class Description:
    """A dataset.json.

    Attributes:
        kind: "nnU-Net" or "Decathlon", "" where there is none.
        name: the data set's, "" where it has none.
        labels: mask value -> name, without the background.
        channels: names of the channels.
        said: what it says that cannot be followed, in words.
    """

    kind: str = ""
    name: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    def modality(self, channel: int = 0) -> str:
        """Return MR or CT where the channel's name says so, else the name, "" where there is none."""
        name = self.channels[channel] if channel < len(self.channels) else ""
        words = name.lower().replace("_", " ").split()
        if "ct" in words:
            return "CT"
        return "MR" if any(word in MR_WORDS for word in words) else name


def read_description(folder: Path) -> Description:
    """Return the dataset.json in a folder, or beside an imagesTr.

    Raises:
        TskdError: a file that is no JSON, one that `tskd prepare` wrote, or an `ignore` label.
    """
    file = next((each / "dataset.json" for each in (folder, folder.parent) if (each / "dataset.json").is_file()), None)
    if file is None or (file.parent != folder and not folder.name.startswith("images")):
        return Description()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TskdError(f"{file}: expected JSON, found {error}. Correct the file, or move it away.") from error
    if not isinstance(content, dict) or "labels" not in content:
        return Description(said=(f"{file} is not one of nnU-Net or the Decathlon: not read",))
    if "tskd" in str(content.get("provenance", {})):
        raise TskdError(
            f"{file}: expected images and masks as they come, found a data set that `tskd prepare` wrote. Name the "
            "folders that it was made from."
        )
    names = content.get("channel_names") or content.get("modality") or {}
    ordered = [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else [str(names)]
    kind = "nnU-Net" if "channel_names" in content or "file_ending" in content or _numbered(content) else "Decathlon"
    labels, said = _labels(content["labels"], file)
    return Description(kind, str(content.get("name", "")), labels, tuple(ordered), said)


def _labels(labels: Mapping[str, Any], file: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    """Value -> name, from {"liver": 1} (nnU-Net 2) or {"1": "liver"} (Decathlon); regions of several values are not."""
    named: dict[int, str] = {}
    regions = []
    for key, value in labels.items():
        if isinstance(value, list):
            regions.append(key)
        elif str(value).lstrip("-").isdigit():
            named[int(value)] = str(key)
        elif str(key).isdigit():
            named[int(key)] = str(value)
    if ignored := [value for value, name in named.items() if name.lower() == "ignore" and value != 255]:
        raise TskdError(
            f"{file}: expected 255 for pixels that are not annotated, found the label ignore as {ignored[0]}. Write "
            "255 in the masks there."
        )
    said = (f"regions of several labels are not taken as such: {', '.join(regions)}",) if regions else ()
    return {value: name for value, name in sorted(named.items()) if 0 < value < 255}, said


def _numbered(content: Mapping[str, Any]) -> bool:
    entries = content.get("training") or []
    return bool(entries) and isinstance(entries[0], dict) and "_0000" in str(entries[0].get("image", ""))
