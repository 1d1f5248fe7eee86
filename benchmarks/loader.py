"""How fast training and validation samples are made, beside the baseline and a bare loop of `cv2.imread`.

All stages take turns, so that a busy machine is busy for all. One process, OpenCV with one thread; the last rows are
whole loaders with worker processes. Rates are medians of the turns, ratios medians of the ratios in each turn; "cpu" is
by processor time, which hardly feels other processes. --data is a data set's YAML or a folder of images.

"One decode per sample" gives the pool of recent images less memory than the data set needs, as for a large data set.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2

from benchmarks.baseline import BaselineDataset
from benchmarks.measuring import RATIO, Row, in_turns, ratio, report, rows_table, sample
from utils.data.dataset import DetectionDataset
from utils.data.images.reader import ImageFiles
from utils.data.indexing.index import build_index
from utils.data.loader import create_loader
from utils.data.rasterize import MaskFormat
from utils.data.sampling import BatchPlan
from utils.data.spec import load_dataset
from utils.hyp import load_hyp
from utils.logging import configure_logging

OPTIONS = {"data": sample("data/coco128-seg.yaml", "shapes-seg.yaml"), "hyp": "hyp.scratch-low.yaml", "imgsz": 640}
OPTIONS |= {"batch": 16, "turns": 5, "workers": [1, 2]}
POOL_SHARE = 0.25  # of the data set, in the rows with one decode per sample
MASKS: dict[str, Any] = {"cache": "ram", "masks": MaskFormat()}


def stages(index: Any, options: Any, hyp: dict[str, float]) -> dict[str, Callable[[], object]]:
    """Functions that do one epoch's work of a stage, all images of `index`, which has polygons."""
    size, boxes = (options.imgsz, options.imgsz), without_polygons(index)
    pool_bytes = int(POOL_SHARE * 3 * int(ImageFiles(index, size, training=True).stored.prod(1).sum()))

    def decode() -> None:
        files = ImageFiles(index, size, training=True)
        for i in range(len(index)):
            files.read(i)

    def epochs_of(kind: Any = DetectionDataset, **more: Any) -> Callable[[], None]:
        dataset = kind(index if "masks" in more else boxes, options.imgsz, hyp=hyp, batch_size=options.batch, **more)
        near = dataset.images_at_hand if dataset.mosaic else None
        plan = BatchPlan(dataset.epoch_indices, options.batch, shuffle=dataset.augment, mosaic_pool=near)
        numbers = itertools.count()

        def epoch() -> None:
            plan.epoch = next(numbers)
            for requests in plan:
                dataset.batch(requests)

        return epoch

    return {
        "cv2.imread": lambda: [cv2.imread(path) for path in index.paths],
        "decode for training": decode,
        "letterbox (validation)": epochs_of(rect=True, pad=0.5),
        "mosaic, one decode per sample": epochs_of(augment=True, pool_bytes=pool_bytes),
        "mosaic, pool": epochs_of(augment=True),
        "mosaic, RAM cache": epochs_of(augment=True, cache="ram"),
        "the same with index maps": epochs_of(augment=True, **MASKS),
        "the same with one mask per object": epochs_of(augment=True, cache="ram", masks=MaskFormat(overlap=False)),
        "mosaic, one decode per sample, baseline": epochs_of(BaselineDataset, augment=True),
        "mosaic, RAM cache, baseline": epochs_of(BaselineDataset, augment=True, cache="ram"),
    }


def without_polygons(index: Any) -> Any:
    """`index` with its boxes alone."""
    return replace(index, polygons=None, polygon_offsets=None)


def loaders(index: Any, options: Any, hyp: dict[str, float]) -> dict[str, Callable[[], object]]:
    """One epoch of whole training loaders, boxes alone and with polygons drawn as index maps."""
    found: dict[str, Callable[[], object]] = {}
    kinds: dict[str, Any] = {"no cache": {}, "RAM cache": {"cache": "ram"}, "RAM cache, index maps": MASKS}
    for workers, (name, more) in itertools.product(options.workers, kinds.items()):
        own = index if "masks" in more else without_polygons(index)
        more = {"augment": True, "hyp": hyp, "shuffle": True, "workers": workers, **more}
        loader = create_loader(own, options.imgsz, options.batch, **more)
        found[f"loader, {loader.num_workers} workers, {name}"] = lambda loader=loader: sum(map(len, loader))  # type: ignore[misc]
    return found


def find_index(data: str) -> Any:
    """The training images of a data set's YAML, or those of a folder (without labels there are no boxes to move)."""
    if Path(data).is_dir():
        return build_index([data], None, polygons=True, require_labels=False)
    spec = load_dataset(data)
    return build_index(spec.splits["train"], spec.nc, polygons=True)


def main(options: Any) -> None:
    configure_logging()
    cv2.setNumThreads(1)
    index, hyp = find_index(options.data), load_hyp(options.hyp)
    times = in_turns({**stages(index, options, hyp), **loaders(index, options, hyp)}, options.turns)
    loop, rows = times["cv2.imread"], {}
    for name, own in times.items():
        row: Row = {"images_s": len(index) / median(own.wall), "of_loop": ratio(loop.wall, own.wall)}
        if not name.startswith("loader,"):  # a loader's work is done by other processes
            row |= {"cpu_images_s": len(index) / median(own.cpu), "cpu_of_loop": ratio(loop.cpu, own.cpu)}
        if baseline := times.get(f"{name}, baseline"):
            row["ratio"] = ratio(baseline.wall, own.wall)
        rows[name] = row
    columns = {"images_s": ("images/s", "{:.0f}"), "of_loop": ("of imread", "{:.2f}×")}
    columns |= {f"cpu_{name}": (f"cpu {head}", form) for name, (head, form) in columns.items()} | RATIO
    report(options, rows, rows_table("stage", rows, columns), images=len(index), opencv_threads=cv2.getNumThreads())
