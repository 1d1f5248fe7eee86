"""Where a training step's time goes: input, forward, loss, backward, optimiser, average; beside the baseline.

Two copies of a network take turns on one random batch: ours as `engine/training/` steps it (channels last), the
baseline's with the memory format that torch starts with, the loss of `benchmarks/baseline.py`, and clipping, optimiser
and average tensor by tensor. Medians of the turns.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from benchmarks.baseline import baseline_average, baseline_loss
from benchmarks.loss import HYP, scene
from benchmarks.measuring import BESIDE, Times, beside, report, rows_table
from models.yolo import DetectionModel
from utils.losses.detection import DetectionLoss, scale_gains
from utils.training.ema import ModelEMA
from utils.training.optimizer import smart_optimizer

OPTIONS = {"cfg": "yolov5_MobileNetv2.yaml", "imgsz": 320, "batch": 16, "nc": 80, "threads": 2, "repeats": 7}
OPTIONS |= {"device": "cpu"}


class Side:
    """A copy of `net` with what steps it: our way, or the baseline's."""

    def __init__(self, net: Any, gains: dict[str, Any], device: torch.device, baseline: bool = False) -> None:
        self.baseline = baseline
        self.format = torch.contiguous_format if baseline else torch.channels_last
        self.net = copy.deepcopy(net).to(device).to(memory_format=self.format).train()
        self.criterion = DetectionLoss(self.net, gains)
        self.optimizer = smart_optimizer(self.net, lr=1e-4, momentum=0.937, decay=5e-4)
        self.ema = ModelEMA(self.net)
        if baseline:
            for group in self.optimizer.param_groups:
                group.update(foreach=False, fused=False)

    def step(self, images: torch.Tensor, targets: torch.Tensor) -> Iterator[str]:
        """One training step, which gives the name of each of its parts when that part is done."""
        inputs = images.to(memory_format=self.format).float().div_(255)
        yield "input"
        predictions = self.net(inputs)
        yield "forward"
        if self.baseline:
            loss = baseline_loss(predictions, targets, self.criterion.head, self.criterion.hyp)
        else:
            loss = self.criterion(predictions, targets)[0]
        yield "loss"
        loss.backward()
        yield "backward"
        clip_grad_norm_(self.net.parameters(), 10.0, foreach=False if self.baseline else None)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        yield "optimiser"
        if self.baseline:
            baseline_average(self.ema.ema, self.net, 0.9999)
        else:
            self.ema.update(self.net)
        yield "average"

    def timed(self, images: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Seconds of each part of a step, and of the whole `step`; waits for the device behind each part."""
        wait = torch.cuda.synchronize if images.is_cuda else lambda: None
        wait()
        start = last = time.perf_counter()
        found = {}
        for part in self.step(images, targets):
            wait()
            found[part], last = time.perf_counter() - last, time.perf_counter()
        return {**found, "step": last - start}


def main(options: Any) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    net = DetectionModel(options.cfg, nc=options.nc)
    gains = scale_gains(dict(HYP), 3, options.nc, (options.imgsz, options.imgsz))
    size = (options.batch, 3, options.imgsz, options.imgsz)
    images = torch.randint(256, size, dtype=torch.uint8, device=device)
    objects = 12 * options.batch  # a mosaic of COCO images has about so many
    targets = scene(options.batch, 64, options.nc, objects, options.device)[2]

    sides = [Side(net, gains, device), Side(net, gains, device, baseline=True)]
    turns = [[side.timed(images, targets) for side in sides] for _ in range(options.repeats + 2)]
    pair = [*zip(*turns[2:], strict=True)]  # ours, the baseline's; by then allocators and caches are warm
    rows = {part: beside(*(Times([laps[part] for laps in own], []) for own in pair)) for part in turns[0][0]}
    for row in rows.values():
        row["share"] = row["ms"] / rows["step"]["ms"]
    report(options, rows, rows_table("part", rows, {**BESIDE, "share": ("share", "{:.0%}")}))
