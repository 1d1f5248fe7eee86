"""What may watch a validation: each listener gets every batch with its scenes, after the clock has stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from engine.prediction.result import OutputNames
from engine.validation.scene import Scene
from utils.data.batch import Batch
from utils.files import make_folder
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.detection import DetectionMetrics
from utils.ops.boxes import xyxy2xywhn
from utils.plots.confusion import plot_confusion
from utils.plots.curves import plot_curves
from utils.plots.mosaics import plot_images

CURVE_PREFIX = {"(B)": "Box", "(M)": "Mask"}  # of the curves' file names, where a task has several metric groups


class ValidationListener(Protocol):
    """Called once a batch."""

    def add(self, batch: Batch, scenes: Sequence[Scene]) -> None:
        """Take what is wanted from `scenes`, the images of `batch` in order."""


class TextWriter:
    """``labels/<image>.txt`` with a row ``class x y w h [confidence]`` (normalised) for each detection.

    Images without detections get no file.
    """

    def __init__(self, save_dir: Path, confidence: bool) -> None:
        self.folder = make_folder(save_dir / "labels")
        self.confidence = confidence
        self._names = OutputNames()

    def add(self, batch: Batch, scenes: Sequence[Scene]) -> None:
        for scene in scenes:
            if len(scene.detections):
                rows = detection_rows(scene.detections, scene.size, self.confidence)
                (self.folder / f"{self._names[scene.path]}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def detection_rows(detections: torch.Tensor, size: tuple[int, int], confidence: bool) -> list[str]:
    """Detections `(n, 6+)` xyxy, confidence, class of an image of `size` (height, width) as YOLO label rows."""
    xywhn = xyxy2xywhn(detections[:, :4].float().cpu(), w=size[1], h=size[0])
    table = torch.cat((detections[:, 5:6].cpu(), xywhn, detections[:, 4:5].cpu()), 1)
    return [" ".join(f"{value:g}" for value in (row if confidence else row[:-1])) for row in table.tolist()]


class Pictures:
    """What a person looks at, written into `save_dir`.

    ``val_batchN_labels.jpg`` and ``val_batchN_pred.jpg`` of the first `batches` while the validation runs; at its end
    the curves, and the confusion matrix (confidence 0.25, IoU 0.45) as picture and table.
    """

    def __init__(self, save_dir: Path, names: Mapping[int, str], nc: int, batches: int = 3) -> None:
        self.save_dir = save_dir
        self.names = names
        self.batches = batches
        self.confusion = ConfusionMatrix(nc)
        self._seen = 0

    def add(self, batch: Batch, scenes: Sequence[Scene]) -> None:
        for scene in scenes:
            self.confusion.process_batch(scene.detections[:, :6], scene.labels)
        if self._seen < self.batches:
            stem = self.save_dir / f"val_batch{self._seen}"
            plot_images(batch.images, batch.targets, batch.paths, f"{stem}_labels.jpg", self.names)
            plot_images(batch.images, [s.raw for s in scenes], batch.paths, f"{stem}_pred.jpg", self.names)
            self._seen += 1

    def finish(self, metrics: Sequence[DetectionMetrics], groups: Sequence[str]) -> None:
        """Draw what needs all images; `groups` are the suffixes of the metric columns, in the order of `metrics`."""
        for group, m in zip(groups, metrics, strict=True):
            plot_curves(m.result, self.names, self.save_dir, prefix=CURVE_PREFIX.get(group, ""))
        plot_confusion(self.confusion.matrix, self.names, self.save_dir / "confusion_matrix.png")
        self.confusion.csv(self.save_dir / "confusion_matrix.csv", self.names)
