"""A shipped student, images to segment, and MONAI without this project: what the tests of the shipped bundle share."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.networks.nets import UNETR, DynUNet
from nibabel import affines, eulerangles, orientations
from PIL import ExifTags, Image
from torch import Tensor, nn
from torch.nn import functional as F

from tests import bare
from tskd.data import datalist, load_volume, to_lps, virtual_patient, write_volume
from tskd.data.io.intensity import PERCENTILES
from tskd.export.ship import ship_student
from tskd.export.unused_modules import without_modules
from tskd.networks.lite_unet import LiteUNet
from tskd.state import save_weights

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "student_segmentation"
IMAGE_SIZE = 32
LABELS = {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney"}

# Runs `python -m MODULE ARGUMENTS` for each command line of a JSON list, all in one process, in a folder that Python
# does not look into. The last line of its output has the exit status, the output and the errors of each.
COMMANDS = """
import contextlib, io, json, os, runpy, sys, traceback
os.chdir(sys.argv[1])
del sys.path[0]
results, path = [], list(sys.path)
for sys.argv in json.loads(sys.argv[2]):
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        del sys.modules[name]  # each bundle has its own
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            status = 1
            traceback.print_exc()
    results.append([status, out.getvalue(), err.getvalue()])
print()
print(json.dumps(results))
"""


def run_alone(*commands: list[str], cwd: Path) -> list[subprocess.CompletedProcess[str]]:
    """Runs command lines of modules without the project, PYTHONPATH and the current folder."""
    with TemporaryDirectory() as folder:
        Path(folder, "commands.py").write_text(COMMANDS)
        done = bare.run(["commands", str(cwd), json.dumps(commands)], Path(folder))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    results = json.loads(done.stdout.splitlines()[-1])
    return [subprocess.CompletedProcess(command, *result) for command, result in zip(commands, results, strict=True)]


def segmentation(bundle: Path, images: Path, output: Path, *overlays: str) -> list[str]:
    """Command line that segments a folder of images with a shipped bundle's inference.json."""
    files = [str(bundle / "configs" / name) for name in ("inference.json", *overlays)]
    return [
        "monai.bundle", "run", "--config_file", str(files), "--bundle_root", str(bundle),
        "--dataset_dir", str(images), "--output_dir", str(output),
    ]  # fmt: skip


def student(in_channels: int = 1) -> nn.Module:
    """The bundle's network with fixed random weights, at another size and number of classes than its default.

    As it is shipped: without the norms that its masks do not depend on.
    """
    return without_modules(trained_student(in_channels), [f"vit.blocks.{i}.norm_cross_attn" for i in range(12)])


def trained_student(in_channels: int = 1) -> UNETR:
    """The same as a training leaves it."""
    torch.manual_seed(3)
    network = UNETR(
        in_channels, len(LABELS), (IMAGE_SIZE, IMAGE_SIZE), 8, 192, 768, 3, spatial_dims=2
    )  # img_size, feature_size, hidden_size, mlp_dim, num_heads
    return network.eval()


def lite_student(in_channels: int = 1) -> LiteUNet:
    """A network of the project's own with fixed random weights that sees every class somewhere."""
    torch.manual_seed(3)
    network, images = LiteUNet(in_channels, len(LABELS), [128, 64, 32, 16, 16]), torch.rand(4, in_channels, 64, 64)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        network(images)  # statistics of the batch norms
        network.eval().head.bias -= network(images).mean((0, 2, 3))
    return network


NEIGHBOURS = {"neighbour_slices": 1}
PATCHES = {"patch_size": [IMAGE_SIZE, IMAGE_SIZE, 8], "anisotropy": 3.0, "first_filters": 4}


def deep_student() -> DynUNet:
    """The network of volume.json with fixed random weights, for `PATCHES`."""
    torch.manual_seed(3)
    strides = [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 1]]
    kernels = [[3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    norm = ("INSTANCE", {"affine": True})
    return DynUNet(3, 1, len(LABELS), kernels, strides, strides[1:], [4, 8, 16, 32], norm_name=norm).eval()


def ship(
    folder: Path, kind: str, in_channels: int = 1, lite: bool = False, several: dict[str, Any] | None = None,
    flips: Sequence[str] = (), **header: Any,
) -> Path:  # fmt: skip
    """Ships an untrained student for volumes (kind "nii.gz") or images (kind "png"), a LiteUNet if `lite`.

    With `several` (`NEIGHBOURS`, then a LiteUNet, or `PATCHES`) one that sees several slices of volumes.
    `flips`: axes of mirrored images.
    """
    entry = {"image": f"a.{kind}", "label": f"a_label.{kind}", "group": "a", "case": "a"}
    lists: dict[str, list[dict[str, str]]] = {"training": [], "unlabelled": [], "validation": [], "test": [entry]}
    header = {"name": "toy", "modality": "MR", "channels": in_channels, "labels": LABELS, **header}
    datalist.write(folder / "dataset.json", {"provenance": {}, **header, **lists})
    output, overlay = folder / "student_segmentation", "lite_unet.json" if lite else None
    network = lite_student if lite else trained_student
    if several:
        overlay = "lite_unet.json" if several is NEIGHBOURS else "volume.json"
    weights = deep_student() if several is PATCHES else lite_student(3) if several else network(in_channels)
    save_weights(weights, folder / "weights.pt")
    data = folder / "dataset.json"
    size = IMAGE_SIZE
    return ship_student(BUNDLE, folder / "weights.pt", output, data, size, overlay, several=several, flips=flips)


def diffusion_run(folder: Path, size: int = 16) -> Path:
    """The run of an untrained diffusion model of colour images to maps of two classes, of the folder's dataset.json."""
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    from tskd.handlers.provenance import provenance
    from tskd.synthesis import DiffusionUNet, export_model

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = UNet2DModel(size, 5, 3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **blocks)
    scheduler = DDPMScheduler(100, beta_schedule="linear", prediction_type="epsilon")
    record = {"images": ["a1", "b2"], "label_maps": None, "pretrained_on": []}
    export_model(DiffusionUNet(unet).eval(), scheduler, folder / "run/models", record=record)
    settings = {"image_size": size, "prediction_type": "epsilon", "beta_schedule": "linear", "num_labelled": 7}
    made = {**provenance({"dataset_file": str(folder / "dataset.json")}), "settings": settings, "iterations": 12}
    made |= {"python": "3.11.7", "packages": {"torch": "2.13.0"}}
    (folder / "run/versions.json").write_text(json.dumps(made))
    return folder / "run"


def write_volumes(folder: Path) -> list[Path]:
    """One virtual patient in two axis orders, neither of them LPS: 46 x 40 voxels a slice, thick slices, oblique."""
    image, _, affine = virtual_patient(seed=5, number=0, image_size=52, num_slices=5)
    image, affine = image[4:50, 6:46], affine @ affines.from_matvec(np.eye(3), [4, 6, 0])
    tilt = eulerangles.euler2mat(z=0.1, y=0.05, x=-0.08)
    affine = affines.from_matvec(tilt, [3.0, -8.0, 11.0]) @ affine
    paths = []
    for axes in ("RAS", "SRP"):
        turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(axes)))
        turned = np.ascontiguousarray(orientations.apply_orientation(image, turn))
        paths.append(folder / f"{axes}.nii.gz")
        write_volume(paths[-1], turned, affine @ orientations.inv_ornt_aff(turn, image.shape))
        assert "".join(nib.aff2axcodes(nib.load(paths[-1]).affine)) == axes
    return paths


def write_picture(folder: Path, in_channels: int = 1) -> Path:
    """A PNG 56 pixels wide and 40 high with a bright corner at the upper right."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (40, 56, in_channels), dtype=np.uint8)
    pixels[:12, 30:] += 130
    path = folder / "picture.png"
    Image.fromarray(pixels.squeeze()).save(path)
    return path


def write_otherwise(picture: Path) -> None:
    """The same grey picture beside it in other modes, with a reversed palette, and turned as EXIF says."""
    grey = Image.open(picture)
    for mode in ("RGB", "RGBA", "LA"):
        grey.convert(mode).save(picture.with_stem(mode))
    reverse = Image.fromarray(255 - np.asarray(grey), "P")
    reverse.putpalette([255 - value // 3 for value in range(768)])  # index 0 is white
    reverse.save(picture.with_stem("palette"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees clockwise
    grey.transpose(Image.Transpose.ROTATE_90).save(picture.with_stem("turned"), exif=exif)


def probabilities(network: nn.Module, slices: Tensor) -> Tensor:
    """What the student gives for B x C x X x Y in [0, 1], in plain torch: B x classes x X x Y."""
    size = slices.shape[2:]
    with torch.no_grad():
        logits = network(F.interpolate(slices, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True))
    return F.interpolate(logits.softmax(1), size, mode="bilinear", align_corners=False)


def reference_mask(path: Path) -> np.ndarray:
    """The student's mask of a volume, in the file's axis order, without MONAI's transforms."""
    array, affine = load_volume(path)
    turned, place = to_lps(array, affine)
    slices = torch.from_numpy(PERCENTILES.scale(turned)).permute(2, 0, 1)[:, None]
    mask = probabilities(student(), slices).argmax(1).permute(1, 2, 0).numpy().astype(np.uint8)
    back = orientations.ornt_transform(orientations.io_orientation(place), orientations.io_orientation(affine))
    return orientations.apply_orientation(mask, back)


def reference_picture(path: Path, in_channels: int = 1, lite: bool = False) -> np.ndarray:
    """The student's mask of a picture, rows by columns."""
    network = lite_student(in_channels) if lite else student(in_channels)
    pixels = np.asarray(Image.open(path), dtype=np.float32).reshape(40, 56, in_channels) / 255
    columns_rows = torch.from_numpy(pixels).permute(2, 1, 0)[None]  # MONAI's order: x first
    return probabilities(network, columns_rows).argmax(1)[0].numpy().T.astype(np.uint8)
