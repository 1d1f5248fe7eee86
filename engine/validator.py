"""The validation loop: a model over a loader, to metrics, losses and speeds."""

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
from engine.validation.listeners import Pictures, ValidationListener
from engine.validation.report import LabelCounts, print_table, table_header
from engine.validation.scene import Scene, scenes_of
from engine.validation.streams import Streams
from utils.data.batch import Batch
from utils.devices import Profile
from utils.metrics.detection import DetectionMetrics, fitness
from utils.progress import Progress

IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10)


class Speeds(NamedTuple):
    """Milliseconds per image."""

    preprocess: float
    inference: float
    nms: float


@dataclass(frozen=True)
class ValidationResult:
    """What a validation found. `groups` follow the task's `metric_groups` (boxes first); `losses` its `loss_names`."""

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
        """What the best checkpoint has most of: `utils.metrics.detection.fitness`, summed over the groups."""
        return sum(fitness(group) for group in self.groups)

    @property
    def maps(self) -> np.ndarray:
        """(nc,) mAP50-95 of each class, the mean of the groups; the mean of all where a class has no label."""
        return np.mean([group.maps for group in self.groups], 0)


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
    half: bool = False,
    augment: bool = False,
    criterion: Any = None,
    single_cls: bool = False,
    save_hybrid: bool = False,
    save_dir: Path | None = None,
    plots: bool = False,
    verbose: bool = False,
    progress: bool = True,
    listeners: Sequence[ValidationListener] = (),
) -> ValidationResult:
    """Score `model` on the images of `loader` and print the table.

    Args:
        model: in evaluation mode it answers images (B, 3, H, W) in 0..1 with ``(decoded, raw)``; left in its mode.
        names: classes of the data set.
        half: autocast to float16 on CUDA (a backend with `fp16` gets half images instead).
        criterion: the training loss, computed from the raw output; without it the losses are 0.
        save_hybrid: let the labels take part in NMS as certain detections.
        plots: mosaics, curves and the confusion matrix into `save_dir`.
        verbose: a line for each class.
        listeners: called with every batch and its scenes.
    """
    nc = 1 if single_cls else len(names)
    groups = tuple(DetectionMetrics(nc) for _ in task.metric_groups)
    counts = LabelCounts.zeros(nc)
    pictures = Pictures(save_dir, names, nc, task) if plots and save_dir is not None else None
    watching = [*listeners, *([pictures] if pictures else [])]
    criterion = None if augment else criterion  # test-time augmentation has no raw output to score
    network = Streams(model, device, keep=None if criterion is not None else task.without_raw)
    step = _Step(
        network, task, device, half=half, augment=augment, criterion=criterion, save_hybrid=save_hybrid,
        single_cls=single_cls, nms={"conf_thres": conf_thres, "iou_thres": iou_thres, "max_det": max_det},
    )  # fmt: skip

    with evaluation_mode(model), network:
        for batch in Progress(loader, table_header(task.metric_groups), enabled=progress):
            batch, detections, output = step(batch)
            scenes = scenes_of(batch, detections, output)
            for scene in scenes:
                counts.add(scene.labels[:, 0])
                judge(scene, task, groups)
            for listener in watching:
                listener.add(batch, scenes)

    result = ValidationResult(groups, step.mean_losses(), step.speeds(counts.seen), counts)
    print_table(result.groups, counts, names, task.metric_groups, verbose)
    if pictures:
        pictures.finish(groups, task.metric_groups)
    return result


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model` in evaluation mode within the block; afterwards each module as it was (frozen ones apart)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def judge(scene: Scene, task: DetectionTask, groups: Sequence[DetectionMetrics]) -> None:
    """Add the detections of `scene`, right or wrong, to the metrics of each of the task's groups."""
    confidences, classes = scene.detections[:, 4], scene.detections[:, 5]
    for metrics, correct in zip(groups, task.match(scene, IOU_THRESHOLDS), strict=True):
        metrics.update(correct, confidences, classes, scene.labels[:, 0])


class _Step:
    """One batch through the model and NMS, with a stopwatch for each stage and the running loss."""

    def __init__(
        self,
        network: Streams,
        task: DetectionTask,
        device: torch.device,
        *,
        half: bool,
        augment: bool,
        criterion: Any,
        save_hybrid: bool,
        single_cls: bool,
        nms: dict[str, Any],
    ) -> None:
        self.network, self.task, self.device = network, task, device
        self.augment, self.save_hybrid, self.single_cls = augment, save_hybrid, single_cls
        self.nms = {**nms, "multi_label": True, "agnostic": single_cls}
        self.criterion = criterion
        self.fp16 = bool(getattr(network.model, "fp16", False))
        self.autocast = torch.autocast(
            device.type, torch.float16, enabled=half and not self.fp16 and device.type == "cuda"
        )  # fmt: skip
        self.timers = (Profile(), Profile(), Profile())
        self.batches = 0
        self.loss_sum = torch.zeros(len(task.loss_names), device=device)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> tuple[Batch, list[Tensor], Any]:
        """The batch on the device, its detections in pixels of the network input, and the model's output."""
        preprocess, inference, nms = self.timers
        with preprocess:
            batch = batch.to(self.device)
            images = (batch.images.half() if self.fp16 else batch.images.float()) / 255
        with inference, self.autocast:
            output = self.network(images, augment=True) if self.augment else self.network(images)
        if self.criterion is not None:
            self.loss_sum += self.task.loss(self.criterion, self.task.raw(output), batch)[1]
        with nms:
            output, labels = self.task.with_labels(output, batch) if self.save_hybrid else (output, [])
            detections = self.task.postprocess(output, labels=labels, **self.nms)
        if self.single_cls:
            for found in detections:
                found[:, 5] = 0
        self.batches += 1
        return batch, detections, output

    def mean_losses(self) -> tuple[float, ...]:
        return tuple((self.loss_sum / max(self.batches, 1)).tolist())

    def speeds(self, images: int) -> Speeds:
        return Speeds(*(1e3 * timer.t / max(images, 1) for timer in self.timers))
