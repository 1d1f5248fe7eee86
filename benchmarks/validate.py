"""Validation: where the time goes, and `val.py` as a whole process, both beside the baseline.

Parts, in one process, milliseconds per image: a bare loop of `cv2.imread` over the same files (to compare machines by),
reading and letterboxing them in one process, bytes to numbers, the network (fused), NMS with the settings of validation
(confidence 0.001, several labels per box) and of detection (0.25, the best label), matching with the labels, and the
average precision. NMS sees what the network predicts for images letterboxed to squares. Then `val.py`, as it is and
with the baseline's parts, from start to end, in turns. Medians.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import cv2
import torch

from benchmarks.baseline import baseline_average_precision, baseline_match, baseline_suppression
from benchmarks.measuring import BESIDE, DATA, RATIO, WEIGHTS, beside, command_in_turns, in_turns, report, rows_table
from engine.validation.threaded_inference import ThreadedInference
from engine.validation.validated_image import validated_images
from engine.validation.validator import IOU_THRESHOLDS
from models.backends import DetectMultiBackend
from utils.data.indexing.index import build_index
from utils.data.loader import create_loader
from utils.data.spec import load_dataset
from utils.metrics.average_precision import ap_per_class
from utils.metrics.matching import match_detections
from utils.ops.nms import non_max_suppression

OPTIONS = {"weights": WEIGHTS, "data": DATA, "imgsz": 640, "batch": 16, "images": 32, "threads": 2, "turns": 3}
NMS: dict[str, dict[str, Any]] = {
    "validation": {"conf_thres": 0.001, "iou_thres": 0.6, "multi_label": True, "max_det": 300},
    "detection": {"conf_thres": 0.25, "iou_thres": 0.45, "max_det": 1000},
}


def parts(model: Any, loader: Any, squares: Any, paths: list[str]) -> dict[str, Callable[[], object]]:
    """The parts as functions, each on what the one before gives for all of `loader`; NMS for `squares`, another."""
    baseline_model = copy.deepcopy(model)
    model.to(memory_format=torch.channels_last)
    inference = ThreadedInference(model, torch.device("cpu"), keep=lambda output: output[0])
    batches = list(loader)
    inputs = [batch.images.float() / 255 for batch in batches]
    decoded: list[Any] = [inference(images) for images in inputs]
    found = [non_max_suppression(output, **NMS["validation"]) for output in decoded]
    scenes = [scene for each in zip(batches, found, decoded, strict=True) for scene in validated_images(*each)]
    pairs = [(s.detections, s.labels, IOU_THRESHOLDS) for s in scenes]
    columns = zip(*((match_detections(*p), p[0][:, 4], p[0][:, 5], p[1][:, 0]) for p in pairs), strict=True)
    matched: Any = [torch.cat(column).numpy() for column in columns]
    work: dict[str, Callable[[], object]] = {
        "cv2.imread": lambda: [cv2.imread(path) for path in paths],
        "read and letterbox": lambda: list(loader),
        "bytes to numbers": lambda: [batch.images.float() / 255 for batch in batches],
        "network": lambda: [inference(images) for images in inputs],
        "network, baseline": lambda: [baseline_model(images)[0] for images in inputs],
        "matching": lambda: [match_detections(*pair) for pair in pairs],
        "matching, baseline": lambda: [baseline_match(*pair) for pair in pairs],
        "average precision": lambda: ap_per_class(*matched),
        "average precision, baseline": lambda: baseline_average_precision(*matched),
    }
    square = [inference(batch.images.float() / 255) for batch in squares]
    for name, options in NMS.items():
        for way, nms in (("", non_max_suppression), (", baseline", baseline_suppression)):
            work[f"NMS, {name}{way}"] = lambda nms=nms, options=options: [nms(output, **options) for output in square]  # type: ignore[misc]
    return work


def main(options: Any) -> None:
    torch.set_num_threads(options.threads)
    spec = load_dataset(options.data)
    index = build_index(spec.splits["val"], spec.nc, names=spec.names)
    index = index.select(range(min(options.images, len(index))))
    loader = create_loader(index, options.imgsz, options.batch, rect=True, pad=0.5, workers=0)
    squares = create_loader(index, options.imgsz, options.batch, workers=0)
    model = DetectMultiBackend(options.weights, device=torch.device("cpu"))
    with torch.inference_mode():
        times = in_turns(parts(model, loader, squares, index.paths), options.turns)
    names = [name for name in times if not name.endswith(", baseline")]
    rows = {name: beside(times[name], times.get(f"{name}, baseline"), images=len(index)) for name in names}
    flags = ["--weights", options.weights, "--data", options.data, "--imgsz", options.imgsz, "--batch", options.batch]
    whole = command_in_turns("val.py", flags, options.turns, lambda run: [run.seconds])
    columns = {"seconds": ("s", "{:.1f}"), "peak_mb": ("peak MB", "{:.0f}"), **RATIO}
    text = f"{rows_table('part, per image', rows, BESIDE)}\n\n{rows_table('whole process', whole, columns)}"
    report(options, {**rows, **whole}, text)
