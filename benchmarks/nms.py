"""Non-maximum suppression: ours beside the straightforward way with torchvision's compiled kernel.

    python benchmarks/nms.py [--weights yolov5n.pt] [--data coco128.yaml] [--images 16] [--threads 2] [--repeats 7]

On what a network predicts for validation pictures, letterboxed to squares; or, --made-up, on crowded predictions, or,
--made-up dense, on random ones of which most are above every threshold.
Milliseconds an image for validation (confidence 0.001, several labels a box) and for detection (0.25, the best label),
whether both keep the same boxes, and what importing torchvision costs once more than torch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import benchmark_parser, conditions, figure, in_turns, ratio, report, sample, table
from utils.cli import run_command

CASES: dict[str, dict[str, Any]] = {
    "validation": {"conf_thres": 0.001, "iou_thres": 0.6, "multi_label": True, "max_det": 300},
    "detection": {"conf_thres": 0.25, "iou_thres": 0.45, "max_det": 1000},
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


def dense(candidates: int = 25200, nc: int = 80, seed: int = 0) -> Any:
    """(candidates, 5 + nc) predictions for 640 pixels, all numbers random: what a network before its training says."""
    import torch

    torch.manual_seed(seed)
    rows = torch.rand(candidates, 5 + nc)
    rows[:, :2] *= 640
    rows[:, 2:4] *= 200
    return rows


def predicted(weights: str, data: str, imgsz: int, images: int) -> Any:
    """(images, N, 5 + nc): what `weights` predict for the first validation pictures of `data`."""
    import torch

    from models.backends import DetectMultiBackend
    from utils.data.loader import create_loader
    from utils.data.spec import load_dataset

    spec = load_dataset(data)
    loader = create_loader(spec.splits["val"], imgsz, min(images, 8), workers=0, nc=spec.nc)
    model, found = DetectMultiBackend(weights, device=torch.device("cpu")), []
    with torch.inference_mode():
        for batch in loader:
            found.append(model(batch.images.float() / 255)[0])
            if sum(map(len, found)) >= images:
                break
    return torch.cat(found)[:images]


def seconds_to_import(modules: str) -> float:
    """Of `modules` in a fresh interpreter, the quicker of two times."""
    code = f"import time; t = time.perf_counter(); import {modules}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    return min(float(run.stdout) for run in runs)


def measure(decoded: Any, repeats: int, plainly: bool) -> dict[str, dict[str, Any]]:
    """For each of `CASES` milliseconds an image; with the straightforward way the ratio, and whether boxes agree."""
    import torch

    from benchmarks.baseline import plain_suppression
    from utils.ops.nms import non_max_suppression

    rows = {}
    for title, case in CASES.items():
        kept: dict[str, Any] = {}

        def ours(kept: dict[str, Any] = kept, case: dict[str, Any] = case) -> None:
            kept["ours"] = non_max_suppression(decoded, **case)

        def plain(kept: dict[str, Any] = kept, case: dict[str, Any] = case) -> None:
            kept["plain"] = plain_suppression(decoded, **case)

        times = in_turns({"ours": ours, **({"plain": plain} if plainly else {})}, repeats)
        rows[title] = {"ms": times["ours"].ms / len(decoded)}
        if plainly:
            rows[title] |= {
                "plain_ms": times["plain"].ms / len(decoded),
                "ratio": ratio(times["plain"].wall, times["ours"].wall),
                "same": all(torch.allclose(a, b, atol=1e-4) if a.shape == b.shape else False
                            for a, b in zip(kept["ours"], kept["plain"], strict=True)),
            }  # fmt: skip
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "nms", images=16, imgsz=640, threads=2, repeats=7)
    parser.add_argument("--weights", default=sample("weights/yolov5n.pt", "yolov5n.pt"))
    parser.add_argument("--data", default=sample("data/coco128.yaml", "coco128.yaml"))
    parser.add_argument("--made-up", nargs="?", const="crowd", choices=["crowd", "dense"],
                        help="crowded, or dense, made-up predictions; no weights needed")  # fmt: skip
    parser.add_argument("--ours", action="store_true", help="leave the straightforward way out")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    if options.made_up:
        make: Any = {"crowd": crowd, "dense": dense}[options.made_up]
        decoded, of = torch.stack([make(seed=seed) for seed in range(options.images)]), f"made up, {options.made_up}"
    else:
        of = f"of {Path(options.weights).name} for {Path(options.data).stem}"
        decoded = predicted(options.weights, options.data, options.imgsz, options.images)
    rows = measure(decoded, options.repeats, not options.ours)
    told = conditions(
        predictions=of, images=len(decoded), imgsz=options.imgsz, threads=options.threads, repeats=options.repeats,
    )  # fmt: skip
    cells = [[title, f"{row['ms']:.2f}", figure(row.get("plain_ms"), 2), figure(row.get("ratio"), 2, "×"),
              {True: "yes", False: "no", None: "–"}[row.get("same")]] for title, row in rows.items()]  # fmt: skip
    text = table(["an image", "ours ms", "straightforward ms", "ratio", "same boxes"], cells)
    if not options.ours:
        more = seconds_to_import("torch, torchvision") - seconds_to_import("torch")
        text += f"\n\nimporting torchvision takes {more:.2f} s more than importing torch"
        rows["import torchvision"] = {"seconds": more}
    report(options.output, told, rows, text)


if __name__ == "__main__":
    run_command(main)
