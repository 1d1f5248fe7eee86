"""How fast training and validation samples are made, beside the straightforward way and a plain loop of `cv2.imread`.

    python benchmarks/loader.py [--data coco128.yaml | folder] [--imgsz 640] [--hyp hyp.scratch-low.yaml]

All stages take turns, so that a busy machine is busy for all. One process, OpenCV with one thread; the last rows are
whole loaders with worker processes. Rates are medians of the turns, ratios medians of the ratios in each turn; "cpu" is
by processor time, which hardly feels other processes.

"One decode a sample" gives the pool of recent pictures less memory than the data set needs, as for a large data set.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import (
    Times,
    benchmark_parser,
    conditions,
    figure,
    in_turns,
    ratio,
    report,
    sample,
    table,
    whole,
)
from utils.cli import run_command

PLAIN_LOOP = "cv2.imread"
BESIDE = {  # stage: the straightforward one
    "mosaic, one decode a sample": "mosaic, straightforward",
    "mosaic, RAM cache": "mosaic, RAM cache, straightforward",
}
POOL_SHARE = 0.25  # of the data set, in the rows with one decode a sample


def stages(index: Any, imgsz: int, hyp: dict[str, float], batch: int, plainly: bool) -> dict[str, Callable[[], object]]:
    """Functions that do one epoch's work of a stage, all images of `index`, which has polygons.

    `plainly`: with the straightforward stages. A stage that is not to be had is left out.
    """
    import cv2

    from utils.data.dataset import DetectionDataset
    from utils.data.images.reader import ImageFiles
    from utils.data.rasterize import MaskFormat
    from utils.data.sampling import BatchPlan

    boxes = without_polygons(index)
    stored = int(ImageFiles(index, (imgsz, imgsz), training=True).stored.prod(1).sum()) * 3

    def plain_loop() -> None:
        for path in index.paths:
            assert cv2.imread(path) is not None

    def decode() -> None:
        files = ImageFiles(index, (imgsz, imgsz), training=True)
        for i in range(len(index)):
            files.read(i)

    def epochs_of(kind: Any = DetectionDataset, **options: Any) -> Callable[[], None]:
        dataset = kind(index if "masks" in options else boxes, imgsz, hyp=hyp, batch_size=batch, **options)
        near = dataset.images_at_hand if dataset.mosaic else None
        plan = BatchPlan(dataset.epoch_indices, batch, shuffle=dataset.augment, mosaic_pool=near)
        numbers = itertools.count()

        def epoch() -> None:
            plan.epoch = next(numbers)
            for requests in plan:
                dataset.batch(requests)

        return epoch

    found: dict[str, Callable[[], object]] = {
        PLAIN_LOOP: plain_loop,
        "decode for training": decode,
        "letterbox (validation)": epochs_of(rect=True, pad=0.5),
        "mosaic, one decode a sample": epochs_of(augment=True, pool_bytes=int(POOL_SHARE * stored)),
        "mosaic, pool": epochs_of(augment=True),
        "mosaic, RAM cache": epochs_of(augment=True, cache="ram"),
        "the same with index maps": epochs_of(augment=True, cache="ram", masks=MaskFormat()),
        "the same with a mask an object": epochs_of(augment=True, cache="ram", masks=MaskFormat(overlap=False)),
    }
    if plainly:
        from benchmarks.baseline import PlainDataset

        found[BESIDE["mosaic, one decode a sample"]] = epochs_of(PlainDataset, augment=True)
        found[BESIDE["mosaic, RAM cache"]] = epochs_of(PlainDataset, augment=True, cache="ram")
    return found


def without_polygons(index: Any) -> Any:
    """`index` with its boxes alone."""
    from dataclasses import replace

    return replace(index, polygons=None, polygon_offsets=None)


def loaders(
    index: Any, imgsz: int, hyp: dict[str, float], batch: int, workers: Sequence[int]
) -> dict[str, Callable[[], object]]:
    """One epoch of whole training loaders, boxes alone and with polygons drawn as index maps."""
    from utils.data.loader import create_loader
    from utils.data.rasterize import MaskFormat

    found: dict[str, Callable[[], object]] = {}
    for count in workers:
        for words, more in (
            ("no cache", {}),
            ("RAM cache", {"cache": "ram"}),
            ("RAM cache, index maps", {"cache": "ram", "masks": MaskFormat()}),
        ):
            loader = create_loader(
                index if "masks" in more else without_polygons(index), imgsz, batch, augment=True, hyp=hyp,
                shuffle=True, workers=count, **more,
            )  # fmt: skip
            found[f"loader, {loader.num_workers} workers, {words}"] = lambda loader=loader: sum(map(len, loader))  # type: ignore[misc]
    return found


def find_index(data: str) -> Any:
    """The training images of a data set's YAML, or those of a folder (without labels there are no boxes to move)."""
    from utils.data.indexing.index import build_index
    from utils.data.spec import load_dataset

    if Path(data).is_dir():
        return build_index([data], None, polygons=True, require_labels=False)
    spec = load_dataset(data)
    return build_index(spec.splits["train"], spec.nc, polygons=True)


def rows_of(times: dict[str, Times], images: int) -> dict[str, dict[str, float]]:
    """Images/s of each stage by both clocks, as a share of the plain loop's, and × the straightforward stage's."""
    loop, rows = times[PLAIN_LOOP], {}
    for name, own in times.items():
        rows[name] = {
            "images_s": images / median(own.wall),
            "of_loop": ratio(loop.wall, own.wall),
            "cpu_images_s": images / median(own.cpu),
            "cpu_of_loop": ratio(loop.cpu, own.cpu),
        }
        if BESIDE.get(name) in times:
            rows[name]["ratio"] = ratio(times[BESIDE[name]].wall, own.wall)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "loader", imgsz=640, batch=16, turns=5)
    parser.add_argument("--data", default=sample("data/coco128-seg.yaml", "shapes-seg.yaml"), help="YAML or folder")
    parser.add_argument("--hyp", default="hyp.scratch-low.yaml")
    parser.add_argument("--workers", type=whole, nargs="*", default=[1, 2], help="of the whole loaders")
    parser.add_argument("--ours", action="store_true", help="leave the straightforward way out")
    options = parser.parse_args()

    import cv2

    from utils.hyp import load_hyp
    from utils.logging import configure_logging

    configure_logging()
    cv2.setNumThreads(1)
    index, hyp = find_index(options.data), load_hyp(options.hyp)
    work = stages(index, options.imgsz, hyp, options.batch, not options.ours)
    work |= loaders(index, options.imgsz, hyp, options.batch, options.workers)
    rows = rows_of(in_turns(work, options.turns), len(index))

    told = conditions(
        images=len(index), data=Path(options.data).stem, imgsz=options.imgsz, hyp=options.hyp, turns=options.turns,
        opencv_threads=cv2.getNumThreads(),
    )  # fmt: skip
    heads = ["stage", "images/s", "of imread", "cpu images/s", "of imread", "× straightforward"]
    cells = []
    for name, row in rows.items():
        inside = "loader," not in name  # a loader's work is done by other processes
        cpu = [row["cpu_images_s"], row["cpu_of_loop"]] if inside else [None, None]
        cells.append([name, f"{row['images_s']:.0f}", figure(row["of_loop"], 2, "×"), figure(cpu[0], 0),
                      figure(cpu[1], 2, "×"), figure(row.get("ratio"), 2, "×")])  # fmt: skip
    report(options.output, told, rows, table(heads, cells))


if __name__ == "__main__":
    run_command(main)
