"""How good a checkpoint or an exported file is, by the code of `val.py`; nothing is written."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from engine.validation.evaluation import check_classes
from engine.validator import ValidationResult, validate
from models.backends import DetectMultiBackend
from utils.data.index import build_index
from utils.data.loader import create_loader
from utils.data.spec import load_dataset

_TASKS = {task.name: task for task in (DetectionTask, SegmentationTask)}


def accuracy(
    weights: str | Path,
    data: str | Path,
    imgsz: tuple[int, int],
    device: torch.device,
    *,
    batch_size: int = 32,
    workers: int = 8,
    dnn: bool = False,
    fp16: bool = False,
    trust: bool = False,
) -> ValidationResult:
    """Score `weights` on the validation split of the data set YAML `data`, as `val.py` does, boxes or boxes and masks.

    Every image is letterboxed to the whole of `imgsz` (height, width), also where the network would take less, so that
    a checkpoint and the files made of it see the same. Raises `UserError` for what does not fit together.
    """
    model = DetectMultiBackend(weights, device, dnn=dnn, fp16=fp16, trust=trust)
    model.to(memory_format=torch.channels_last)  # as `Evaluation.prepare` does
    model.check(imgsz)
    task = _TASKS[model.task]()
    spec = load_dataset(data, need=("val",))
    check_classes(model.names, spec, str(weights))
    index = build_index(spec.split("val"), spec.nc, names=spec.names, polygons=task.polygons, prefix="val: ")
    loader = create_loader(
        index, imgsz, min(batch_size, len(index)), stride=model.stride, workers=workers, nc=spec.nc,
        polygons=task.polygons,
    )  # fmt: skip
    return validate(model, loader, task, names=spec.names, device=device)
