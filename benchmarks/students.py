r"""What a shipped student costs where it runs, by network and backend, as a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/students.py --size 128 --students lite_unet flexible_unet train

Each network has random weights, which cost what trained ones do, and is exported to ONNX and int8 (calibrated on a
virtual patient). Each row is a process of its own that reads the bundle, and segments slices and one volume, of
256 x 256 x 36 voxels by default, from file to file. Milliseconds are the least of several rounds.
Absolute numbers are this machine's; the ratios to PyTorch are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STUDENTS = ("lite_unet", "flexible_unet", "train", "segresnet", "basic_unet", "swin_unetr")
BACKENDS = ("torch", "onnx", "onnx-int8")
COLUMNS = ("student", "backend", "MB", "load s", "ms a slice", "ms of 8", "times as fast", "file to mask s", "peak MiB")


def main(arguments: Sequence[str] | None = None) -> None:
    """Export every student, measure every backend, and print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=STUDENTS, help="configs of the student's bundle")
    parser.add_argument("--size", type=int, default=128, help="pixels along a side of the network's image")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--volume", nargs=2, type=int, default=(256, 36), help="pixels of a slice's side, and slices")
    parser.add_argument("--measure", nargs=3, metavar=("BUNDLE", "BACKEND", "VOLUME"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        bundle, backend, volume = options.measure
        print(json.dumps(measure(bundle, backend, volume, options.rounds)))
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        data = _write_data(Path(folder), *options.volume)
        for student in options.students:
            bundle = _ship(student, data, Path(folder) / student / "bench_segmentation", options.size)
            reference = 0.0
            for backend in BACKENDS:
                command = [sys.executable, __file__, "--rounds", str(options.rounds), "--measure"]
                command += [str(bundle), backend, str(data.parent / "v.nii.gz")]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row = json.loads(done.stdout.splitlines()[-1])
                reference = reference or row["one"]
                numbers = [f"{row[key]:.1f}" for key in ("megabytes", "load", "one", "eight")]
                numbers += [f"{reference / row['one']:.1f}", f"{row['volume']:.1f}", f"{row['peak']:.0f}"]
                print("| " + " | ".join([student, backend, *numbers]) + " |", flush=True)


def measure(bundle: str, backend: str, volume: str, rounds: int) -> dict[str, float]:
    """Return MB of the file, seconds to load, ms of one slice and of eight, seconds of a volume, MiB at the peak."""
    began = time.perf_counter()
    import numpy as np

    from tskd.predict.choose_backend import load_backend
    from tskd.predict.find_cases import Case
    from tskd.predict.read_case import read_case
    from tskd.predict.shipped_bundle import read_bundle
    from tskd.predict.write_mask import write_mask

    shipped = read_bundle(bundle)
    model = load_backend(shipped, backend, "cpu", 8)
    loaded = time.perf_counter() - began
    if backend == "torch":
        from tskd.export.verify_export import run_torch

        network, file = run_torch(model.network), shipped.model  # type: ignore[attr-defined]
    else:
        from tskd.predict.onnx_backend import FILES

        network, file = model.pipeline.network, shipped.root / "models" / FILES[backend]  # type: ignore[attr-defined]
    images = np.random.default_rng(0).random((8, shipped.channels, shipped.image_size, shipped.image_size), np.float32)
    one, eight = (min(_milliseconds(network, images[:n]) for _ in range(rounds)) for n in (1, 8))
    began = time.perf_counter()
    path = Path(volume)
    image = read_case(Case((path,), "nifti", volume, "v"), shipped)
    write_mask(Path(bundle).with_name("mask.nii.gz"), model.mask(image.array, image.affine), image)
    return {
        "megabytes": file.stat().st_size / 1e6,
        "load": loaded,
        "one": one,
        "eight": eight,
        "volume": time.perf_counter() - began,
        "peak": _peak(),
    }


def _peak() -> float:
    """Return the most memory this process has had, in MiB (Linux); getrusage would count that of the one before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _milliseconds(network: Callable[[Any], object], batch: Any) -> float:
    began = time.perf_counter()
    network(batch)
    return (time.perf_counter() - began) * 1000


def _write_data(folder: Path, side: int, slices: int) -> Path:
    """Write a dataset.json of one virtual patient's slices, and a volume as a file."""
    import numpy as np

    from tskd.data import datalist, virtual_patient, write_slices, write_volume
    from tskd.data.io.intensity import PERCENTILES

    image, label, affine = virtual_patient(seed=1, number=0, image_size=side, num_slices=slices)
    write_volume(folder / "v.nii.gz", image, affine)
    write_volume(folder / "v_label.nii.gz", label.astype(np.uint8), affine)
    entry = {"image": "v.nii.gz", "label": "v_label.nii.gz", "group": "v", "case": "v"}
    names = {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"}
    training = write_slices(folder, "p", PERCENTILES.scale(image), label.astype(np.uint8))
    lists = {"training": training, "unlabelled": [], "validation": [], "test": [entry]}
    header = {"name": "bench", "modality": "MR", "channels": 1, "labels": names, "provenance": {}, **lists}
    datalist.write(folder / "dataset.json", {**header, "intensity": PERCENTILES.to_json()})
    return folder / "dataset.json"


def _ship(student: str, data: Path, output: Path, size: int) -> Path:
    """Ship an untrained student and export it; the random masks of int8 are not compared."""
    import torch
    from monai.bundle import ConfigParser

    from tskd.export.exporter import export_network, pytorch_network
    from tskd.export.network_files import write_int8, write_onnx
    from tskd.export.ship import ship_student
    from tskd.export.verify_export import calibration_images
    from tskd.predict.shipped_bundle import read_bundle

    bundle = ROOT / "bundles" / "student_segmentation"
    parser = ConfigParser()
    names = ["train.json", *([f"{student}.json"] if student != "train" else [])]
    parser.read_config([str(bundle / "configs" / name) for name in names])
    parser.update({"image_size": size, "num_classes": 5})
    torch.manual_seed(0)
    output.parent.mkdir(parents=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), output.parent / "model.pt")
    overlay = names[1] if len(names) > 1 else None
    ship_student(bundle, output.parent / "model.pt", output, data, size, overlay)
    shipped = read_bundle(output)
    export_network(output, "onnx")
    source = output.parent / "float.onnx"
    write_onnx(pytorch_network(shipped), shipped, source)
    write_int8(source, calibration_images(shipped, data, 16), output / "models" / "model_int8.onnx")
    return output


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
