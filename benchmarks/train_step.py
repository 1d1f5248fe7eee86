"""Where a training step's time goes: input, forward, loss, backward, optimiser, average; and the straightforward way.

    python benchmarks/train_step.py [--cfg yolov5_MobileNetv2.yaml] [--imgsz 320] [--batch 16] [--threads 2]
    python benchmarks/train_step.py --device cuda --imgsz 640 --batch 64

Two copies of a network take turns on one random batch: ours as `engine/training/` steps it (channels last), the other
with the memory format that torch starts with, the loss of `benchmarks/baseline.py`, and clipping, optimiser and average
tensor by tensor. Medians of the turns.
"""

from __future__ import annotations

import copy
import itertools
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import benchmark_parser, conditions, figure, ratio, report, table
from utils.cli import run_command

PARTS = ("input", "forward", "loss", "backward", "optimiser", "average")


class Stopwatch:
    """Seconds between calls of `lap`; waits for the device first."""

    def __init__(self, device: Any) -> None:
        import torch

        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.stamps: list[float] = []
        self.lap()

    def lap(self) -> None:
        self.wait()
        self.stamps.append(time.perf_counter())

    @property
    def laps(self) -> list[float]:
        return [after - before for before, after in itertools.pairwise(self.stamps)]


class Side:
    """One way of stepping a copy of `net`; `plainly` the straightforward one."""

    def __init__(self, net: Any, gains: dict[str, Any], device: Any, plainly: bool) -> None:
        import torch

        from utils.losses.detection import DetectionLoss
        from utils.training.ema import ModelEMA
        from utils.training.optimizer import smart_optimizer

        self.device, self.plainly = device, plainly
        self.format = torch.contiguous_format if plainly else torch.channels_last
        self.net = copy.deepcopy(net).to(device).to(memory_format=self.format).train()
        self.criterion = DetectionLoss(self.net, gains)
        self.optimizer = smart_optimizer(self.net, lr=1e-4, momentum=0.937, decay=5e-4)
        self.ema = ModelEMA(self.net)
        if plainly:
            for group in self.optimizer.param_groups:
                group.update(foreach=False, fused=False)

    def step(self, images: Any, targets: Any) -> list[float]:
        """Seconds of each of `PARTS`."""
        import torch

        from benchmarks.baseline import plain_average, plain_loss

        watch, net = Stopwatch(self.device), self.net
        inputs = images.to(memory_format=self.format).float().div_(255)
        watch.lap()
        predictions = net(inputs)
        watch.lap()
        if self.plainly:
            loss = plain_loss(predictions, targets, self.criterion.head, self.criterion.hyp)
        else:
            loss = self.criterion(predictions, targets)[0]
        watch.lap()
        loss.backward()
        watch.lap()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0, foreach=False if self.plainly else None)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        watch.lap()
        if self.plainly:
            plain_average(self.ema.ema, net, 0.9999)
        else:
            self.ema.update(net)
        watch.lap()
        return watch.laps


def measure(options: Any) -> dict[str, dict[str, Any]]:
    """For each part, and the whole, milliseconds of each side and their ratio."""
    import torch

    from benchmarks.loss import HYP
    from models.yolo import DetectionModel
    from utils.losses.detection import scale_gains

    torch.manual_seed(0)
    device = torch.device(options.device)
    net = DetectionModel(options.cfg, nc=options.nc)
    gains = scale_gains(dict(HYP), 3, options.nc, (options.imgsz, options.imgsz))
    images = torch.randint(256, (options.batch, 3, options.imgsz, options.imgsz), dtype=torch.uint8, device=device)
    objects = 12 * options.batch  # a mosaic of COCO pictures has about so many
    image, classes = torch.randint(options.batch, (objects, 1)), torch.randint(options.nc, (objects, 1))
    boxes = torch.cat((torch.rand(objects, 2), 0.02 + 0.58 * torch.rand(objects, 2) ** 2), 1)
    targets = torch.cat((image, classes, boxes), 1).to(device)

    sides = {"ours": Side(net, gains, device, plainly=False)}
    if not options.ours:
        sides["plain"] = Side(net, gains, device, plainly=True)
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for repeat in range(options.repeats + 2):
        for name, side in sides.items():
            laps = side.step(images, targets)
            if repeat >= 2:  # allocators and caches are warm
                seconds[name].append([*laps, sum(laps)])
    columns = {
        name: dict(zip((*PARTS, "step"), zip(*rows, strict=True), strict=True)) for name, rows in seconds.items()
    }
    rows: dict[str, dict[str, Any]] = {part: {"ms": 1e3 * median(own)} for part, own in columns["ours"].items()}
    for part, plain in columns.get("plain", {}).items():
        rows[part] |= {"plain_ms": 1e3 * median(plain), "ratio": ratio(plain, columns["ours"][part])}
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "train_step", imgsz=320, batch=16, nc=80, threads=2, repeats=7)
    parser.add_argument("--cfg", default="yolov5_MobileNetv2.yaml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ours", action="store_true", help="leave the straightforward way out")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    rows = measure(options)
    names = ("cfg", "imgsz", "batch", "nc", "device", "threads", "repeats")
    share = rows["step"]["ms"]
    cells = [[part, f"{row['ms']:.1f}", f"{row['ms'] / share:.0%}", figure(row.get("plain_ms")),
              figure(row.get("ratio"), 2, "×")] for part, row in rows.items()]  # fmt: skip
    told = conditions(**{name: getattr(options, name) for name in names})
    report(options.output, told, rows, table(["part", "ours ms", "share", "straightforward ms", "ratio"], cells))


if __name__ == "__main__":
    run_command(main)
