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
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

VERSIONS = ("straightforward", "SegmentationLoss", "without values")
NM = 32


def peak_mb() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


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
        detection._values_are_at_hand = lambda tensor: False

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
    before, times, value = peak_mb(), [], 0.0
    for _ in range(1 if version == "without values" else options.repeats):
        start = time.perf_counter()
        value = step()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "mb": peak_mb() - before, "value": value}


def main() -> None:
    """Measure each version in its own process, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, value in (("batch", 16), ("imgsz", 640), ("threads", 2), ("repeats", 3)):
        parser.add_argument(f"--{flag}", type=int, default=value)
    parser.add_argument("--targets", type=int, nargs="+", default=[192, 1000])
    parser.add_argument("--version", choices=VERSIONS, help=argparse.SUPPRESS)  # measure one, in this process
    options = parser.parse_args()
    if options.version:
        print(json.dumps(measure(options.version, options, options.targets[0])))
        return
    rows = []
    print(f"{'objects':>8}  {'':18}{'seconds':>9}{'peak MB':>9}{'ratio':>8}{'memory':>9}")
    for targets in options.targets:
        for version in VERSIONS:
            words = [f"--{name}={getattr(options, name)}" for name in ("batch", "imgsz", "threads", "repeats")]
            words += [f"--targets={targets}", f"--version={version}"]
            done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
            if done.returncode:
                print(f"{targets:8}  {version:18} failed: {(done.stderr.splitlines() or ['killed'])[-1]}")
                continue
            row = {"targets": targets, "version": version, **json.loads(done.stdout)}
            rows.append(row)
            first = next(each for each in rows if each["targets"] == targets)
            assert abs(row["value"] - first["value"]) < 1e-4 * abs(first["value"]), (row, first)
            ratios = f"{first['seconds'] / row['seconds']:7.2f}×{first['mb'] / row['mb']:8.2f}×"
            print(f"{targets:8}  {version:18}{row['seconds']:9.3f}{row['mb']:9.0f}{ratios}", flush=True)
    machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    conditions = {name: getattr(options, name) for name in ("batch", "imgsz", "threads", "repeats")} | machine
    target = ROOT / "benchmarks" / "results"
    target.mkdir(exist_ok=True)
    text = json.dumps({"conditions": conditions, "rows": rows}, indent=1)
    (target / "mask_loss.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
