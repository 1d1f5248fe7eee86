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
from engine.validation.clock import StageClock
from engine.validation.listeners import Pictures, ValidationListener
from engine.validation.report import LabelCounts, print_table, table_header
from engine.validation.scene import Scene, scenes_of
from engine.validation.streams import Streams
from engine.validation.tally import BatchTally, Judged, Tally, merged
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
        plots: mosaics, curves and the confusion matrix into `save_dir`.
        verbose: a line for each class.
        listeners: called with every batch and its scenes.
        processes: so many processes validate together, each with the batches ``rank``, ``rank + processes``, … All
            return the figures of the whole, to the last digit those of one process; the main process prints them.
    """
    nc = 1 if single_cls else len(names)
    main = is_main_process() or processes == 1
    pictures = Pictures(save_dir, names, nc, task, batches=3 if main else 0) if plots and save_dir is not None else None
    step = _Step(
        model, task, device, amp_dtype=amp_dtype, augment=augment, criterion=criterion, save_hybrid=save_hybrid,
        single_cls=single_cls, nms={"conf_thres": conf_thres, "iou_thres": iou_thres, "max_det": max_det},
    )  # fmt: skip

    tally = Tally(seconds=step.clock.seconds, confusion=pictures.confusion.matrix if pictures else None)
    with evaluation_mode(model), step.network:
        for batch in Progress(loader, table_header(task.metric_groups), enabled=progress and main):
            scenes, losses = step(batch)
            tally.batches.append(BatchTally(losses, [judge(scene, task) for scene in scenes]))
            for listener in (*listeners, *([pictures] if pictures else [])):
                listener.add(batch, scenes)

    tally = merged(all_gather(tally)) if processes > 1 else tally
    result = result_of(tally, nc, task)
    if main:
        print_table(result.groups, result.counts, names, task.metric_groups, verbose)
        if pictures and tally.confusion is not None:
            pictures.confusion.matrix = tally.confusion
            pictures.finish(result.groups, task.metric_groups)
    return result


def result_of(tally: Tally, nc: int, task: DetectionTask) -> ValidationResult:
    """The figures of everything that was judged."""
    groups = tuple(DetectionMetrics(nc) for _ in task.metric_groups)
    counts = LabelCounts.zeros(nc)
    for image in tally.images:
        counts.add(image.labels)
        for metrics, correct in zip(groups, image.correct, strict=True):
            metrics.update(correct, image.confidences, image.classes, image.labels)
    speeds = Speeds(*(1e3 * tally.seconds / max(counts.seen, 1)).tolist())
    return ValidationResult(groups, tally.mean_losses or (0.0,) * len(task.loss_names), speeds, counts)


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


def judge(scene: Scene, task: DetectionTask) -> Judged:
    """The detections of `scene`, right or wrong for each of the task's metric groups, and its labels."""
    correct = tuple(to_numpy(right) for right in task.match(scene, IOU_THRESHOLDS))
    # copies, since a view of a column would keep the whole table alive
    confidences, classes = (to_numpy(scene.detections[:, column]).copy() for column in (4, 5))
    return Judged(correct, confidences, classes, to_numpy(scene.labels[:, 0]).copy())


class _Step:
    """One batch through the model and NMS, with a stopwatch for each stage."""

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
        self.network = Streams(model, device, keep=None if self.criterion is not None else task.without_raw)
        self.augment, self.save_hybrid, self.single_cls = augment, save_hybrid, single_cls
        self.nms = {**nms, "multi_label": True, "agnostic": single_cls}
        self.fp16 = bool(getattr(model, "fp16", False))
        mixed = amp_dtype is not None and not self.fp16 and device.type == "cuda"
        self.autocast = torch.autocast(device.type, amp_dtype if mixed else None, enabled=mixed)
        self.clock = StageClock(device, len(Speeds._fields))

    def __call__(self, batch: Batch) -> tuple[list[Scene], np.ndarray]:
        """The scenes of `batch`, on the CPU but for the model's output, and its losses.

        What is wanted of the results comes from the device in one copy. (Suppression reads how many candidates there
        are before that.)
        """
        detections, losses, output, evidence = self._compute(batch)
        pieces = to_cpu([losses, *detections, *(piece for column in evidence.values() for piece in column)])
        self.clock.settle()
        columns = [pieces[i : i + len(batch)] for i in range(1, len(pieces), len(batch))]
        scenes = scenes_of(batch, columns[0], output)
        for name, column in zip(evidence, columns[1:], strict=True):
            for scene, piece in zip(scenes, column, strict=True):
                scene.kept[name] = piece
        return scenes, pieces[0].numpy()

    @torch.inference_mode()
    def _compute(self, batch: Batch) -> tuple[list[Tensor], Tensor, Any, dict[str, list[Tensor]]]:
        """On the device: detections in pixels of the network input, losses, the model's output, the task's evidence."""
        clock, here = self.clock, batch
        with clock.stage(0):
            batch = batch.to(self.device)
            images = (batch.images.half() if self.fp16 else batch.images.float()) / 255
        with clock.stage(1), self.autocast:
            output = self.network(images, augment=True) if self.augment else self.network(images)
        losses = torch.zeros(len(self.task.loss_names), device=self.device)
        if self.criterion is not None:
            losses = self.task.loss(self.criterion, self.task.raw(output), batch)[1]
        with clock.stage(2):
            output, labels = self.task.with_labels(output, batch) if self.save_hybrid else (output, [])
            detections = self.task.postprocess(output, labels=labels, **self.nms)
        if self.single_cls:
            for found in detections:
                found[:, 5] = 0
        return detections, losses, output, self.task.evidence(output, here, detections)
