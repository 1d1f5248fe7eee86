"""TorchScript files, run by PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from models.backends.runtime import Runtime, read_card, unreadable
from models.cards import KEY

_CARD = f"{KEY}.json"


class TorchScript(Runtime):
    """On any device, in the precision it was exported in."""

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        extra = {_CARD: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript; there is nothing to mend here
                self.module = torch.jit.load(str(path), map_location=device, _extra_files=extra).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise unreadable(path, "TorchScript", error) from error
        self.card = read_card(path, extra[_CARD])
        self.fp16 = self.card.half

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        answer = self.module(images.half() if self.card.half else images.float())
        values = [answer] if isinstance(answer, Tensor) else answer
        return dict(zip(self.card.outputs, values, strict=True))
