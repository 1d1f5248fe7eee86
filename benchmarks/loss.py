"""Loss, forward and backward: `DetectionLoss` beside the straightforward version, in turns in one process.

    python benchmarks/loss.py [--batch 16] [--imgsz 640] [--nc 80] [--targets 192] [--threads 2] [--device cpu]

Prints the median of each, and the median ratio of the turns. (The reference took 106 ms on two quiet CPU cores.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import benchmark_parser, conditions, figure, in_turns, ratio, report, table
from utils.cli import run_command

ANCHORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
STRIDES = (8, 16, 32)
HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0}


def scene(batch: int, imgsz: int, nc: int, targets: int, device: str = "cpu", seed: int = 0) -> tuple:
    """A stand-in for the head, its random outputs, and random objects between 2 % and 60 % of the side."""
    import torch

    torch.manual_seed(seed)
    stride = torch.tensor(STRIDES, dtype=torch.float32, device=device)
    anchors = torch.tensor(ANCHORS, dtype=torch.float32, device=device) / stride[:, None, None]
    head = SimpleNamespace(na=3, nl=3, nc=nc, anchors=anchors, stride=stride)
    predictions = [
        torch.randn(batch, 3, imgsz // s, imgsz // s, 5 + nc, device=device).requires_grad_() for s in STRIDES
    ]
    image, classes = torch.randint(batch, (targets, 1)), torch.randint(nc, (targets, 1))
    boxes = torch.cat((torch.rand(targets, 2), 0.02 + 0.58 * torch.rand(targets, 2) ** 2), 1)
    return head, predictions, torch.cat((image, classes, boxes), 1).to(device)


def launches(head: SimpleNamespace, predictions: list, targets: Any) -> dict[str, int]:
    """How many kernels the loss would launch on a GPU, forward and backward, where padding stays."""
    from unittest import mock

    from benchmarks.launches import Launches
    from utils.losses import detection, gather

    for prediction in predictions:
        prediction.grad = None  # nothing to add to
    with (
        mock.patch.object(detection, "values_are_at_hand", return_value=False),
        mock.patch.object(gather, "values_are_at_hand", return_value=False),
    ):
        with Launches() as forward:
            loss = detection.DetectionLoss(head, HYP)(predictions, targets)[0]
        with Launches() as backward:
            loss.backward()
    return {"forward": forward.total, "backward": backward.total}


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "loss", batch=16, imgsz=640, nc=80, targets=192, threads=2, repeats=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ours", action="store_true", help="leave the straightforward way out")
    options = parser.parse_args()

    import torch

    from utils.losses.detection import DetectionLoss

    torch.set_num_threads(options.threads)
    head, predictions, targets = scene(options.batch, options.imgsz, options.nc, options.targets, options.device)
    criterion = DetectionLoss(head, HYP)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        for prediction in predictions:
            prediction.grad = None
        loss().backward()
        if targets.is_cuda:
            torch.cuda.synchronize()

    work = {"DetectionLoss": lambda: step(lambda: criterion(predictions, targets)[0])}
    if not options.ours:
        from benchmarks.baseline import plain_loss

        work["straightforward"] = lambda: step(lambda: plain_loss(predictions, targets, head, HYP))
    times = in_turns(work, options.repeats, warm=2)
    rows: dict[str, Any] = {name: {"ms": own.ms} for name, own in times.items()}
    if not options.ours:
        rows["DetectionLoss"]["ratio"] = ratio(times["straightforward"].wall, times["DetectionLoss"].wall)
    counted = rows["launches"] = launches(head, predictions, targets)
    names = ("batch", "imgsz", "nc", "targets", "device", "threads", "repeats")
    cells = [[name, f"{row['ms']:.1f}", figure(row.get("ratio"), 2, "×")] for name, row in rows.items() if "ms" in row]
    told = conditions(**{name: getattr(options, name) for name in names})
    text = table(["forward and backward", "ms", "× straightforward"], cells)
    text += f"\n\nA GPU would launch {counted['forward']} kernels forward and {counted['backward']} backward."
    report(options.output, told, rows, text)


if __name__ == "__main__":
    run_command(main)
