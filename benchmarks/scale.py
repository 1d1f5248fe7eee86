"""What grows with the data set, with the workers, and with the processes.

    python benchmarks/scale.py [--images 1000 10000 100000] [--workers 0 1 2 4] [--parts index workers processes]

- index: made-up data sets of small pictures, 10 boxes each. Seconds to scan them (with a progress bar) and to open the
  index again from its cache, bytes an image, and what building it adds to the memory of a fresh process.
- workers: memory of all processes of a training loader over the largest of these sets, once it has run a while; pages
  that processes share count once (Linux). With more processes than cores, too, which `create_loader` would not start.
- processes: `train.py` on the CPU with one process and with two that exchange gradients through gloo, images/s. Two
  processes on a machine of two cores have one core each, while one process computes each layer with both: what that
  comparison shows is not the speed-up of a second machine. That is what the first row, one process held to one core,
  is for: it does half of the work that two do together, without exchanging anything.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ROOT
from benchmarks.measuring import (
    benchmark_parser,
    conditions,
    figure,
    peak_memory,
    positive,
    report,
    run_process,
    sample,
    table,
    tree_memory,
    whole,
)
from benchmarks.train_epoch import later_epochs
from utils.cli import run_command

PARTS = ("index", "workers", "processes")
BOXES = 10  # an image
SIDE = 64  # of a made-up picture, pixels
IMGSZ = 320  # of the loader whose memory is looked at


def draw(folder: Path, images: int) -> None:
    """A data set of `images` noisy pictures with `BOXES` objects each, in folders of 1000."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    pictures = [cv2.imencode(".jpg", rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8))[1].tobytes() for _ in range(16)]
    boxes = np.concatenate((rng.uniform(0.2, 0.8, (64, BOXES, 2)), rng.uniform(0.01, 0.4, (64, BOXES, 2))), 2)
    labels = ["".join(f"{i % 3} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for i, (x, y, w, h) in enumerate(b)) for b in boxes]
    for i in range(images):
        name = f"{i // 1000:04d}/{i:012d}"
        if i % 1000 == 0:
            for kind in ("images", "labels"):
                (folder / kind / name).parent.mkdir(parents=True)
        (folder / "images" / f"{name}.jpg").write_bytes(pictures[i % len(pictures)])
        (folder / "labels" / f"{name}.txt").write_text(labels[i % len(labels)], encoding="ascii")


# In processes of their own --------------------------------------------------------------------------------------------


def measure_index(folder: Path) -> dict[str, float]:
    """Scan seconds, seconds of opening again, bytes an image, megabytes above what the process held before."""
    from utils.data.indexing.index import build_index

    before, start = peak_memory(), time.perf_counter()
    index = build_index([folder / "images"], 3)
    scan, peak, again = time.perf_counter() - start, peak_memory(), []
    for _ in range(3):
        start = time.perf_counter()
        build_index([folder / "images"], 3)
        again.append(time.perf_counter() - start)
    return {
        "scan_s": scan, "open_s": median(again), "bytes_an_image": index.nbytes / len(index), "peak_mb": peak - before
    }  # fmt: skip


def measure_workers(folder: Path, workers: int, batches: int = 60) -> dict[str, float]:
    """Memory of this process and its `workers` after `batches` of a training epoch."""
    from utils.data.dataset import DetectionDataset
    from utils.data.indexing.index import build_index
    from utils.data.loader import Loader
    from utils.data.sampling import BatchPlan

    dataset = DetectionDataset(build_index([folder / "images"], 3), IMGSZ, augment=True)
    plan = BatchPlan(
        dataset.epoch_indices, 16, shuffle=True, mosaic_pool=dataset.images_at_hand, workers=workers
    )  # fmt: skip
    loader, alone = Loader(dataset, plan, workers), tree_memory(os.getpid())
    for number, _ in enumerate(loader):
        if number == batches:
            break
    return {"index_mb": dataset.index.nbytes / 2**20, "before_mb": alone, "all_mb": tree_memory(os.getpid())}


def child(*words: object) -> dict[str, float]:
    """What a process of this file with `words` prints in its last line."""
    done = run_process([sys.executable, __file__, "--child", *words])
    return json.loads(done.output.splitlines()[-1])


# The three tables -----------------------------------------------------------------------------------------------------


def index_part(folders: dict[int, Path]) -> tuple[dict[str, Any], str]:
    """The index of each of `folders`, number of images → data set."""
    rows = {f"index, {images} images": {"images": images, **child("index", f)} for images, f in folders.items()}
    cells = [[row["images"], f"{row['scan_s']:.1f}", f"{row['images'] / row['scan_s']:.0f}", f"{row['open_s']:.2f}",
              f"{row['bytes_an_image']:.0f}", f"{row['peak_mb']:.0f}"] for row in rows.values()]  # fmt: skip
    return rows, table(["images", "scan s", "images/s", "open again s", "bytes an image", "peak MB"], cells)


def workers_part(images: int, folder: Path, counts: list[int]) -> tuple[dict[str, Any], str]:
    """A loader over `folder` with each of `counts` workers."""
    rows = {f"loader, {count} workers": child("workers", folder, count) for count in counts}
    first = rows[f"loader, {counts[0]} workers"]["all_mb"]
    cells = []
    for count, row in zip(counts, rows.values(), strict=True):
        more = (row["all_mb"] - first) / (count - counts[0]) if count > counts[0] else None
        cells.append(
            [count, f"{row['index_mb']:.1f}", f"{row['before_mb']:.0f}", f"{row['all_mb']:.0f}", figure(more, 0)]
        )
    heads = ["workers", "index MB", "before MB", "all MB", "a worker MB"]
    return rows, f"a loader over {images} images\n\n{table(heads, cells)}"


def processes_part(options: Any) -> tuple[dict[str, Any], str]:
    """Training with one process and one core, one process and all, and two processes that share the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ways = {
        "one process, one thread": ([], 1),
        f"one process, {cores} threads": ([], cores),
        f"two processes, {max(cores // 2, 1)} threads each": (run, max(cores // 2, 1)),
    }
    rows: dict[str, Any] = {}
    for name, (launcher, threads) in ways.items():
        flags: list[object] = ["--data", options.data, "--cfg", options.cfg, "--img", options.img, "--batch", 16]
        flags += ["--epochs", options.epochs, "--workers", 0, "--device", "cpu", "--noval", "--noplots", "--nosave"]
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, *launcher, ROOT / "train.py", *flags, "--project", folder]
            done = run_process(words, environment={"OMP_NUM_THREADS": str(threads)})
        images = int(next(line for line in done.output.splitlines() if line.startswith("train: ")).split()[1])
        rows[name] = {"images_s": images / median(later_epochs(done.output)), "threads": threads}
    first, alone, pair = (row["images_s"] for row in rows.values())
    cells = [[name, f"{row['images_s']:.1f}", f"{row['images_s'] / first:.2f}×"] for name, row in rows.items()]
    text = (
        f"Two processes do {pair / first:.2f} × the work of one with one thread, free exchange would give 2 ×,\n"
        f"and {pair / alone:.2f} × that of one process which has all {cores} cores to itself: another process\n"
        "on this machine brings no more cores, only gradients to be exchanged."
    )
    return rows, f"{table(['training', 'images/s', 'speed-up'], cells)}\n\n{text}"


def measure_parts(options: Any) -> list[tuple[dict[str, Any], str]]:
    """Rows and text of each of `options.parts`."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = {images: Path(temporary) / str(images) for images in sorted(options.images)}
        largest = max(folders)
        for images, folder in folders.items():
            if "index" in options.parts or ("workers" in options.parts and images == largest):
                draw(folder, images)
        if "index" in options.parts:
            found.append(index_part(folders))
        if "workers" in options.parts:
            found.append(workers_part(largest, folders[largest], options.workers))
    if "processes" in options.parts:
        found.append(processes_part(options))
    return found


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "scale", img=192, epochs=3)
    parser.add_argument("--images", type=positive, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument("--workers", type=whole, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", default=sample("data/coco128.yaml", "shapes.yaml"), help="of the trainings")
    parser.add_argument("--cfg", default="yolov5n_MobileNetv2.yaml", help="of the trainings")
    parser.add_argument("--child", nargs="+", help="index FOLDER, or workers FOLDER N: measure that here, print JSON")
    options = parser.parse_args()
    if options.child:
        kind, folder, *count = options.child
        measured = measure_index(Path(folder)) if kind == "index" else measure_workers(Path(folder), int(count[0]))
        print(json.dumps(measured))
        return
    found = measure_parts(options)
    rows = {name: row for part, _ in found for name, row in part.items()}
    told = conditions(boxes=BOXES, cfg=options.cfg, img=options.img, data=Path(options.data).stem)
    report(options.output, told, rows, "\n\n".join(text for _, text in found))


if __name__ == "__main__":
    run_command(main)
