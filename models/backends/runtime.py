"""`Runtime`, the base class of the runtimes for exported files, and what they share."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from models.export_metadata import KEY, MOST_BYTES, ExportMetadata
from utils.errors import UserError, first_line


class Runtime:
    """An exported file that a library runs.

    `metadata` are those of the file. `fp16` tells whether it computes in half precision, asked for or not. A subclass
    reads the file in its constructor, and defines `run`. Raises `UserError` for a file that cannot be read.
    """

    metadata: ExportMetadata
    is_program: ClassVar[bool] = False  # True: the file can run arbitrary operations, so users must trust it
    dtype: type[np.generic] = np.float32  # of the images that `run` gets

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        self.path, self.device, self.fp16 = path, device, False

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs, by the names in `metadata.outputs`, for images (B, 3, H, W), RGB 0..1, that fit `metadata`."""
        values = self.run(np.ascontiguousarray(images.cpu().numpy(), self.dtype))
        named = zip(self.metadata.outputs, values, strict=True)
        return {name: torch.from_numpy(np.array(value)).to(images.device) for name, value in named}

    def run(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """The outputs for `images`, in the order of `metadata.outputs`."""
        raise NotImplementedError


def library(name: str, path: Path, package: str = "") -> Any:
    """Import the module `name`. Raises `UserError` that names the `package` to install for `path`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = package or name.split(".")[0]
        raise UserError(f"{path} needs {package}, which cannot be imported ({error}): pip install {package}") from error


def read_metadata(path: Path, embedded: str | bytes | None = None, beside: Sequence[Path] = ()) -> ExportMetadata:
    """The metadata of `path`: those `embedded` in it, else those in the JSON file of `path` or of one of `beside`."""
    if embedded:
        return ExportMetadata.from_json(embedded, path)
    places = [Path(f"{place}.json") for place in (path, *beside)]
    for place in places:
        if place.is_file():
            with place.open("rb") as file:
                return ExportMetadata.from_json(file.read(MOST_BYTES + 1), place)
    raise UserError(
        f"{path} does not say how it was exported (classes, anchors, layout): it has no metadata '{KEY}', and "
        f"there is no {' or '.join(map(str, places))}; make it with python export.py from the checkpoint"
    )


def check_outputs_named(path: Path, metadata: ExportMetadata, found: Iterable[str]) -> None:
    """Raise `UserError` where the file lacks an output that its metadata promise."""
    if missing := set(metadata.outputs) - set(found):
        raise UserError(f"{path} lacks the outputs {', '.join(sorted(missing))} of layout '{metadata.layout}'")


def unreadable(path: Path, kind: str, error: object) -> UserError:
    """The error for a file that its library refuses, with the first line of the library's message."""
    return UserError(f"{path} is no {kind} file, or a broken one: {first_line(error)}; export the checkpoint again")


def shape_text(sizes: Sequence[int | None]) -> str:
    """A shape as text, such as ``1×3×any×any``; "nothing" for a shape without dimensions."""
    return "×".join("any" if size is None else str(size) for size in sizes) or "nothing"


def in_order(names: Sequence[str]) -> list[int]:
    """The positions of `names`, sorted by the number that they end with: out0, out1, …, out10."""
    return sorted(range(len(names)), key=lambda i: int("".join(c for c in names[i][-3:] if c.isdigit()) or 0))
