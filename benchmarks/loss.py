"""Loss, forward and backward: `DetectionLoss` beside the baseline, in turns in one process.

The median of each, and the median ratio of the turns; and how many kernels of ours a GPU would launch. (The reference
took 106 ms on two quiet CPU cores.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.baseline import baseline_loss
from benchmarks.measuring import BESIDE, Row, beside, in_turns, report, rows_table
from utils.losses import detection, gather
from utils.losses.detection import DetectionLoss

OPTIONS = {"batch": 16, "imgsz": 640, "nc": 80, "targets": 192, "threads": 2, "repeats": 20, "device": "cpu"}
ANCHORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
STRIDES = (8, 16, 32)
HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0}


# These make a tensor without computing anything, or compute on the host.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "promote_types", "_unsafe_view"}


class Launches(TorchDispatchMode):
    """Counts aten's operations below autograd, by name, that make or write values: not views, nor memory left empty.

    A few of them, such as a sort, are several kernels on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        aliases = [result.alias_info for result in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases) and name not in _FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


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


def launches(loss: Callable[[], torch.Tensor]) -> Row:
    """Kernels of the forward and the backward pass of `loss` on a GPU, where no value is read in between."""
    name = "values_are_at_hand"
    with mock.patch.object(detection, name, return_value=False), mock.patch.object(gather, name, return_value=False):
        with Launches() as forward:
            value = loss()
        with Launches() as backward:
            value.backward()
    return {"forward": forward.counts.total(), "backward": backward.counts.total()}


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
    for prediction in predictions:
        prediction.grad = None  # nothing to add to
    rows["launches"] = counted = launches(lambda: criterion(predictions, targets)[0])
    told = "A GPU would launch {forward} kernels forward and {backward} backward.".format(**counted)
    timed = {"DetectionLoss": rows["DetectionLoss"]}
    report(options, rows, f"{rows_table('forward and backward', timed, BESIDE)}\n\n{told}")
