"""Core ML packages, run by macOS."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.backends.runtime import Runtime, library, read_metadata, unreadable
from models.export_metadata import KEY
from utils.errors import UserError


class CoreMl(Runtime):
    """Runs images one by one, on the processor that macOS chooses."""

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        if platform.system() != "Darwin":
            raise UserError(f"{path} runs only on macOS; on this system, give the checkpoint (.pt) or an .onnx of it")
        tools = library("coremltools", path)
        try:
            self.package = tools.models.MLModel(str(path))
        except (RuntimeError, ValueError, OSError) as error:
            raise unreadable(path, "Core ML", error) from error
        self.metadata = read_metadata(path, self.package.user_defined_metadata.get(KEY))
        self.fp16 = self.metadata.half
        self.input = self.package.get_spec().description.input[0]

    def run(self, images: np.ndarray) -> Sequence[np.ndarray]:
        answers = [self._run_one(image) for image in images]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    def _run_one(self, image: np.ndarray) -> list[np.ndarray]:
        value: object = image[None]
        if self.input.type.WhichOneof("Type") == "imageType":
            from PIL import Image

            value = Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8))
        answer = self.package.predict({self.input.name: value})
        return [np.asarray(answer[name]) for name in self.metadata.outputs]
