"""Read and write PNG files of images in the project's order (x first), and contact sheets."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from tskd.files import atomic


def to_pixels(image: torch.Tensor) -> np.ndarray:
    """Convert C x X x Y in [0, 1], C = 1 or 3, to uint8 rows and columns: Y x X or Y x X x 3."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(pixels[0].T if pixels.shape[0] == 1 else pixels.transpose(2, 1, 0))


def write_image(path: str | os.PathLike[str], image: torch.Tensor) -> None:
    """Write C x X x Y in [0, 1] as an 8-bit PNG, atomically; MONAI's PILReader reads it back x first."""
    save(Image.fromarray(to_pixels(image)), path)


def write_labels(path: str | os.PathLike[str], labels: torch.Tensor) -> None:
    """Write a label map 1 x X x Y (uint8) as a grey PNG whose values are the classes."""
    save(Image.fromarray(np.ascontiguousarray(labels[0].T.cpu().numpy())), path)


def read_image(path: str | os.PathLike[str], channels: int | None = None) -> torch.Tensor:
    """Read an 8-bit image file as C x X x Y in [0, 1].

    Args:
        path: PNG or JPEG.
        channels: convert to 1 (grey) or 3; None keeps what the file has.
    """
    with Image.open(path) as picture:
        mode = picture.mode if channels is None else "L" if channels == 1 else "RGB"
        rows = torch.from_numpy(np.asarray(picture.convert(mode)).astype(np.float32) / 255)
    return rows.T[None] if rows.ndim == 2 else rows.permute(2, 1, 0)


def save(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture atomically, so that a file that is there is complete."""
    with atomic(path) as draft:
        picture.save(draft, format="PNG")


def contact_sheet(images: Sequence[torch.Tensor], columns: int = 8, captions: Sequence[str] = ()) -> Image.Image:
    """Arrange images C x X x Y of one size on black, row by row, with a line of text under each if given."""
    tiles = [to_pixels(image) for image in images]
    height, width = tiles[0].shape[:2]
    step_x, step_y = width + 2, height + 2 + (12 if captions else 0)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("L" if tiles[0].ndim == 2 else "RGB", (step_x * min(columns, len(tiles)), step_y * rows))
    draw = ImageDraw.Draw(sheet)
    for position, tile in enumerate(tiles):
        corner = position % columns * step_x, position // columns * step_y
        sheet.paste(Image.fromarray(tile), corner)
        if captions:
            draw.text((corner[0], corner[1] + height), captions[position], fill="white")
    return sheet
