"""Loss, forward and backward: `DetectionLoss` beside the baseline, in turns in one process.

The median of each, and the median ratio of the turns. (The reference took 106 ms on two quiet CPU cores.)
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.baseline import baseline_loss
from benchmarks.measuring import BESIDE, Row, beside, in_turns, report, rows_table
from utils.losses.detection import DetectionLoss

OPTIONS = {"batch": 16, "imgsz": 640, "nc": 80, "targets": 192, "threads": 2, "repeats": 20, "device": "cpu"}
ANCHORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
STRIDES = (8, 16, 32)
HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0}


def scene(batch: int, imgsz: int, nc: int, targets: int, device: str = "cpu", seed: int = 0) -> tuple:
    """A stand-in for the head, its random outputs, and random objects between 2 % and 60 % of the side."""
    torch.manual_seed(seed)
    stride = torch.tensor(STRIDES, dtype=torch.float32, device=device)
    anchors = torch.tensor(ANCHORS, dtype=torch.float32, device=device) / stride[:, None, None]
    head = SimpleNamespace(na=3, nl=3, nc=nc, anchors=anchors, stride=stride)
    shapes = [(batch, 3, imgsz // s, imgsz // s, 5 + nc) for s in STRIDES]
    predictions = [torch.randn(shape, device=device).requires_grad_() for shape in shapes]
    image, classes = torch.randint(batch, (targets, 1)), torch.randint(nc, (targets, 1))
    boxes = torch.cat((torch.rand(targets, 2), 0.02 + 0.58 * torch.rand(targets, 2) ** 2), 1)
    return head, predictions, torch.cat((image, classes, boxes), 1).to(device)


def main(options: Any) -> None:
    torch.set_num_threads(options.threads)
    head, predictions, targets = scene(options.batch, options.imgsz, options.nc, options.targets, options.device)
    criterion = DetectionLoss(head, HYP)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        for prediction in predictions:
            prediction.grad = None
        loss().backward()
        if targets.is_cuda:
            torch.cuda.synchronize()

    work = {
        "ours": lambda: step(lambda: criterion(predictions, targets)[0]),
        "baseline": lambda: step(lambda: baseline_loss(predictions, targets, head, HYP)),
    }
    rows: dict[str, Row] = {"DetectionLoss": beside(*in_turns(work, options.repeats, warm=2).values())}
    report(options, rows, rows_table("forward and backward", rows, BESIDE))
