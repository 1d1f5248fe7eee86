"""Whole-process time of `val.py`, beside how fast this machine reads the same pictures just now.

    python benchmarks/validate.py --weights yolov5n.pt --data coco128.yaml --runs 3

The reference (YOLOv5 v7, two quiet CPU cores, yolov5n.pt on coco128 at 640, batch 16): 22.0 s, where plain `cv2.imread`
of the 128 pictures ran at 345 images/s. A busy machine shows in the calibration line; compare ratios, not seconds.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.cli import CommandParser, run_command
from utils.files import ROOT
from utils.logging import LOGGER

REFERENCE_SECONDS = 22.0
REFERENCE_READS = 345.0  # images/s


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("Time val.py as a whole process")
    parser.add_argument("--weights", default="yolov5n.pt", help="checkpoint")
    parser.add_argument("--data", default="coco128.yaml", help="data set YAML")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels")
    parser.add_argument("--batch-size", type=int, default=16, help="images a batch")
    parser.add_argument("--runs", type=int, default=3, help="processes to time")
    return parser.parse_args(argv)


def read_rate(data: str) -> float:
    """Images/s of plain `cv2.imread` over the validation pictures of `data`, in one process."""
    import cv2

    from utils.data.index import build_index
    from utils.data.spec import load_dataset

    spec = load_dataset(data)
    paths = build_index(spec.splits["val"], spec.nc, names=spec.names).paths
    start = time.perf_counter()
    for path in paths:
        cv2.imread(path)
    return len(paths) / (time.perf_counter() - start)


def time_process(options: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak memory (MB, of the largest child so far) of one ``val.py``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(ROOT / "val.py"), "--weights", options.weights, "--data", options.data,
            "--imgsz", str(options.imgsz), "--batch-size", str(options.batch_size), "--project", folder,
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    options = parse_opt()
    for run in range(options.runs):
        rate = read_rate(options.data)
        seconds, memory = time_process(options)
        LOGGER.info(
            f"run {run + 1}: {seconds:.1f} s, {memory:.0f} MB; reference {REFERENCE_SECONDS:.1f} s, "
            f"ratio {REFERENCE_SECONDS / seconds:.2f}; imread {rate:.0f} images/s ({rate / REFERENCE_READS:.2f} of "
            "the reference's machine)"
        )


if __name__ == "__main__":
    run_command(main)
