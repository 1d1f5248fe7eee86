"""TorchScript files, run by PyTorch."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path

import torch
from torch import Tensor

from models.backends.runtime import Runtime, read_metadata, unreadable
from models.export_metadata import KEY, MOST_BYTES

_METADATA_FILE = f"{KEY}.json"


class TorchScript(Runtime):
    """Runs on any device, in the precision of the export.

    Such a file is a program of PyTorch's operators. It can write files or run forever, and it begins to run while it is
    loaded.
    """

    is_program = True

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        self.metadata = read_metadata(path, _embedded(path))
        self.fp16 = self.metadata.half
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript
                self.module = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise unreadable(path, "TorchScript", error) from error

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        answer = self.module(images.half() if self.metadata.half else images.float())
        values = [answer] if isinstance(answer, Tensor) else answer
        return dict(zip(self.metadata.outputs, values, strict=True))


def _embedded(path: Path) -> bytes:
    """The metadata inside the file, read from its zip archive before any of the program runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            ending = f"/extra/{_METADATA_FILE}"
            names = [name for name in archive.namelist() if name.endswith(ending) and name.count("/") == 2]
            if not names:
                return b""
            with archive.open(names[0]) as entry:
                return entry.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, NotImplementedError, OSError) as error:
        raise unreadable(path, "TorchScript", error) from error
