"""TorchScript: a traced network, which LibTorch runs without Python."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from engine.export.job import Job
from engine.export.suppression import select_by_loop
from models.cards import KEY, ModelCard
from utils.errors import UserError


def check(job: Job) -> None:
    """Raises `UserError` for what this format cannot do."""
    if job.card.half and job.device.type == "cpu":
        raise UserError(
            "--half: TorchScript of half precision is made and run on a GPU; give --device 0, or leave --half out"
        )


@torch.no_grad()
def write(job: Job, path: Path) -> None:
    """Write `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but what LibTorch reads; and the tracer warns of every size
        select = torch.jit.script(select_by_loop) if job.card.layout == "nms" else None
        traced = torch.jit.trace(job.network(select), (job.example(),), strict=False, check_trace=False)
        extra = {f"{KEY}.json": job.card.to_json(), "config.txt": _for_yolov5(job.card)}
        torch.jit.save(traced, str(path), _extra_files=extra)


def inspect(job: Job, path: Path) -> list[str]:
    """What the report tells of the file: nothing."""
    return []


def _for_yolov5(card: ModelCard) -> str:
    """What YOLOv5's own scripts look for."""
    return json.dumps(
        {"shape": [card.batch, 3, *card.imgsz], "stride": max(card.strides), "names": list(card.names.values())}
    )


class Reader:
    """A file that was just written, as its users will find it."""

    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {f"{KEY}.json": ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.network = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        self.card = ModelCard.from_json(extra[f"{KEY}.json"], path.name)
        self.device = device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) to the outputs by name."""
        images = images.to(self.device)
        answers = self.network(images.half() if self.card.half else images)
        answers = answers if isinstance(answers, (tuple, list)) else (answers,)
        return dict(zip(self.card.outputs, answers, strict=True))
