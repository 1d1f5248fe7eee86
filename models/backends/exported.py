"""`ExportedBackend` calls exported files through the interface of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backends.layouts import as_model_output
from models.backends.runtime import Runtime, shape_text
from utils.errors import UserError, first_line, refusal
from utils.logging import LOGGER


class ExportedBackend:
    """Runs one exported file: checks the images, splits batches to the size it takes, and converts its outputs.

    `model` is the `Runtime`. `fp16` tells whether it computes in half precision; where that was asked for but the file
    cannot do it, there is a warning. A file that is a program is opened only with `trust`.
    """

    def __init__(
        self, kind: type[Runtime], path: Path, device: torch.device, fp16: bool = False, trust: bool = False
    ) -> None:
        self.path = path
        if kind.is_program and not trust:
            raise UserError(
                f"{path} is a {kind.__name__} program, which can do whatever PyTorch can, write files for example; if "
                "you made it yourself or trust who did, pass --trust (from Python: trust=True)"
            )
        self.model = kind(path, device, fp16)
        self.metadata = metadata = self.model.metadata
        self.fp16 = self.model.fp16
        if fp16 and not self.fp16:
            LOGGER.warning(f"{path} computes in float32; for half precision export the checkpoint with --half")
        self.names, self.task, self.dynamic = metadata.names, metadata.task, metadata.dynamic
        self.stride = max(*metadata.strides, 32)
        if metadata.layout == "nms":
            LOGGER.info(
                f"{path} suppresses by itself: confidence above {metadata.conf_thres}, IoU {metadata.iou_thres}, at "
                f"most {metadata.max_det} detections per image; thresholds that allow more find nothing more"
            )

    def check(self, size: Sequence[int], augment: bool = False, visualize: Any = False) -> None:
        """Raise `UserError` where images of `size` (height, width) do not fit, or an option needs a checkpoint."""
        for flag, wanted in (("--augment", augment), ("--visualize", visualize)):
            if wanted:
                raise UserError(f"{self.path}: {flag} needs the checkpoint (.pt), not a file exported from it")
        fixed = tuple(self.metadata.imgsz)
        if not self.dynamic and tuple(size) != fixed:
            given, own = (" ".join(map(str, dict.fromkeys(s) if s[0] == s[1] else s)) for s in (tuple(size), fixed))
            raise UserError(
                f"{self.path} takes images of {fixed[0]}×{fixed[1]} only, not {size[0]}×{size[1]}: give --imgsz {own}, "
                f"or export the checkpoint again with --imgsz {given} or --dynamic"
            )

    def __call__(self, im: Tensor, augment: bool = False, visualize: Any = False) -> tuple[Any, ...]:
        """The output of `as_model_output` for images (B, 3, H, W), RGB 0..1."""
        self.check(im.shape[2:], augment, visualize)
        images = im.float()
        if self.dynamic:
            return as_model_output(self._run(images), self.metadata)
        pieces = [self._run_padded(piece) for piece in images.split(self.metadata.batch)]
        outputs = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        return as_model_output(outputs, self.metadata)

    def _run_padded(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs for at most `metadata.batch` images; black images fill the batch and are left out again."""
        count = len(images)
        filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, self.metadata.batch - count))
        return {name: value[:count] for name, value in self._run(filled).items()}

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs of the file for `images`, in the shapes that its metadata promises.

        Raises `UserError` where the library cannot run it, and where the shapes are others, because such outputs would
        be read as random boxes.
        """
        try:
            outputs = self.model(images)
        except Exception as error:  # each library has its own exceptions
            if refusal(error):
                raise
            raise UserError(
                f"{self.path} cannot be run on images of {shape_text(images.shape)}: {first_line(error)}"
            ) from error
        for name, expected in self.metadata.shapes(len(images), images.shape[2], images.shape[3]).items():
            shape = tuple(outputs[name].shape)
            if len(shape) != len(expected) or any(e not in (None, n) for n, e in zip(shape, expected, strict=True)):
                raise UserError(
                    f"{self.path}: its metadata promise {name} of {shape_text(expected)}, but the network gives "
                    f"{shape_text(shape)}: they belong to different networks; export the checkpoint again"
                )
        return outputs
