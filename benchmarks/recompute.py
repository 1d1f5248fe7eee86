"""What `train.py --recompute` saves and costs: peak memory and processor time of a training step, with and without.

Each way is a process of its own, on the CPU; the processes take turns, and the best step of each counts.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.loss import HYP, scene
from benchmarks.measuring import Row, measure_apart, peak_memory, report, rows_table
from benchmarks.train_step import Side
from models.yolo import DetectionModel
from utils.training.recomputation import set_recompute

OPTIONS = {"cfg": "yolov5_MobileNetv2.yaml", "imgsz": 320, "batch": 16, "threads": 2, "repeats": 2, "turns": 2}


def measure(options: Any) -> Row:
    """Peak megabytes of this process, and the least milliseconds of processor time of a step."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    net = set_recompute(DetectionModel(options.cfg), options.way == "recomputed")
    side = Side(net, dict(HYP), torch.device("cpu"))
    targets = scene(options.batch, 64, 80, 12 * options.batch)[2]
    images = torch.randint(256, (options.batch, 3, options.imgsz, options.imgsz), dtype=torch.uint8)
    seconds = []
    for _ in range(options.repeats + 1):
        start = time.process_time()
        for _ in side.step(images, targets):
            pass
        seconds.append(time.process_time() - start)
    return {"cpu_ms": 1e3 * min(seconds), "peak_mb": peak_memory()}


def main(options: Any) -> None:
    found: dict[str, list[Row]] = {"kept": [], "recomputed": []}
    for _ in range(options.turns):
        for way, own in found.items():
            own.append(measure_apart(measure, options, way=way))
    rows: dict[str, Row] = {
        way: {"cpu_ms": min(row["cpu_ms"] for row in own), "peak_mb": max(row["peak_mb"] for row in own)}
        for way, own in found.items()
    }
    rows["recomputed"]["hundredths"] = 100 * rows["recomputed"]["cpu_ms"] / rows["kept"]["cpu_ms"]
    columns = {"peak_mb": ("peak MB", "{:.0f}"), "cpu_ms": ("processor ms", "{:.0f}")}
    report(options, rows, rows_table("hidden tensors of a step", rows, columns))
