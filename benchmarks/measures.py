"""What ``python -m benchmarks`` runs, and which figures it tells: what is to be reached, and where they are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.measuring import DATA, WEIGHTS

DIGITS = {"×": 2, "s": 2}  # behind the point
SHORT = {  # measure: the flags of its short version
    "loader": "--turns 2 --workers 2",
    "loss": "--repeats 10",
    "train_step": "--repeats 4",
    "recompute": "--turns 1",
    "train_epoch": "--epochs 3 --turns 1",
    "validate": "--images 16 --turns 2",
    "startup": "",
    "scale": "--images 100000 --workers 0 2 --img 128 --epochs 2",
    "models": "--cfg yolov5n yolov5_MobileNetv2 --repeats 8",
    "formats": f"--weights {WEIGHTS} --data {DATA} --imgsz 320 --include onnx --repeats 20",
}


class Figure(NamedTuple):
    """A number that `measure` writes, at `path` below the rows of its JSON; `limit` is what is to be reached."""

    measure: str
    label: str
    path: tuple[str, ...]
    unit: str
    limit: float | None = None

    def cells(self, rows: Mapping[str, Any]) -> list[str]:
        """Of the summary: measure, to reach, measured, met."""
        sign = "≥" if self.unit == "×" else "≤"
        goal = "" if self.limit is None else f"{sign} {self.limit:g} {self.unit}".strip()
        value: Any = rows
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            return [self.label, goal, "not measured", "–"]
        met = ""
        if self.limit is not None:
            met = "yes" if value == self.limit or (value > self.limit) == (sign == "≥") else "no"
        digits = 1 if self.unit == "ms" else DIGITS.get(self.unit, 0)
        return [self.label, goal, f"{value:.{digits}f} {self.unit}".strip(), met]


_HELP, _DETECT, _INDEX = "all --help, the worst", "detect.py on photos", "index, 100000 images"
FIGURES = [
    Figure("loader", "mosaic pipeline at 640, no cache", ("mosaic, one decode per sample", "ratio"), "×", 2.5),
    Figure("loader", "mosaic pipeline at 640, RAM cache", ("mosaic, RAM cache", "ratio"), "×", 2.5),
    Figure("loss", "loss forward + backward, 16 × 640, 80 classes", ("DetectionLoss", "ratio"), "×", 2),
    Figure("loss", "launches of the loss, forward", ("launches", "forward"), "", 300),
    Figure("loss", "launches of the loss, backward", ("launches", "backward"), "", 300),
    Figure("train_step", "training step, yolov5_MobileNetv2, 16 × 320", ("step", "ratio"), "×"),
    Figure("recompute", "peak of a training step with --recompute", ("recomputed", "peak_mb"), "MB", 2400),
    Figure("recompute", "without", ("kept", "peak_mb"), "MB"),
    Figure("recompute", "its time, in hundredths of that without", ("recomputed", "hundredths"), "", 135),
    Figure("train_epoch", "training epoch, yolov5_MobileNetv2, 16 × 320", ("train.py", "ratio"), "×", 1.3),
    Figure("train_epoch", "its peak memory, all processes", ("train.py", "tree_mb"), "MB", 3500),
    Figure("validate", "val.py, yolov5n.pt at 640, whole process", ("val.py", "ratio"), "×", 1.4),
    Figure("validate", "NMS at validation settings, real predictions", ("NMS, validation", "ratio"), "×", 2),
    Figure("validate", "NMS at detection settings, real predictions", ("NMS, detection", "ratio"), "×", 1),
    Figure("startup", "--help, the slowest command", (_HELP, "seconds"), "s", 0.5),
    Figure("startup", "--help imports torch (0: no)", (_HELP, "torch"), "", 0),
    Figure("startup", "first detection from a cold start", (_DETECT, "seconds"), "s", 4),
    Figure("startup", "its peak memory", (_DETECT, "peak_mb"), "MB", 850),
    Figure("scale", "index memory per image, 10 boxes", (_INDEX, "bytes_an_image"), "bytes", 1024),
    Figure("scale", "index of 100 k images opened again", (_INDEX, "open_s"), "s", 2),
    Figure("scale", "index of 100 k images scanned", (_INDEX, "scan_s"), "s"),
    Figure("scale", "loader over 100 k images, 2 workers, all memory", ("loader, 2 workers", "all_mb"), "MB"),
    Figure("models", "yolov5n, one image at 640", ("yolov5n", "ms", "640"), "ms"),
    Figure("models", "yolov5_MobileNetv2, one image at 640", ("yolov5_MobileNetv2", "ms", "640"), "ms"),
]
