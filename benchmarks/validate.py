"""Validation: where the time goes, and `val.py` as a whole process, both beside the straightforward way.

    python benchmarks/validate.py [--weights yolov5n.pt] [--data coco128.yaml] [--imgsz 640] [--images 32] [--turns 3]

Parts, in one process, milliseconds an image: a plain loop of `cv2.imread` over the same files (to compare machines by),
reading and letterboxing them in one process, bytes to numbers, the network (fused), NMS, matching with the labels, and
average precision. Then `val.py` and `benchmarks/plainly.py val.py` from start to end, in turns. Medians of the turns.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import HERE, ROOT
from benchmarks.measuring import (
    Times,
    benchmark_parser,
    conditions,
    figure,
    in_turns,
    ratio,
    report,
    run_process,
    sample,
    table,
)
from utils.cli import run_command

NMS = {"conf_thres": 0.001, "iou_thres": 0.6, "multi_label": True, "max_det": 300}
PLAIN = ", straightforward"


def parts(options: Any) -> dict[str, Times]:
    """Seconds of each part for `options.images` pictures, and of its straightforward version where there is one."""
    import torch

    from models.backends import DetectMultiBackend
    from utils.data.indexing.index import build_index
    from utils.data.loader import create_loader
    from utils.data.spec import load_dataset

    torch.set_num_threads(options.threads)
    spec = load_dataset(options.data)
    index = build_index(spec.splits["val"], spec.nc, names=spec.names)
    index = index.select(range(min(options.images, len(index))))
    loader = create_loader(index, options.imgsz, options.batch, rect=True, pad=0.5, workers=0)
    model = DetectMultiBackend(options.weights, device=torch.device("cpu"))
    with torch.inference_mode():
        work = steps(model, loader, index.paths)
        chosen = {name: step for name, step in work.items() if not (options.ours and name.endswith(PLAIN))}
        return in_turns(chosen, options.turns)


def steps(model: Any, loader: Any, paths: list[str]) -> dict[str, Callable[[], object]]:
    """The parts as functions, each on what the one before gives for all of `loader`."""
    import copy

    import cv2
    import torch

    from benchmarks.baseline import plain_average_precision, plain_match, plain_suppression
    from engine.validation.scene import scenes_of
    from engine.validation.streams import Streams
    from engine.validator import IOU_THRESHOLDS
    from utils.metrics.average_precision import ap_per_class
    from utils.metrics.matching import match_detections
    from utils.ops.nms import non_max_suppression

    plain_model = copy.deepcopy(model)
    model.to(memory_format=torch.channels_last)
    streams = Streams(model, torch.device("cpu"), keep=lambda output: output[0])
    batches = list(loader)
    inputs = [batch.images.float() / 255 for batch in batches]
    decoded = [streams(images) for images in inputs]
    found = [non_max_suppression(output, **NMS) for output in decoded]  # type: ignore[arg-type]
    scenes = [scene for each in zip(batches, found, decoded, strict=True) for scene in scenes_of(*each)]
    matched = [match_detections(s.detections, s.labels, IOU_THRESHOLDS) for s in scenes]
    judged: Any = [torch.cat(column).numpy() for column in (
        matched, [s.detections[:, 4] for s in scenes], [s.detections[:, 5] for s in scenes],
        [s.labels[:, 0] for s in scenes],
    )]  # fmt: skip
    return {
        "cv2.imread": lambda: [cv2.imread(path) for path in paths],
        "read and letterbox": lambda: list(loader),
        "bytes to numbers": lambda: [batch.images.float() / 255 for batch in batches],
        "network": lambda: [streams(images) for images in inputs],
        f"network{PLAIN}": lambda: [plain_model(images)[0] for images in inputs],
        "NMS": lambda: [non_max_suppression(output, **NMS) for output in decoded],  # type: ignore[arg-type]
        f"NMS{PLAIN}": lambda: [plain_suppression(output, **NMS) for output in decoded],  # type: ignore[arg-type]
        "matching": lambda: [match_detections(s.detections, s.labels, IOU_THRESHOLDS) for s in scenes],
        f"matching{PLAIN}": lambda: [plain_match(s.detections, s.labels, IOU_THRESHOLDS) for s in scenes],
        "average precision": lambda: ap_per_class(*judged),
        f"average precision{PLAIN}": lambda: plain_average_precision(*judged),
    }


def processes(options: Any) -> dict[str, dict[str, Any]]:
    """Seconds and peak memory of `val.py` as a whole, beside the straightforward way."""
    ways: dict[str, list[Any]] = {
        "val.py": [ROOT / "val.py"],
        f"val.py{PLAIN}": [HERE / "benchmarks" / "plainly.py", "val.py"],
    }
    flags = ["--weights", options.weights, "--data", options.data, "--imgsz", options.imgsz, "--batch", options.batch]
    runs: dict[str, list[Any]] = {name: [] for name in ways if not (options.ours and name.endswith(PLAIN))}
    for _ in range(options.turns):
        for name, own in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                own.append(run_process([sys.executable, *ways[name], *flags, "--project", folder, "--device", "cpu"]))
    rows: dict[str, dict[str, Any]] = {
        name: {"seconds": median(run.seconds for run in own), "peak_mb": max(run.peak_mb for run in own)}
        for name, own in runs.items()
    }
    if not options.ours:
        plain, ours = ([run.seconds for run in runs[name]] for name in (f"val.py{PLAIN}", "val.py"))
        rows["val.py"]["ratio"] = ratio(plain, ours)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "validate", imgsz=640, batch=16, images=32, threads=2, turns=3)
    parser.add_argument("--weights", default=sample("weights/yolov5n.pt", "yolov5n.pt"))
    parser.add_argument("--data", default=sample("data/coco128.yaml", "coco128.yaml"))
    parser.add_argument("--ours", action="store_true", help="leave the straightforward way out")
    options = parser.parse_args()
    times = parts(options)
    rows: dict[str, dict[str, Any]] = {}
    for name, own in times.items():
        if not name.endswith(PLAIN):
            rows[name] = {"ms": own.ms / options.images}
            if plain := times.get(name + PLAIN):
                rows[name] |= {"plain_ms": plain.ms / options.images, "ratio": ratio(plain.wall, own.wall)}
    cells = [[name, f"{row['ms']:.2f}", figure(row.get("plain_ms"), 2), figure(row.get("ratio"), 2, "×")]
             for name, row in rows.items()]  # fmt: skip
    text = table(["part", "ms an image", "straightforward ms", "ratio"], cells)
    whole = processes(options)
    cells = [[name, f"{row['seconds']:.1f}", f"{row['peak_mb']:.0f}", figure(row.get("ratio"), 2, "×")]
             for name, row in whole.items()]  # fmt: skip
    text += "\n\n" + table(["whole process", "s", "peak MB", "× straightforward"], cells)
    told = conditions(
        weights=Path(options.weights).name, data=Path(options.data).stem,
        **{name: getattr(options, name) for name in ("imgsz", "batch", "images", "threads", "turns")},
    )  # fmt: skip
    report(options.output, told, {**rows, **whole}, text)


if __name__ == "__main__":
    run_command(main)
