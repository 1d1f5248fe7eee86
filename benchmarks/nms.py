"""Non-maximum suppression: ours beside torchvision's compiled one, on crowded made-up predictions.

    python benchmarks/nms.py [--images 4] [--threads 2] [--repeats 5]

Prints milliseconds an image (the quickest of the turns) for detection (confidence 0.25) and for validation (0.001,
several labels a box), whether both keep the same boxes, and what importing torchvision costs once more than torch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES: dict[str, dict[str, Any]] = {
    "detection": {"conf_thres": 0.25, "iou_thres": 0.45, "max_det": 1000},
    "validation": {"conf_thres": 0.001, "iou_thres": 0.6, "multi_label": True, "max_det": 300},
}


def crowd(objects: int = 60, copies: int = 60, candidates: int = 25200, nc: int = 80, seed: int = 0) -> Any:
    """(candidates, 5 + nc) predictions for 640 pixels: faint noise, and `copies` jittered boxes round each object."""
    import torch

    torch.manual_seed(seed)
    rows = torch.cat((torch.rand(candidates, 2) * 640, torch.rand(candidates, 2) * 100 + 10), 1)
    rows = torch.cat((rows, torch.rand(candidates, 1) ** 12 * 0.02, torch.rand(candidates, nc) ** 8 * 0.3), 1)
    where = torch.randperm(candidates)[: objects * copies]
    centre, size = torch.rand(objects, 2) * 640, torch.rand(objects, 2) * 150 + 20
    rows[where, :2] = centre.repeat_interleave(copies, 0) + torch.randn(len(where), 2) * 6
    rows[where, 2:4] = size.repeat_interleave(copies, 0) * (1 + 0.1 * torch.randn(len(where), 2)).clamp(0.5)
    rows[where, 4] = torch.rand(len(where))
    rows[where, 5 + torch.randint(nc, (objects,)).repeat_interleave(copies)] = torch.rand(len(where))
    return rows


def seconds_to_import(modules: str) -> float:
    """Of `modules` in a fresh interpreter, the quicker of two times."""
    code = f"import time; t = time.perf_counter(); import {modules}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    return min(float(run.stdout) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, value in (("images", 4), ("threads", 2), ("repeats", 5)):
        parser.add_argument(f"--{flag}", type=int, default=value)
    options = parser.parse_args()

    import torch
    import torchvision

    from benchmarks.loss import in_turns
    from utils.ops import nms as ours

    def compiled(boxes: Any, scores: Any, iou_thres: float, groups: Any = None, max_keep: int | None = None) -> Any:
        apart = boxes if groups is None else boxes + groups[:, None] * 7680
        return torchvision.ops.nms(apart, scores, iou_thres)[:max_keep]

    torch.set_num_threads(options.threads)
    batch = torch.stack([crowd(seed=seed) for seed in range(options.images)])
    own, kept = ours.nms, {}

    def step(name: str, rule: Any, case: dict[str, Any]) -> None:
        ours.nms = rule
        kept[name] = ours.non_max_suppression(batch, **case)

    print(f"{'':12} {'ours ms':>9} {'torchvision ms':>15} {'ratio':>7}  same boxes")
    for title, case in CASES.items():
        times = in_turns(
            {name: lambda n=name, r=rule, c=case: step(n, r, c) for name, rule in (("a", own), ("b", compiled))},  # type: ignore[misc]
            options.repeats,
        )
        a, b = (min(times[name]) / options.images for name in "ab")
        same = all(torch.equal(x, y) for x, y in zip(kept["a"], kept["b"], strict=True))
        print(f"{title:12} {a:9.1f} {b:15.1f} {b / a:6.2f}×  {same}")
    print(f"importing torchvision: {seconds_to_import('torch, torchvision') - seconds_to_import('torch'):.2f} s")


if __name__ == "__main__":
    main()
