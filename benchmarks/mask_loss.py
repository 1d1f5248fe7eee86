"""The mask term of the segmentation loss, forward and backward: seconds and memory beside the straightforward version.

    python benchmarks/mask_loss.py [--batch 16] [--imgsz 640] [--targets 192 1000] [--threads 2] [--repeats 3]

Each row is a process of its own: its memory is the peak less what the process held when its inputs were ready. "Without
values" is the way of a GPU, which is never waited for: every row of padding over the whole picture, here on the CPU,
for its memory. Prints a table and writes ``benchmarks/results/mask_loss.json``. To reach: 1000 objects in a batch of 16
at 640 within 1 GB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import benchmark_parser, conditions, peak_memory, positive, report, run_process, table
from utils.cli import run_command
from utils.errors import UserError

VERSIONS = ("straightforward", "SegmentationLoss", "without values")
NM = 32


def step_of(version: str, batch: int, imgsz: int, targets: int) -> Callable[[], float]:
    """One forward and backward pass of the mask term over a made-up batch of one class; returns its value."""
    import torch

    from benchmarks.baseline import plain_mask_loss
    from benchmarks.loss import HYP, scene
    from utils.losses import detection
    from utils.losses.segmentation import SegmentationLoss

    head, predictions, objects = scene(batch, imgsz, 1 + NM, targets)
    head.nc = 1
    objects[:, 1] = 0
    side = imgsz // 4
    prototypes = torch.randn(batch, NM, side, side, requires_grad=True)
    kind = torch.float32 if version == "straightforward" else torch.uint8
    masks = torch.randint(2, (targets, side, side), dtype=kind)
    criterion = SegmentationLoss(head, HYP, overlap=False)
    if version == "without values":
        detection.values_are_at_hand = lambda tensor: False

    def step() -> float:
        for leaf in (*predictions, prototypes):
            leaf.grad = None
        if version == "straightforward":
            loss = plain_mask_loss(predictions, prototypes, objects, masks, head, HYP["anchor_t"])
        else:
            loss = criterion.mask_term(criterion.detection.match(predictions, objects), prototypes, objects, masks)
        loss.backward()
        return loss.item()

    return step


def measure(version: str, options: argparse.Namespace, targets: int) -> dict[str, Any]:
    """Seconds (the quickest), megabytes above the inputs, and the value, which all versions must agree on."""
    import torch

    torch.set_num_threads(options.threads)
    step = step_of(version, options.batch, options.imgsz, targets)
    before, times, value = peak_memory(), [], 0.0
    for _ in range(1 if version == "without values" else options.repeats):
        start = time.perf_counter()
        value = step()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "mb": peak_memory() - before, "value": value}


def main() -> None:
    """Measure each version in its own process, print, write."""
    parser = benchmark_parser(__doc__, "mask_loss", batch=16, imgsz=640, threads=2, repeats=3)
    parser.add_argument("--targets", type=positive, nargs="+", default=[192, 1000])
    parser.add_argument("--version", choices=VERSIONS, help=argparse.SUPPRESS)  # measure one, in this process
    options = parser.parse_args()
    if options.version:
        print(json.dumps(measure(options.version, options, options.targets[0])))
        return
    names = ("batch", "imgsz", "threads", "repeats")
    rows: dict[str, dict[str, Any]] = {}
    cells, failed = [], []
    for targets in options.targets:
        first = None
        for version in VERSIONS:
            words = [f"--{name}={getattr(options, name)}" for name in names]
            try:
                done = run_process([sys.executable, __file__, *words, f"--targets={targets}", f"--version={version}"])
            except UserError as error:  # killed for its memory, most likely
                failed.append(f"- {targets} objects, {version}: {error}")
                continue
            row = rows[f"{targets} objects, {version}"] = json.loads(done.output.splitlines()[-1])
            first = first or row
            assert abs(row["value"] - first["value"]) < 1e-4 * abs(first["value"]), (row, first)
            cells.append([f"{targets} objects, {version}", f"{row['seconds']:.3f}", f"{row['mb']:.0f}",
                          f"{first['seconds'] / row['seconds']:.2f}×", f"{first['mb'] / row['mb']:.2f}×"])  # fmt: skip
    text = table(["mask term", "s", "peak MB", "ratio", "memory"], cells)
    text += "\n\nNot measured:\n\n" + "\n".join(failed) if failed else ""
    report(options.output, conditions(**{name: getattr(options, name) for name in names}), rows, text)


if __name__ == "__main__":
    run_command(main)
