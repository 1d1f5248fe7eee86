"""The validation loop: runs a model over a loader and computes metrics, losses and speeds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.task import DetectionTask
from engine.validation.listeners import ValidationListener, ValidationPlots
from engine.validation.report import LabelCounts, print_table, table_header
from engine.validation.statistics import BatchStatistics, ImageStatistics, ValidationStatistics, merge_statistics
from engine.validation.threaded_inference import ThreadedInference
from engine.validation.timer import StageTimer
from engine.validation.validated_image import ValidatedImage, validated_images
from utils.data.batch import Batch
from utils.devices import to_cpu, to_numpy
from utils.distributed import all_gather, is_main_process
from utils.metrics.detection import DetectionMetrics, fitness
from utils.progress import Progress

IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10)


class Speeds(NamedTuple):
    """Milliseconds per image."""

    preprocess: float
    inference: float
    nms: float


class ValidationSummary(NamedTuple):
    """What ``val.run()`` returns, in the form of YOLOv5's.

    `metrics`: for each metric group mean precision, mean recall, mAP50, mAP50-95; then the losses. `maps (nc,)`:
    mAP50-95 of each class, the mean of the groups. `speeds_ms`: pre-processing, inference, NMS, per image.
    """

    metrics: tuple[float, ...]
    maps: np.ndarray
    speeds_ms: tuple[float, float, float]


@dataclass(frozen=True)
class ValidationResult:
    """The figures of a validation. `groups` follow the `metric_groups` of the task, `losses` its `loss_names`."""

    groups: tuple[DetectionMetrics, ...]
    losses: tuple[float, ...]
    speeds_ms: Speeds
    counts: LabelCounts

    @property
    def metrics(self) -> DetectionMetrics:
        """The box metrics."""
        return self.groups[0]

    @property
    def means(self) -> list[float]:
        """Mean precision, mean recall, mAP50 and mAP50-95 of each group, one behind another."""
        return [value for group in self.groups for value in group.mean_results()]

    @property
    def fitness(self) -> float:
        """The number that chooses the best checkpoint: `utils.metrics.detection.fitness`, summed over the groups."""
        return sum(fitness(group) for group in self.groups)

    @property
    def maps(self) -> np.ndarray:
        """(nc,) mAP50-95 of each class, the mean of the groups; the mean of all where a class has no label."""
        return np.mean([group.maps for group in self.groups], 0)

    @property
    def summary(self) -> ValidationSummary:
        """The figures in the form that ``val.run()`` returns."""
        return ValidationSummary((*self.means, *self.losses), self.maps, self.speeds_ms)


def validate(
    model: nn.Module,
    loader: Iterable[Batch],
    task: DetectionTask,
    *,
    names: Mapping[int, str],
    device: torch.device,
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    amp_dtype: torch.dtype | None = None,
    augment: bool = False,
    criterion: Any = None,
    single_cls: bool = False,
    save_hybrid: bool = False,
    save_dir: Path | None = None,
    plots: bool = False,
    verbose: bool = False,
    progress: bool = True,
    listeners: Sequence[ValidationListener] = (),
    processes: int = 1,
) -> ValidationResult:
    """Score `model` on the images of `loader` and print the table.

    Args:
        model: in evaluation mode it answers images (B, 3, H, W) in 0..1 with ``(decoded, raw)``; left in its mode.
        names: classes of the data set.
        amp_dtype: autocast to this type on CUDA (a backend with `fp16` gets half images instead).
        criterion: the training loss, computed from the raw output; without it the losses are 0.
        save_hybrid: let the labels take part in NMS as certain detections.
        plots: write mosaics, curves and the confusion matrix into `save_dir`.
        verbose: print a line per class.
        listeners: called with every batch and its images.
        processes: how many processes validate together, each with the batches ``rank``, ``rank + processes``, … All
            return the figures of the whole, to the last digit those of one process; the main process prints them.
    """
    nc = 1 if single_cls else len(names)
    main = is_main_process() or processes == 1
    drawn = ValidationPlots(save_dir, names, nc, task, batches=3 if main else 0) if plots and save_dir else None
    step = _Step(
        model, task, device, amp_dtype=amp_dtype, augment=augment, criterion=criterion, save_hybrid=save_hybrid,
        single_cls=single_cls, nms={"conf_thres": conf_thres, "iou_thres": iou_thres, "max_det": max_det},
    )  # fmt: skip

    statistics = ValidationStatistics(seconds=step.timer.seconds, confusion=drawn.confusion.matrix if drawn else None)
    with evaluation_mode(model), step.network:
        for batch in Progress(loader, table_header(task.metric_groups), enabled=progress and main):
            images, losses = step(batch)
            statistics.batches.append(BatchStatistics(losses, [evaluate_image(image, task) for image in images]))
            for listener in (*listeners, *([drawn] if drawn else [])):
                listener.add(batch, images)

    statistics = merge_statistics(all_gather(statistics)) if processes > 1 else statistics
    result = compute_result(statistics, nc, task)
    if main:
        print_table(result.groups, result.counts, names, task.metric_groups, verbose)
        if drawn and statistics.confusion is not None:
            drawn.confusion.matrix = statistics.confusion
            drawn.finish(result.groups, task.metric_groups)
    return result


def compute_result(statistics: ValidationStatistics, nc: int, task: DetectionTask) -> ValidationResult:
    """The figures of all images in `statistics`."""
    groups = tuple(DetectionMetrics(nc) for _ in task.metric_groups)
    counts = LabelCounts.zeros(nc)
    for image in statistics.images:
        counts.add(image.labels)
        for metrics, correct in zip(groups, image.correct, strict=True):
            metrics.update(correct, image.confidences, image.classes, image.labels)
    speeds = Speeds(*(1e3 * statistics.seconds / max(counts.seen, 1)).tolist())
    return ValidationResult(groups, statistics.mean_losses or (0.0,) * len(task.loss_names), speeds, counts)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode within the block; afterwards each module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate_image(image: ValidatedImage, task: DetectionTask) -> ImageStatistics:
    """Which detections of `image` are right, for each of the task's metric groups, and the classes of its labels."""
    correct = tuple(to_numpy(right) for right in task.match(image, IOU_THRESHOLDS))
    # copies, because a view of a column would keep the whole table in memory
    confidences, classes = (to_numpy(image.detections[:, column]).copy() for column in (4, 5))
    return ImageStatistics(correct, confidences, classes, to_numpy(image.labels[:, 0]).copy())


class _Step:
    """One batch through the model and NMS, with a timer for each stage."""

    def __init__(
        self,
        model: nn.Module,
        task: DetectionTask,
        device: torch.device,
        *,
        amp_dtype: torch.dtype | None,
        augment: bool,
        criterion: Any,
        save_hybrid: bool,
        single_cls: bool,
        nms: dict[str, Any],
    ) -> None:
        self.task, self.device = task, device
        self.criterion = None if augment else criterion  # test-time augmentation has no raw output to score
        keep = None if self.criterion is not None else task.inference_output
        self.network = ThreadedInference(model, device, keep)
        self.augment, self.save_hybrid, self.single_cls = augment, save_hybrid, single_cls
        self.nms = {**nms, "multi_label": True, "agnostic": single_cls}
        self.fp16 = bool(getattr(model, "fp16", False))
        mixed = amp_dtype is not None and not self.fp16 and device.type == "cuda"
        self.autocast = torch.autocast(device.type, amp_dtype if mixed else None, enabled=mixed)
        self.timer = StageTimer(device, len(Speeds._fields))

    def __call__(self, batch: Batch) -> tuple[list[ValidatedImage], np.ndarray]:
        """The images of `batch`, on the CPU but for the model's output, and its losses.

        The results come from the device in one copy. (Before that, NMS reads how many candidates there are.)
        """
        detections, losses, output, match_inputs = self._compute(batch)
        pieces = to_cpu([losses, *detections, *(piece for column in match_inputs.values() for piece in column)])
        self.timer.read_marks()
        columns = [pieces[i : i + len(batch)] for i in range(1, len(pieces), len(batch))]
        images = validated_images(batch, columns[0], output)
        for name, column in zip(match_inputs, columns[1:], strict=True):
            for image, piece in zip(images, column, strict=True):
                image.cache[name] = piece
        return images, pieces[0].numpy()

    @torch.inference_mode()
    def _compute(self, batch: Batch) -> tuple[list[Tensor], Tensor, Any, dict[str, list[Tensor]]]:
        """On the device: detections in pixels of the network input, losses, the model's output, match inputs."""
        timer, here = self.timer, batch
        with timer.stage(0):
            batch = batch.to(self.device)
            images = (batch.images.half() if self.fp16 else batch.images.float()) / 255
        with timer.stage(1), self.autocast:
            output = self.network(images, augment=True) if self.augment else self.network(images)
        losses = torch.zeros(len(self.task.loss_names), device=self.device)
        if self.criterion is not None:
            losses = self.task.loss(self.criterion, self.task.training_output(output), batch)[1]
        with timer.stage(2):
            output, labels = self.task.with_labels(output, batch) if self.save_hybrid else (output, [])
            detections = self.task.postprocess(output, labels=labels, **self.nms)
        if self.single_cls:
            for found in detections:
                found[:, 5] = 0
        return detections, losses, output, self.task.match_inputs(output, here, detections)
