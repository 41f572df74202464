"""STUDY.yaml as text: one's own data in the settings and comments of workflow/own_images.yaml or own_volumes.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tskd.machine_file import Measured
from tskd.workflow.schema import WORKFLOW


@dataclass
class DataSet:
    """The part of a study that is about the data.

    Attributes:
        name: of the study.
        volumes: whether images are volumes.
        sources: options of the preparer that are paths, relative to `root`, or other texts: images, masks, table, ...
        root: folder that the paths are relative to.
        names: of the structures.
        modality: such as MR.
        channels: 1 or 3.
        window: intensities of CT.
        convert: whether pictures are converted to so many channels, as they differ.
        size: pixels along a side of the student's images.
        one_piece: structures of which only the largest part is kept.
        weights: file of MobileSAM's weights; None: they are downloaded.
        comments: key -> what stands beside it.
        seen: lines at the head.
        measured: what `tskd doctor --speed` has measured here.
    """

    name: str
    volumes: bool
    sources: Mapping[str, str]
    root: str
    names: Sequence[str]
    modality: str
    channels: int
    window: tuple[int, int] | None = None
    convert: bool = False
    size: int = 128
    one_piece: Sequence[int] = ()
    weights: str | None = None
    comments: Mapping[str, str] = field(default_factory=dict)
    seen: Sequence[str] = ()
    measured: Measured | None = None


def study_text(data: DataSet) -> str:
    """Return the file's content."""
    template = WORKFLOW / f"own_{'volumes' if data.volumes else 'images'}.yaml"
    lines = template.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("name:"))
    data_begin = lines.index("datasets:")
    data_end = next(n for n, line in enumerate(lines[data_begin + 1 :], data_begin + 1) if line[:1].strip())
    head = [
        "# Teacher, student of the labels, student of labels and soft labels, and a report. What `tskd init` saw:",
        *(f"#   {line}" for line in data.seen),
        "# Correct what is marked with a question mark, then: tskd train THIS_FILE --dry-run",
    ]
    settings = [
        text for line in lines[data_end:] for text in (_setting(line, data), *_as_measured(line, data.measured))
    ]
    start = [f"name: {data.name}", f"data_root: {_text(data.root)}", *lines[begin + 1 : data_begin]]
    return "\n".join([*head, *start, *_data_lines(data), *settings]) + "\n"


def _data_lines(data: DataSet) -> list[str]:
    preparer = "volumes" if data.volumes else "images-masks"
    options: dict[str, Any] = {**data.sources, "labels": ",".join(data.names), "modality": data.modality}
    if data.volumes:
        options |= {"window": list(data.window)} if data.window else {"intensity": "body"}
    elif data.convert:
        options["channels"] = data.channels
    comments = {
        "window": "what becomes black and white, in Hounsfield units: from the intensities inside the masks",
        "intensity": "how MR is scaled; `window: [low, high]` for fixed values",
        "channels": "the images differ: all are converted",
        **data.comments,
    }
    settings: dict[str, Any] = {"num_classes": len(data.names) + 1, "in_channels": data.channels}
    settings |= {} if data.volumes else {"images_2d": True}
    notes = {"num_classes": "with the background", "budgets": "or numbers of labelled images, such as [20, 80]"}
    lines = ["datasets:", "  mine:", "    prepare:"]
    lines.append(_line(6, "preparer", preparer, f"its options: tskd prepare {preparer} -h"))
    lines.append("      options:")
    lines += [_line(8, key, value, comments.get(key, "")) for key, value in options.items()]
    lines += [comments["group-pattern"]] if "group-pattern" in comments else []
    lines += [_line(4, key, value, notes.get(key, "")) for key, value in {**settings, "budgets": ["all"]}.items()]
    return lines


def _line(indent: int, key: str, value: Any, comment: str = "") -> str:
    text = value if isinstance(value, str) else json.dumps(value).replace('"', "")
    text = _text(text) if isinstance(value, str) else text
    line = f"{' ' * indent}{key}: {text}"
    return f"{line:<40}  # {comment}" if comment else line


def _text(value: str) -> str:
    """Return a text in YAML: bare where that reads as the same text."""
    return value if re.fullmatch(r"[A-Za-z/][\w/., -]*", value) and value.strip() == value else json.dumps(value)


def _setting(line: str, data: DataSet) -> str:
    """Return a line of the template with the sizes, structures and weights of this study."""
    line = re.sub(r"(teacher: .*image_size: )(\d+)", lambda m: f"{m[1]}{max(int(m[2]), data.size)}", line)
    line = re.sub(r"(student: .*image_size: )(\d+)", lambda m: f"{m[1]}{data.size}", line)
    if data.measured is not None and "memory_format" in (faster := data.measured.faster()):
        layout = f"memory_format: {faster['memory_format'][0]}"  # changes no result but by rounding
        line = re.sub(r"^(  student: \{.*)\}", lambda m: f"{m[1]}, {layout}}}", line)
    if "largest_component: [" in line:
        remark = (
            "? only the largest piece of each is kept; "
            if data.one_piece
            else "structures of which everybody has one; "
        )
        line = re.sub(r"\[.*", f"{list(data.one_piece)}  # {remark}[] for lesions, tumours and vessels", line)
    if data.weights is None or "vfm: mobile_sam," not in line:
        return line
    weights = f"vfm: mobile_sam, weights: {json.dumps(data.weights)},"
    return line.partition("   #")[0].replace("vfm: mobile_sam,", weights)


def _as_measured(line: str, measured: Measured | None) -> list[str]:
    """Return remarks below the student's line: what is faster here and changes results, so that the user decides."""
    advice = [] if measured is None else [text for text in measured.advice() if not text.startswith("memory_format")]
    if measured is None or not advice or not line.startswith("  student: {"):
        return []
    where = f"{measured.name or measured.device}, at {measured.image_size} px"
    head = f"  # faster here for a student ({where}; tskd doctor --speed), if put into the line above:"
    return [head, *(f"  #   {text}" for text in advice)]
