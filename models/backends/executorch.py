"""ExecuTorch files (.pte), run by its Python runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.backends.runtime import Runtime, library, read_metadata, unreadable


class ExecuTorch(Runtime):
    """Runs on the CPU, in the precision of the export."""

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        self.metadata = read_metadata(path)
        self.fp16 = self.metadata.half
        module = library("executorch.runtime", path, "executorch")
        try:
            self.program = module.Runtime.get().load_program(str(path))
            self.method = self.program.load_method("forward")
        except (RuntimeError, ValueError) as error:
            raise unreadable(path, "ExecuTorch", error) from error

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        values = self.method.execute([images.cpu().float().contiguous()])
        # the runtime may reuse the memory of its outputs
        return {n: v.clone().to(images.device) for n, v in zip(self.metadata.outputs, values, strict=True)}
