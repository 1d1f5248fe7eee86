"""The measures of ``python -m benchmarks``: which file, the flags of its short version, what of its figures is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.measuring import sample

UNITS = {"×": 2, "s": 2, "ms": 1, "MB": 0, "bytes": 0, "images/s": 0, "": 0}  # digits behind the point


class Figure(NamedTuple):
    """A number that a measure writes, at `path` below the rows of its JSON; `limit` is what is to be reached."""

    label: str
    path: tuple[str, ...]
    unit: str
    limit: float | None = None

    @property
    def more_is_better(self) -> bool:
        return self.unit in ("×", "images/s")

    def text(self, value: float) -> str:
        return f"{value:.{UNITS[self.unit]}f} {self.unit}".strip()

    def cells(self, value: float | None) -> list[str]:
        """Of the summary: measure, to reach, measured, met."""
        goal = "" if self.limit is None else f"{'≥' if self.more_is_better else '≤'} {self.limit:g} {self.unit}".strip()
        if value is None:
            return [self.label, goal, "not measured", "–"]
        if self.limit is None:
            return [self.label, goal, self.text(value), ""]
        met = value >= self.limit if self.more_is_better else value <= self.limit
        return [self.label, goal, self.text(value), "yes" if met else "no"]

    def at(self, rows: Mapping[str, Any]) -> float | None:
        """Its value in `rows`; None where it was not measured."""
        value: Any = rows
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)


@dataclass(frozen=True)
class Measure:
    """One file of this folder.

    Attributes:
        script: its name.
        words: flags of the short version.
        summary: its rows of the summary.
        ours: figures of our side alone, for ``--against``.
        plainly: it measures the straightforward way, too, and ``--ours`` leaves that out.
        suffix: of what it writes.
    """

    script: str
    words: tuple[str, ...] = ()
    summary: tuple[Figure, ...] = ()
    ours: tuple[Figure, ...] = ()
    plainly: bool = True
    suffix: str = ".json"


_NETWORKS = ("yolov5n", "yolov5_MobileNetv2")
_STEP, _EPOCH = "training step, yolov5_MobileNetv2, 16 × 320", "training epoch, yolov5_MobileNetv2, 16 × 320"
_LOSS, _VAL = "loss forward + backward, 16 × 640, 80 classes", "val.py, yolov5n.pt at 640, whole process"
_LAUNCHES = tuple(Figure(f"launches of the loss, {way}", ("launches", way), "", 300) for way in ("forward", "backward"))
_RECOMPUTE = (
    Figure("peak of a training step with --recompute", ("recomputed", "peak_mb"), "MB", 2400),
    Figure("without", ("kept", "peak_mb"), "MB"),
    Figure("its time, in hundredths of that without", ("recomputed", "hundredths"), "", 135),
)
_STARTUP = (
    Figure("--help, the slowest command", ("all --help, the worst", "seconds"), "s", 0.5),
    Figure("--help imports torch (0: no)", ("all --help, the worst", "torch"), "", 0),
    Figure("first detection from a cold start", ("detect.py on photos", "seconds"), "s", 4),
    Figure("its peak memory", ("detect.py on photos", "peak_mb"), "MB", 850),
)
_INDEX = (
    Figure("index memory an image, 10 boxes", ("index, 100000 images", "bytes_an_image"), "bytes", 1024),
    Figure("index of 100 k images opened again", ("index, 100000 images", "open_s"), "s", 2),
    Figure("index of 100 k images scanned", ("index, 100000 images", "scan_s"), "s"),
    Figure("loader over 100 k images, 2 workers, all memory", ("loader, 2 workers", "all_mb"), "MB"),
)
_MODELS = tuple(Figure(f"{name}, one image at 640", (name, "ms", "640"), "ms") for name in _NETWORKS)
_EPOCH_MEMORY = Figure("its peak memory, all processes", ("train.py", "tree_mb"), "MB", 3500)

MEASURES = {
    "loader": Measure(
        "loader.py",
        ("--turns", "2", "--workers", "2"),
        (
            Figure("mosaic pipeline at 640, no cache", ("mosaic, one decode a sample", "ratio"), "×", 2.5),
            Figure("mosaic pipeline at 640, RAM cache", ("mosaic, RAM cache", "ratio"), "×", 2.5),
        ),
        tuple(
            Figure(f"loader: {name}", (name, "images_s"), "images/s")
            for name in (
                "decode for training",
                "letterbox (validation)",
                "mosaic, one decode a sample",
                "mosaic, RAM cache",
                "the same with index maps",
                "loader, 2 workers, no cache",
            )
        ),
    ),
    "loss": Measure(
        "loss.py",
        ("--repeats", "10"),
        (Figure(_LOSS, ("DetectionLoss", "ratio"), "×", 2), *_LAUNCHES),
        (Figure(_LOSS, ("DetectionLoss", "ms"), "ms"), *_LAUNCHES),
    ),
    "train_step": Measure(
        "train_step.py",
        ("--repeats", "4"),
        (Figure(_STEP, ("step", "ratio"), "×"),),
        tuple(
            Figure(f"training step: {part}", (part, "ms"), "ms")
            for part in ("forward", "loss", "backward", "optimiser", "average", "step")
        ),
    ),
    "recompute": Measure("recompute.py", ("--turns", "1"), _RECOMPUTE, plainly=False),
    "train_epoch": Measure(
        "train_epoch.py",
        ("--epochs", "3", "--turns", "1"),
        (Figure(_EPOCH, ("train.py", "ratio"), "×", 1.3), _EPOCH_MEMORY),
        (Figure(_EPOCH, ("train.py", "epoch_s"), "s"), _EPOCH_MEMORY),
    ),
    "validate": Measure(
        "validate.py",
        ("--images", "16", "--turns", "2"),
        (Figure(_VAL, ("val.py", "ratio"), "×", 1.4),),
        (
            *(
                Figure(f"validation: {part}, an image", (part, "ms"), "ms")
                for part in ("read and letterbox", "network", "NMS", "matching")
            ),
            Figure(_VAL, ("val.py", "seconds"), "s"),
        ),
    ),
    "nms": Measure(
        "nms.py",
        ("--repeats", "5"),
        (Figure("NMS at validation settings, real predictions", ("validation", "ratio"), "×", 2),),
        (Figure("NMS at validation settings, an image", ("validation", "ms"), "ms"),),
    ),
    "startup": Measure("startup.py", (), _STARTUP, tuple(f for f in _STARTUP if f.unit), plainly=False),
    "scale": Measure(
        "scale.py",
        ("--images", "100000", "--workers", "0", "2", "--img", "128", "--epochs", "2"),
        _INDEX,
        _INDEX,
        plainly=False,
    ),
    "models": Measure("models.py", ("--cfg", *_NETWORKS, "--repeats", "8"), _MODELS, _MODELS, plainly=False),
    "formats": Measure(
        "formats.py",
        (
            *("--weights", sample("weights/yolov5n.pt", "yolov5n.pt")),
            *("--data", sample("data/coco128.yaml", "coco128.yaml")),
            *("--imgsz", "320", "--include", "onnx", "--repeats", "20"),
        ),
        plainly=False,
        suffix=".csv",
    ),
}
