"""Listeners of a validation: text files and plots. Each is called with every batch, outside of the timed stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.prediction.outputs import OutputNames
from engine.prediction.text_files import label_rows
from engine.validation.validated_image import ValidatedImage
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
    """An object that `validate` calls once per batch."""

    def add(self, batch: Batch, images: Sequence[ValidatedImage]) -> None:
        """Process `images`, the images of `batch` in order."""


class TextWriter:
    """Writes ``labels/<image>.txt`` with a row per detection: class, xywh or outline, and on request the confidence.

    An image without detections gets no file.
    """

    def __init__(self, save_dir: Path, confidence: bool, task: DetectionTask) -> None:
        self.folder = make_folder(save_dir / "labels")
        self.confidence = confidence
        self.task = task
        self._names = OutputNames()

    def add(self, batch: Batch, images: Sequence[ValidatedImage]) -> None:
        for image in images:
            found = image.detections.float().cpu().numpy()
            confidences = found[:, 4] if self.confidence else None
            masks = self.task.original_masks(image)
            if rows := label_rows(found[:, 5], found[:, :4], image.size, confidences, masks):
                with atomic_write(self.folder / f"{self._names[image.path]}.txt", "w", durable=False) as file:
                    file.writelines(rows)


class ValidationPlots:
    """The plots of a validation, written into `save_dir`.

    While the validation runs, these are ``val_batchN_labels.jpg`` and ``val_batchN_pred.jpg`` of the first `batches`.
    At its end, these are the curves, and the confusion matrix (confidence 0.25, IoU 0.45) as plot and table. Drawn are
    the detections that `detect.py` would give. Those that the metrics need, unsure and overlapping ones too, hide much.
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

    def add(self, batch: Batch, images: Sequence[ValidatedImage]) -> None:
        for image in images:
            self.confusion.process_batch(image.detections[:, :6], image.labels)
        if self._seen < self.batches:
            self._draw(batch, images)
            self._seen += 1

    def _draw(self, batch: Batch, images: Sequence[ValidatedImage]) -> None:
        """Draw the first images of a batch twice: with their labels, and with their detections."""
        stem = self.save_dir / f"val_batch{self._seen}"
        shown = self._as_detected(images)[:MOST_IMAGES]
        masks = [self.task.plot_masks(image) for image in shown]
        of_labels, of_detections = zip(*masks, strict=True) if masks and masks[0] is not None else (None, None)
        plot_images(batch.images, batch.targets, batch.paths, f"{stem}_labels.jpg", self.names, masks=of_labels)
        found = [image.input_detections for image in shown]
        plot_images(batch.images, found, batch.paths, f"{stem}_pred.jpg", self.names, masks=of_detections)

    def _as_detected(self, images: Sequence[ValidatedImage]) -> list[ValidatedImage]:
        """`images` with the detections that `detect.py` gives by default: one class per box, confidence above 0.25."""
        found = to_cpu(self.task.postprocess(images[0].output, agnostic=self._single, **DETECT))
        if self._single:
            for rows in found:
                rows[:, 5] = 0
        return [replace(image, input_detections=rows, cache={}) for image, rows in zip(images, found, strict=True)]

    def finish(self, metrics: Sequence[DetectionMetrics], groups: Sequence[str]) -> None:
        """Draw the plots that need all images; `groups` are the suffixes of the columns of `metrics`, in order."""
        for group, m in zip(groups, metrics, strict=True):
            plot_curves(m.result, self.names, self.save_dir, prefix=CURVE_PREFIX.get(group, ""))
        plot_confusion(self.confusion.matrix, self.names, self.save_dir / "confusion_matrix.png")
        self.confusion.csv(self.save_dir / "confusion_matrix.csv", self.names)
