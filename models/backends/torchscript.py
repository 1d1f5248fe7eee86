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
    """On any device, in the precision it was exported in.

    Such a file is a program in PyTorch's operators, which can write files and never end, and which begins to run while
    it is loaded.
    """

    is_program = True

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        self.metadata = read_metadata(path, _embedded(path))
        self.fp16 = self.metadata.half
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript; there is nothing to mend here
                self.module = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise unreadable(path, "TorchScript", error) from error

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        answer = self.module(images.half() if self.metadata.half else images.float())
        values = [answer] if isinstance(answer, Tensor) else answer
        return dict(zip(self.metadata.outputs, values, strict=True))


def _embedded(path: Path) -> bytes:
    """The metadata inside, read from the zip archive that the file is, before anything of the program runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{_METADATA_FILE}") and name.count("/") == 2]
            if not names:
                return b""
            with archive.open(names[0]) as entry:
                return entry.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, NotImplementedError, OSError) as error:
        raise unreadable(path, "TorchScript", error) from error
