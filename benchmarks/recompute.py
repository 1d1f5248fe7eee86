"""What `train.py --recompute` saves and costs: peak memory and processor time of a training step, with and without.

    python benchmarks/recompute.py [--cfg yolov5_MobileNetv2.yaml] [--imgsz 320] [--batch 16] [--threads 2]

Each way is a process of its own, on the CPU; the processes take turns, and the best step of each counts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import benchmark_parser, conditions, peak_memory, report, run_process, table

WAYS = ("kept", "recomputed")


def measure(options: Any) -> dict[str, float]:
    """Peak megabytes of this process, and the least milliseconds of processor time of a step."""
    import torch

    from benchmarks.loss import HYP, scene
    from benchmarks.train_step import Side
    from models.yolo import DetectionModel
    from utils.training.recomputation import set_recompute

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    net = set_recompute(DetectionModel(options.cfg), options.way == "recomputed")
    side = Side(net, dict(HYP), torch.device("cpu"), plainly=False)
    targets = scene(options.batch, 64, 80, 12 * options.batch)[2]
    images = torch.randint(256, (options.batch, 3, options.imgsz, options.imgsz), dtype=torch.uint8)
    best = float("inf")
    for _ in range(options.repeats + 1):
        start = time.process_time()
        side.step(images, targets)
        best = min(best, time.process_time() - start)
    return {"cpu_ms": 1e3 * best, "peak_mb": peak_memory()}


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "recompute", imgsz=320, batch=16, threads=2, repeats=2, turns=2)
    parser.add_argument("--cfg", default="yolov5_MobileNetv2.yaml")
    parser.add_argument("--way", choices=WAYS, help="measure this one here, and print it")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options)))
        return
    flags = [w for name in ("imgsz", "batch", "threads", "repeats") for w in (f"--{name}", getattr(options, name))]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.turns):
        for way in WAYS:
            words = [sys.executable, __file__, "--cfg", options.cfg, *flags, "--way", way]
            found[way].append(json.loads(run_process(words).output.splitlines()[-1]))
    rows: dict[str, dict[str, float]] = {
        way: {"cpu_ms": min(turn["cpu_ms"] for turn in turns), "peak_mb": max(turn["peak_mb"] for turn in turns)}
        for way, turns in found.items()
    }
    rows["recomputed"]["hundredths"] = 100 * rows["recomputed"]["cpu_ms"] / rows["kept"]["cpu_ms"]
    cells = [[way, f"{row['peak_mb']:.0f}", f"{row['cpu_ms']:.0f}"] for way, row in rows.items()]
    text = table(["hidden tensors of a step", "peak MB", "processor ms"], cells)
    report(options.output, conditions(cfg=options.cfg, imgsz=options.imgsz, batch=options.batch), rows, text)


if __name__ == "__main__":
    main()
