"""Images of every kind that a user may give, read as (H, W, 3) uint8 RGB with a file name."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Union
from urllib.parse import urlsplit

import numpy as np
import torch

from utils.data.sources.image_io import UnreadableImage, read_image
from utils.downloads import download
from utils.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = Union[str, Path, Image, np.ndarray, torch.Tensor]  # noqa: UP007 (evaluated nowhere)


class ImageInput(NamedTuple):
    """An image to detect objects in: `pixels` (H, W, 3) uint8 RGB, and `file`, the name of its drawing (``.jpg``)."""

    pixels: np.ndarray
    file: str


def read_images(images: ImageLike | Sequence[ImageLike]) -> list[ImageInput]:
    """Read one image, or a list of images of any kinds and sizes; no two of them get the same file name.

    An image is a path or an http(s) address; a PIL image; an array (H, W, 3), (H, W, 4), (H, W) or (3, H, W) of
    0..255, RGB; or a tensor (3, H, W), 0..1 where it is floating point. Files and PIL images are turned upright as
    their EXIF data say. Raises `UserError` for anything else, and for an image that cannot be read.
    """
    entries = list(images) if isinstance(images, (list, tuple)) else [images]
    taken: set[str] = set()
    return [ImageInput(_pixels(entry, i), _file(entry, i, taken)) for i, entry in enumerate(entries)]


def _pixels(entry: Any, index: int) -> np.ndarray:
    if isinstance(entry, (str, Path)):
        return _read(str(entry))
    if isinstance(entry, np.ndarray):
        return _from_array(entry, f"image {index}")
    if isinstance(entry, torch.Tensor):
        scaled = entry.detach().float() * 255 if entry.is_floating_point() else entry
        return _from_array(scaled.cpu().numpy(), f"image {index}")
    if hasattr(entry, "convert"):  # a PIL image; PIL need not be imported for this test
        from PIL import ImageOps

        return np.array(ImageOps.exif_transpose(entry).convert("RGB"))
    raise UserError(
        f"image {index} is a {type(entry).__name__}; give a path, an address, a PIL image, an array (H, W, 3) RGB or a "
        "tensor"
    )


def _read(name: str) -> np.ndarray:
    if not is_address(name):
        return _decode(Path(name).expanduser(), name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = download(name, Path(folder) / "image", progress=False)
        except UserError as error:
            raise UserError(str(error).partition("; ")[0]) from error  # the rest says where to put the file
        return _decode(file, name)


def _decode(path: Path, name: str) -> np.ndarray:
    try:
        return np.ascontiguousarray(read_image(path)[..., ::-1])
    except UnreadableImage as error:
        raise UserError(f"{name}: {error}") from error


def is_address(name: str) -> bool:
    """True for an http(s) address."""
    return name.lower().startswith(("http://", "https://"))


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    """`array` as (H, W, 3) uint8. Numbers of other types are rounded; outside 0..255 they are a `UserError`."""
    shape = array.shape
    if array.ndim == 3 and shape[0] < 5 <= min(shape[1:]):  # channels first
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(f"{name} is an array of shape {shape}; expected (height, width, 3), RGB")
    if array.dtype != np.uint8:
        array = _to_bytes(array, name)
    if array.shape[2] == 1:
        array = array.repeat(3, 2)
    return np.ascontiguousarray(array[..., :3])


def _to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):
        raise UserError(f"{name} holds numbers from {low:g} to {high:g}; expected pixels of 0 to 255")
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise UserError(f"{name} holds numbers from {low:g} to {high:g}; multiply by 255, pixels are 0 to 255")
    return array.round().astype(np.uint8) if array.dtype.kind == "f" else array.astype(np.uint8)


def _file(entry: Any, index: int, taken: set[str]) -> str:
    """The name of the file or address that `entry` came from, else ``image0.jpg``; numbered where it is `taken`."""
    name = str(entry) if isinstance(entry, (str, Path)) else str(getattr(entry, "filename", ""))
    stem = PurePosixPath(urlsplit(name).path).stem if is_address(name) else Path(name).stem
    stem = stem or f"image{index}"
    file, number = f"{stem}.jpg", 1
    while file.lower() in taken:  # some file systems do not distinguish A from a
        number += 1
        file = f"{stem}-{number}.jpg"
    taken.add(file.lower())
    return file
