"""Segment files and DICOM series with a shipped bundle."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tskd.data.io.identities import without_identity
from tskd.errors import TskdError, user_message
from tskd.files import atomic
from tskd.predict.choose_backend import BACKENDS, Backend, load_backend
from tskd.predict.find_cases import Case, CaseList, find_cases
from tskd.predict.mask_overlay import write_overlay
from tskd.predict.organ_codes import Code, read_codes
from tskd.predict.read_case import LoadedImage, read_case
from tskd.predict.shipped_bundle import ShippedBundle, read_bundle
from tskd.predict.write_mask import FORMATS, mask_path, write_mask

COLUMNS = ("input", "mask", "seconds", "warnings", "error")  # of summary.csv, before those of the structures


def predict(
    bundle: str | Path,
    inputs: Sequence[str | Path],
    output: str | Path,
    mask_format: str | None = None,
    backend: str = "auto",
    device: str | None = None,
    batch_size: int = 8,
    overlay: bool = False,
    overwrite: bool = False,
    codes: str | Path | None = None,
) -> int:
    """Segment every image among `inputs`, and write masks, summary.csv and if wanted pictures of them.

    A file that cannot be segmented costs a line on the console and in summary.csv; the rest goes on. Rows of earlier
    runs stay in summary.csv where their masks do, and where an image had none and is not segmented now.

    Args:
        bundle: folder that `tskd ship` wrote.
        inputs: files and folders.
        output: folder of the masks.
        mask_format: nifti, png, dicom-seg or same; None is NIfTI for volumes and PNG for pictures.
        backend: auto, torch, onnx or onnx-int8; `load_backend` says what auto is.
        device: such as "cuda" or "cpu"; None is CUDA where there is one with torch, and the CPU with ONNX.
        batch_size: slices of a volume in one step.
        overlay: write a PNG of the mask over the image beside each mask.
        overwrite: replace masks that are there.
        codes: JSON file with the codes of structures for DICOM SEG, name -> [value, scheme, meaning].

    Returns:
        0, or 1 if any image could not be segmented.

    Raises:
        TskdError: before the first image: no such bundle or input, masks that are there already, a summary.csv of
            another kind, an unknown option.
    """
    for name, value, allowed in (("format", mask_format, (None, *FORMATS)), ("backend", backend, BACKENDS)):
        if value not in allowed:
            raise TskdError(f"--{name}: expected one of {', '.join(filter(None, allowed))}, found {value!r}.")
    if batch_size < 1:
        raise TskdError(f"--batch-size: expected at least 1 slice, found {batch_size}.")
    shipped, output = read_bundle(bundle), Path(output)
    user_codes = read_codes(codes) if codes is not None else None
    case_list = find_cases(inputs, output)
    _refuse_overwriting(case_list.cases, output, mask_format, overwrite)
    earlier = _earlier_rows(output)
    model = load_backend(shipped, backend, device, batch_size)
    rows, written = [], []
    for case in (bar := tqdm(case_list.cases, unit="image", disable=None)):
        bar.set_postfix_str(Path(case.stem).name)
        row = _segment_case(case, shipped, model, output, mask_format, overlay, user_codes)
        if row["error"]:
            bar.write(f"error: {row['error']}")
        rows.append(row)
        written.append(_anonymised(row, case))
        _write_summary(output / "summary.csv", earlier, written)
    _print_summary(case_list, rows, output)
    return 1 if any(row["error"] for row in rows) else 0


def _anonymised(row: dict[str, Any], case: Case) -> dict[str, Any]:
    """Return a row of summary.csv with codes in place of names, ids, dates and UIDs.

    The names of the case and of its mask have their codes already: coded once more, they would name no file.
    """
    written_name = case.written_name or case.display_name
    texts = {
        key: written_name.join(without_identity(part, case.identity) for part in row[key].split(case.display_name))
        for key in ("warnings", "error")
    }
    return {**row, "input": written_name, **texts}


def _segment_case(
    case: Case,
    bundle: ShippedBundle,
    model: Backend,
    output: Path,
    mask_format: str | None,
    overlay: bool,
    codes: dict[str, Code] | None,
) -> dict[str, Any]:
    """Segment one case and return its row of summary.csv."""
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS, ""), "input": case.display_name}
    started = time.perf_counter()
    try:
        path = mask_path(output, case, mask_format)
        image = read_case(case, bundle)
        mask = model.mask(image.array, image.affine)
        warnings = [*image.warnings, *_write_case_mask(path, mask, image, case, bundle, codes)]
        counts = np.bincount(mask.ravel(), minlength=max(bundle.labels) + 1)
        warnings += [f"no {name} found" for index, name in bundle.structures.items() if not counts[index]]
        if overlay:
            write_overlay(path.with_name(f"{path.name.split('_seg.')[0]}_overlay.png"), image, mask)
    except Exception as error:  # one image must not end the others' run
        message = user_message(error) or f"{case.display_name}: {type(error).__name__}: {error}"
        return {**row, "error": message if case.display_name in message else f"{case.display_name}: {message}"}
    row |= {"mask": path.relative_to(output).as_posix(), "warnings": "; ".join(warnings)}
    row["seconds"] = round(time.perf_counter() - started, 2)
    millilitres = None if image.affine is None else abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    for index, name in bundle.structures.items():
        row[f"{name} voxels"] = int(counts[index])
        row[f"{name} ml"] = "" if millilitres is None else round(int(counts[index]) * millilitres, 3)
    return row


def _write_case_mask(
    path: Path, mask: np.ndarray, image: LoadedImage, case: Case, bundle: ShippedBundle, codes: dict[str, Code] | None
) -> list[str]:
    if path.suffix != ".dcm":
        write_mask(path, mask, image)
        return []
    from tskd.predict.dicom_seg import write_seg

    return write_seg(path, mask, case.files, bundle, codes)


def _refuse_overwriting(cases: list[Case], output: Path, mask_format: str | None, overwrite: bool) -> None:
    existing = []
    for case in cases:
        try:
            path = mask_path(output, case, mask_format)
        except TskdError:  # said when it is this case's turn
            continue
        if path.exists():
            existing.append(path.name)
    if existing and not overwrite:
        raise TskdError(
            f"{output}: expected no masks of these images, found {len(existing)} ({', '.join(existing[:3])}). Choose "
            "another --output, or replace them: --overwrite"
        )


def _earlier_rows(output: Path) -> list[dict[str, Any]]:
    """Return the rows of an earlier run's summary.csv that have no mask, or one that is still there.

    Raises:
        TskdError: the file cannot be read, or is none of this command.
    """
    path = output / "summary.csv"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
        columns = lines[0] if lines else []
        if tuple(columns[: len(COLUMNS)]) != COLUMNS:
            raise ValueError(f"the columns {', '.join(columns)[:80] or 'of an empty file'}")
        if any(len(line) != len(columns) for line in lines):
            raise ValueError(f"lines that have not {len(columns)} columns")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise TskdError(
            f"{path}: expected no such file, or one that tskd predict wrote, found {error}. Move it away, or choose "
            "another --output."
        ) from error
    rows = [dict(zip(columns, line, strict=True)) for line in lines[1:]]
    return [row for row in rows if not row["mask"] or (output / row["mask"]).is_file()]


def _write_summary(path: Path, earlier: list[dict[str, Any]], written: list[dict[str, Any]]) -> None:
    """Write the earlier rows, but for those that new ones replace, then the new ones; structures in order of rows."""
    masks, inputs = {row["mask"] for row in written}, {row["input"] for row in written}
    rows = [row for row in earlier if (row["mask"] not in masks if row["mask"] else row["input"] not in inputs)]
    rows += written
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _print_summary(case_list: CaseList, rows: list[dict[str, Any]], output: Path) -> None:
    failed = [row for row in rows if row["error"]]
    print(f"{output}: {len(rows) - len(failed)} masks, {len(failed)} images that could not be segmented; summary.csv")
    for case, row in zip(case_list.cases, rows, strict=True):
        if case.identity and row["mask"]:  # files have a code in place of the patient
            print(f"  {case.display_name}: {row['mask']}")
        if row["warnings"]:
            print(f"  {row['mask']}: {row['warnings']}")
    for reason, names in case_list.skipped.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"  left out, {reason}: {'; '.join(names[:3])}{more}")
