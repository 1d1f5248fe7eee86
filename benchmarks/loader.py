"""How fast training and validation samples are made, beside a plain loop of `cv2.imread` over the same files.

    python benchmarks/loader.py [--data coco128.yaml | folder] [--imgsz 640] [--hyp hyp.scratch-low.yaml]

Every measure takes turns with the plain loop, so that a busy machine is busy for both; rates are the best of the turns,
by wall clock and by processor time (the latter hardly feels other processes). One process, OpenCV with one thread; the
last rows are whole loaders with worker processes. Prints a table and writes ``benchmarks/results/loader.json``.

"One decode a sample" gives the pool of recent pictures less memory than the data set needs, as for a large data set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

REACH = {"mosaic, one decode a sample": 130 / 345, "mosaic, RAM cache": 330 / 345}  # of the plain loop's rate
POOL_SHARE = 0.25  # of the data set, in the rows with one decode a sample


def stages(index: Any, outlined: Any, imgsz: int, hyp: dict[str, float], batch: int) -> dict[str, Callable[[int], int]]:
    """Functions that do one epoch's work of a stage and return the number of images; epoch number as argument.

    `outlined` is `index` with polygons, for the rows with masks.
    """
    import cv2

    from utils.data.dataset import DetectionDataset
    from utils.data.images.reader import ImageFiles
    from utils.data.masks import MaskFormat
    from utils.data.sampling import BatchPlan

    paths = index.paths
    stored = int(ImageFiles(index, (imgsz, imgsz), training=True).stored.prod(1).sum()) * 3

    def plain(_: int) -> int:
        return sum(cv2.imread(path) is not None for path in paths)

    def decode(_: int, files: Any = None) -> int:
        files = ImageFiles(index, (imgsz, imgsz), training=True)
        return sum(len(files.read(i)) > 0 for i in range(len(index)))

    def epochs_of(**options: Any) -> Callable[[int], int]:
        source = outlined if "masks" in options else index
        dataset = DetectionDataset(source, imgsz, hyp=hyp, batch_size=batch, **options)
        near = dataset.near_images if dataset.mosaic else None
        plan = BatchPlan(dataset.epoch_indices, batch, shuffle=dataset.augment, partners=near)

        def epoch(number: int) -> int:
            plan.epoch = number
            return sum(len(dataset.batch(tickets)) for tickets in plan)

        return epoch

    return {
        "cv2.imread": plain,
        "decode for training": decode,
        "letterbox (validation)": epochs_of(rect=True, pad=0.5),
        "mosaic, one decode a sample": epochs_of(augment=True, pool_bytes=int(POOL_SHARE * stored)),
        "mosaic, pool": epochs_of(augment=True),
        "mosaic, RAM cache": epochs_of(augment=True, cache="ram"),
        "the same with index maps": epochs_of(augment=True, cache="ram", masks=MaskFormat()),
        "the same with a mask an object": epochs_of(augment=True, cache="ram", masks=MaskFormat(overlap=False)),
    }


def in_turns(work: dict[str, Callable[[int], int]], turns: int) -> dict[str, dict[str, float]]:
    """Best images a second of each, by wall clock and by processor time; the first turn only warms up."""
    best: dict[str, dict[str, float]] = {name: {"wall": 0.0, "cpu": 0.0} for name in work}
    for turn in range(turns + 1):
        for name, function in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            count = function(turn)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn:
                best[name]["wall"] = max(best[name]["wall"], count / wall)
                best[name]["cpu"] = max(best[name]["cpu"], count / cpu)
    return best


def loaders(
    index: Any, imgsz: int, hyp: dict[str, float], batch: int, workers: Sequence[int], turns: int
) -> dict[str, float]:
    """Best images a second of whole training loaders, by wall clock."""
    from utils.data.loader import create_loader

    result = {}
    for count in workers:
        for cache in ("", "ram"):
            loader = create_loader(
                index, imgsz, batch, augment=True, hyp=hyp, shuffle=True, workers=count, cache=cache
            )  # fmt: skip
            rates = []
            for _ in range(turns + 1):
                start = time.perf_counter()
                images = sum(len(batch) for batch in loader)
                rates.append(images / (time.perf_counter() - start))
            result[f"loader, {loader.num_workers} workers, {cache.upper() or 'no'} cache"] = max(rates[1:])
    return result


def conditions(index: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The machine and the software."""
    import cv2
    import numpy as np
    import torch

    return {
        "images": len(index),
        "imgsz": options.imgsz,
        "hyp": options.hyp,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "opencv_threads": cv2.getNumThreads(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def find_index(data: str, polygons: bool = False) -> Any:
    """The training images of a data set's YAML, or those of a folder (without labels there are no boxes to move)."""
    from utils.data.index import build_index
    from utils.data.spec import load_dataset

    if Path(data).is_dir():
        return build_index([data], None, polygons=polygons, require_labels=False)
    spec = load_dataset(data)
    return build_index(spec.splits["train"], spec.nc, polygons=polygons)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes.yaml", help="YAML of a data set, or a folder of images")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--hyp", default="hyp.scratch-low.yaml")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()

    import cv2

    from utils.hyp import load_hyp
    from utils.logging import configure_logging

    configure_logging()
    cv2.setNumThreads(1)
    index, hyp = find_index(options.data), load_hyp(options.hyp)
    told = conditions(index, options)
    print(", ".join(f"{name} {value}" for name, value in told.items()))
    outlined = find_index(options.data, polygons=True)
    rates = in_turns(stages(index, outlined, options.imgsz, hyp, options.batch), options.turns)
    whole = loaders(index, options.imgsz, hyp, options.batch, options.workers, options.turns)

    plain = rates["cv2.imread"]
    print(f"\n{'images/s, and of the plain loop':34} {'wall':>7} {'':6} {'cpu':>7} {'':6} {'to reach':>8}")
    for name, rate in rates.items():
        columns = (f"{rate[clock]:7.0f} {rate[clock] / plain[clock]:5.2f}×" for clock in ("wall", "cpu"))
        print(f"{name:34} {' '.join(columns)} {f'{REACH[name]:7.2f}×' if name in REACH else ''}")
    for name, wall in whole.items():
        print(f"{name:34} {wall:7.0f} {wall / plain['wall']:5.2f}×")

    folder = Path(__file__).resolve().parent / "results"
    folder.mkdir(exist_ok=True)
    content = {"conditions": told, "stages": rates, "loaders": whole, "to_reach": REACH}
    (folder / "loader.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
