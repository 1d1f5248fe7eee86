"""A whole training epoch on the CPU: `train.py` as a process, seconds an epoch from its own log, and peak memory.

    python benchmarks/train_epoch.py [--data coco128.yaml] [--cfg yolov5_MobileNetv2.yaml] [--img 320] [--batch 16]

Prints a table and writes ``benchmarks/results/train_epoch.json``. The first epoch (workers start, first allocations) is
left out of the median. The peak is that of the main process; each loader worker adds to it what its pool holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Train, read the log, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("YOLO_TEST_DATA", ROOT.parent / "shared")) / "data" / "coco128.yaml"
    parser.add_argument("--data", default=str(data) if data.is_file() else "data/shapes.yaml")
    parser.add_argument("--cfg", default="yolov5_MobileNetv2.yaml")
    parser.add_argument("--img", default="320")
    parser.add_argument("--batch", default="16")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "train.py", "--noval", "--noplots", "--nosave", "--project", folder, "--device", "cpu"]
        for name, value in vars(options).items():
            words += [f"--{name}", str(value)]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        log = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(words)} failed:\n{log}")
    epochs = [float(seconds) for _, seconds in re.findall(r"^ +\d+/\d+ .* (\d+)/\1 in ([\d.]+) s", log, re.M)]
    result = {
        "epoch_s": round(statistics.median(epochs[1:]), 2),
        "peak_mb": round(usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)),
        "conditions": {**vars(options), "machine": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }
    print(f"{options.cfg} at {options.img}, batch {options.batch}, {options.workers} workers, {options.data}")
    print(f"{'seconds an epoch':>20}{'peak MB':>12}\n{result['epoch_s']:>20}{result['peak_mb']:>12}")
    print("to reach for yolov5_MobileNetv2 at 320, batch 16, on coco128: 22 s, 3500 MB (the reference: 28 s, 4700 MB)")
    target = ROOT / "benchmarks" / "results"
    target.mkdir(exist_ok=True)
    (target / "train_epoch.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
