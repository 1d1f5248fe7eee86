"""What grows with the data set, with the workers, and with the processes.

- index: made-up data sets of small images, 10 boxes each. Seconds to scan them (with a progress bar) and to open the
  index again from its cache, bytes per image, and what building it adds to the memory of a fresh process.
- workers: memory of all processes of a training loader over the largest of these sets, once it has run a while; pages
  that processes share count once (Linux). With more processes than cores, too, which `create_loader` would not start.
- processes: `train.py` on the CPU with one process and with two that exchange gradients through gloo, images/s. Two
  processes on a machine of two cores have one core each, while one process computes each layer with both: what that
  comparison shows is not the speed-up of a second machine. That is what the first row, one process held to one core,
  is for: it does half of the work that two do together, without exchanging anything.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from benchmarks.measuring import Row, measure_apart, peak_memory, report, rows_table, run_process, sample, tree_memory
from benchmarks.train_epoch import later_epochs
from utils.data.dataset import DetectionDataset
from utils.data.indexing.index import build_index
from utils.data.loader import Loader
from utils.data.sampling import BatchPlan

PARTS = ["index", "workers", "processes"]
OPTIONS = {"images": [1000, 10000, 100000], "workers": [0, 1, 2, 4], "parts": PARTS, "img": 192, "epochs": 3}
OPTIONS |= {"data": sample("data/coco128.yaml", "shapes.yaml"), "cfg": "yolov5n_MobileNetv2.yaml"}  # of the trainings
CHOICES = {"parts": PARTS}
BOXES = 10  # per image
SIDE = 64  # of a made-up image, pixels
IMGSZ = 320  # of the loader whose memory is looked at
COLUMNS = {
    "scan_s": ("scan s", "{:.1f}"),
    "images_s": ("images/s", "{:.0f}"),
    "open_s": ("open again s", "{:.2f}"),
    "bytes_an_image": ("bytes per image", "{:.0f}"),
    "peak_mb": ("peak MB", "{:.0f}"),
}


def draw(folder: Path, images: int) -> None:
    """A data set of `images` noisy images with `BOXES` objects each, in folders of 1000."""
    rng = np.random.default_rng(0)
    files = [cv2.imencode(".jpg", rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8))[1].tobytes() for _ in range(16)]
    boxes = np.concatenate((rng.uniform(0.2, 0.8, (64, BOXES, 2)), rng.uniform(0.01, 0.4, (64, BOXES, 2))), 2)
    labels = ["".join(f"{i % 3} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for i, (x, y, w, h) in enumerate(b)) for b in boxes]
    for i in range(images):
        name = f"{i // 1000:04d}/{i:012d}"
        if i % 1000 == 0:
            for kind in ("images", "labels"):
                (folder / kind / name).parent.mkdir(parents=True)
        (folder / "images" / f"{name}.jpg").write_bytes(files[i % len(files)])
        (folder / "labels" / f"{name}.txt").write_text(labels[i % len(labels)], encoding="ascii")


def measure_index(options: Any) -> Row:
    """Of the data set in `options.folder`: seconds to scan it and to open it again, bytes per image, added memory."""
    seconds, peaks = [], [peak_memory()]
    for _ in range(4):
        start = time.perf_counter()
        index = build_index([Path(options.folder) / "images"], 3)
        seconds.append(time.perf_counter() - start)
        peaks.append(peak_memory())
    figures = {"scan_s": seconds[0], "images_s": len(index) / seconds[0], "open_s": median(seconds[1:])}
    return {**figures, "bytes_an_image": index.nbytes / len(index), "peak_mb": peaks[1] - peaks[0]}


def measure_workers(options: Any) -> Row:
    """Memory of this process and its `options.count` workers after `options.batches` of a training epoch."""
    dataset = DetectionDataset(build_index([Path(options.folder) / "images"], 3), IMGSZ, augment=True)
    near = dataset.images_at_hand
    plan = BatchPlan(dataset.epoch_indices, 16, shuffle=True, mosaic_pool=near, workers=options.count)
    loader, alone = Loader(dataset, plan, options.count), tree_memory(os.getpid())
    for number, _ in enumerate(loader):
        if number == options.batches:
            break
    return {"index_mb": dataset.index.nbytes / 2**20, "before_mb": alone, "all_mb": tree_memory(os.getpid())}


def processes_part(options: Any) -> tuple[dict[str, Row], str]:
    """Training with one process and one core, one process and all, and two processes that share the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pair = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ways: dict[str, tuple[list[str], int]] = {
        "one process, one thread": ([], 1),
        f"one process, {cores} threads": ([], cores),
        f"two processes, {max(cores // 2, 1)} threads each": (pair, max(cores // 2, 1)),
    }
    flags = ["--data", options.data, "--cfg", options.cfg, "--img", options.img, "--batch", 16, "--epochs"]
    flags += [options.epochs, "--workers", 0, "--device", "cpu", "--noval", "--noplots", "--nosave", "--project"]
    rows: dict[str, Row] = {}
    for name, (launcher, threads) in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, *launcher, "train.py", *flags, folder]
            done = run_process(words, environment={"OMP_NUM_THREADS": str(threads)})
        images = int(re.findall(r"^train: (\d+) images", done.output, re.MULTILINE)[0])
        rows[name] = {"images_s": images / median(later_epochs(done.output)), "threads": threads}
        rows[name]["speed_up"] = rows[name]["images_s"] / next(iter(rows.values()))["images_s"]
    return rows, rows_table("training", rows, {"images_s": ("images/s", "{:.1f}"), "speed_up": ("speed-up", "{:.2f}×")})


def main(options: Any) -> None:
    rows: dict[str, Row] = {}
    texts = []
    with tempfile.TemporaryDirectory() as temporary:
        for images in sorted(options.images):
            folder, name = Path(temporary) / str(images), f"index, {images} images"
            draw(folder, images)
            if "index" in options.parts:
                rows[name] = measure_apart(measure_index, options, folder=folder)
        texts.append(rows_table("data set", rows, COLUMNS))
        loaders: dict[str, Row] = {}
        for count in options.workers if "workers" in options.parts else ():
            row = measure_apart(measure_workers, options, folder=folder, count=count, batches=60)
            loaders[f"loader, {count} workers"] = row
    columns = {name: (f"{name.removesuffix('_mb')} MB", "{:.0f}") for name in ("index_mb", "before_mb", "all_mb")}
    texts.append(rows_table(f"over {images} images", loaders, columns))
    processes, text = processes_part(options) if "processes" in options.parts else ({}, "")
    report(options, {**rows, **loaders, **processes}, "\n\n".join([*texts, text]), boxes=BOXES)
