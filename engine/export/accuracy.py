"""Measures the accuracy of a checkpoint or an exported file with the code of `val.py`. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from engine.validation.evaluation import check_classes
from engine.validation.validator import ValidationResult, validate
from models.backends import DetectMultiBackend
from models.export_metadata import ExportMetadata
from utils.data.indexing.index import build_index
from utils.data.loader import create_loader
from utils.data.spec import load_dataset
from utils.errors import UserError
from utils.logging import LOGGER

MOST_LOST = 0.03  # how much mAP50 may fall in 8 bits without a warning
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
    **nms: Any,
) -> ValidationResult:
    """Evaluate `weights` on the validation split of the data set YAML `data`, as `val.py` does.

    Every image is letterboxed to exactly `imgsz` (height, width), even where the network would take a smaller one, so
    that a checkpoint and the files made from it see the same pixels. `nms` replaces `conf_thres`, `iou_thres` and
    `max_det` of `validate`. Raises `UserError` where weights, data and size do not fit together.
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
    return validate(model, loader, task, names=spec.names, device=device, **nms)


def report_loss(
    checkpoint: Path,
    files: Sequence[Path],
    data: str,
    metadata: ExportMetadata,
    device: torch.device,
    *,
    trust: bool = False,
) -> None:
    """Log the accuracy of `checkpoint` and of the 8-bit `files` made from it on `data`, and warn of large losses.

    A file of layout "nms" is compared with the checkpoint at the thresholds of the file. Where `data` does not allow
    the measurement, for example because it has no labels, there is a warning instead, since it may still be good enough
    for calibration.
    """
    size = metadata.imgsz[0], metadata.imgsz[1]
    nms: dict[str, Any] = {
        "conf_thres": metadata.conf_thres,
        "iou_thres": metadata.iou_thres,
        "max_det": metadata.max_det,
    }
    results = {}
    try:
        for path in (checkpoint, *files):
            LOGGER.info(f"Accuracy of {path}")
            # no worker processes: the converters have started threads, with which a fork may hang
            results[path.name] = accuracy(
                path, data, size, device, workers=0, trust=trust, **nms if metadata.layout == "nms" else {}
            )
    except UserError as error:
        LOGGER.warning(f"the accuracy in 8 bits was not measured: {error}")
        return
    table = accuracy_table(results, _TASKS[metadata.task]())
    LOGGER.info(f"Before and after, on {data} at {size[0]}×{size[1]}:\n{table}")
    more = "" if metadata.layout == "raw" else "--raw-heads, "
    for path in files:
        lost = most_lost(results[checkpoint.name], results[path.name])
        if lost > MOST_LOST:
            LOGGER.warning(
                f"{path.name} lost {lost:.3f} mAP50; try {more}another format, or a --data with more images, "
                f"similar to those in use"
            )


def accuracy_table(results: Mapping[str, ValidationResult], task: DetectionTask) -> str:
    """A table with one line for each of `results`: P, R, mAP50 and mAP50-95 for each metric group of `task`."""
    heads = [f"{metric}{group}" for group in task.metric_groups for metric in ("P", "R", "mAP50", "mAP50-95")]
    width = max(map(len, results))
    lines = [" " * width + "".join(f"{head:>13}" for head in heads)]
    lines += [f"{name:{width}}" + "".join(f"{v:>13.3f}" for v in result.means) for name, result in results.items()]
    return "\n".join(lines)


def most_lost(before: ValidationResult, after: ValidationResult) -> float:
    """The largest loss in mAP50, of boxes or of masks."""
    return max(b.map50 - a.map50 for b, a in zip(before.groups, after.groups, strict=True))
