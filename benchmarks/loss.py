"""Loss, forward and backward: `DetectionLoss` beside the straightforward version, in turns in one process.

    python benchmarks/loss.py [--batch 16] [--imgsz 640] [--nc 80] [--targets 192] [--threads 2] [--device cpu]

Prints the quickest and the median of each and their ratio. The reference took 106 ms on two quiet CPU cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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


def in_turns(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each step, `repeats` times, the steps taking turns so that a noisy machine is noisy for all."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 2:  # the first two warm allocator and caches up
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, value in (("batch", 16), ("imgsz", 640), ("nc", 80), ("targets", 192), ("threads", 2), ("repeats", 20)):
        parser.add_argument(f"--{flag}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    import torch

    from benchmarks.baseline import plain_loss
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

    times = in_turns(
        {
            "straightforward": lambda: step(lambda: plain_loss(predictions, targets, head, HYP)),
            "DetectionLoss": lambda: step(lambda: criterion(predictions, targets)[0]),
        },
        options.repeats,
    )
    print(f"{'':16} {'min ms':>8} {'median ms':>10} {'ratio of min':>13}")
    for name, values in times.items():
        ratio = min(times["straightforward"]) / min(values)
        print(f"{name:16} {min(values):8.1f} {statistics.median(values):10.1f} {ratio:12.2f}×")


if __name__ == "__main__":
    main()
