"""What may watch a validation: each listener gets every batch with its scenes, after the clock has stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.prediction.result import OutputNames
from engine.prediction.text import label_rows
from engine.validation.scene import Scene
from utils.data.batch import Batch
from utils.devices import to_cpu
from utils.files import atomic_write, make_folder
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.detection import DetectionMetrics
from utils.plots.confusion import plot_confusion
from utils.plots.curves import plot_curves
from utils.plots.mosaics import MOST_IMAGES, plot_images

if TYPE_CHECKING:
    from engine.task import DetectionTask

DETECT = {"conf_thres": 0.25, "iou_thres": 0.45, "max_det": 1000}  # the defaults of `detect.py`
CURVE_PREFIX = {"(B)": "Box", "(M)": "Mask"}  # of the curves' file names, where a task has several metric groups


class ValidationListener(Protocol):
    """Called once a batch."""

    def add(self, batch: Batch, scenes: Sequence[Scene]) -> None:
        """Take what is wanted from `scenes`, the images of `batch` in order."""


class TextWriter:
    """``labels/<image>.txt`` with a row for each detection: class, xywh or outline, and the confidence if wanted.

    Images without detections get no file.
    """

    def __init__(self, save_dir: Path, confidence: bool, task: DetectionTask) -> None:
        self.folder = make_folder(save_dir / "labels")
        self.confidence = confidence
        self.task = task
        self._names = OutputNames()

    def add(self, batch: Batch, scenes: Sequence[Scene]) -> None:
        for scene in scenes:
            found = scene.detections.float().cpu().numpy()
            confidences = found[:, 4] if self.confidence else None
            masks = self.task.scene_masks(scene)
            if rows := label_rows(found[:, 5], found[:, :4], scene.size, confidences, masks):
                with atomic_write(self.folder / f"{self._names[scene.path]}.txt", "w", durable=False) as file:
                    file.writelines(rows)


class Pictures:
    """What a person looks at, written into `save_dir`.

    ``val_batchN_labels.jpg`` and ``val_batchN_pred.jpg`` of the first `batches` while the validation runs; at its end
    the curves, and the confusion matrix (confidence 0.25, IoU 0.45) as picture and table. Detections are drawn as
    `detect.py` gives them: those that are judged, several classes and overlaps included, would hide the objects.
    """

    def __init__(
        self, save_dir: Path, names: Mapping[int, str], nc: int, task: DetectionTask, batches: int = 3
    ) -> None:
        self.save_dir = save_dir
        self.names = names
        self.task = task
        self.batches = batches
        self.confusion = ConfusionMatrix(nc)
        self._single = nc == 1
        self._seen = 0

    def add(self, batch: Batch, scenes: Sequence[Scene]) -> None:
        for scene in scenes:
            self.confusion.process_batch(scene.detections[:, :6], scene.labels)
        if self._seen < self.batches:
            self._draw(batch, scenes)
            self._seen += 1

    def _draw(self, batch: Batch, scenes: Sequence[Scene]) -> None:
        """Labels and detections of the first images, each in one picture."""
        stem = self.save_dir / f"val_batch{self._seen}"
        shown = self._as_detected(scenes)[:MOST_IMAGES]
        masks = [self.task.drawn_masks(scene) for scene in shown]
        of_labels, of_detections = zip(*masks, strict=True) if masks and masks[0] is not None else (None, None)
        plot_images(batch.images, batch.targets, batch.paths, f"{stem}_labels.jpg", self.names, masks=of_labels)
        found = [scene.raw for scene in shown]
        plot_images(batch.images, found, batch.paths, f"{stem}_pred.jpg", self.names, masks=of_detections)

    def _as_detected(self, scenes: Sequence[Scene]) -> list[Scene]:
        """`scenes` with what `detect.py` would find in them by default: the best class of each box, confidence 0.25."""
        found = to_cpu(self.task.postprocess(scenes[0].output, agnostic=self._single, **DETECT))
        if self._single:
            for rows in found:
                rows[:, 5] = 0
        return [replace(scene, raw=rows, kept={}) for scene, rows in zip(scenes, found, strict=True)]

    def finish(self, metrics: Sequence[DetectionMetrics], groups: Sequence[str]) -> None:
        """Draw what needs all images; `groups` are the suffixes of the metric columns, in the order of `metrics`."""
        for group, m in zip(groups, metrics, strict=True):
            plot_curves(m.result, self.names, self.save_dir, prefix=CURVE_PREFIX.get(group, ""))
        plot_confusion(self.confusion.matrix, self.names, self.save_dir / "confusion_matrix.png")
        self.confusion.csv(self.save_dir / "confusion_matrix.csv", self.names)
