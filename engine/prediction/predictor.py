"""The prediction loop: frames in, detections out, for every kind of source and every task."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from engine.prediction.outputs import FrameResult, OutputNames, OutputOptions, Outputs
from utils.data.sources.frame import Frame, Unreadable
from utils.data.sources.source import Source
from utils.devices import Profile, smart_inference_mode
from utils.errors import UserError, printable
from utils.files import make_folder
from utils.logging import LOGGER
from utils.ops.boxes import scale_boxes
from utils.ops.class_names import describe
from utils.ops.letterbox import letterbox_chw
from utils.ops.masks import BoxMask


class PredictionTask(Protocol):
    """The methods of a task that prediction calls."""

    def postprocess(self, output: Any, **nms: Any) -> list[Tensor]:
        """Per image (n, 6 [+ nm]): xyxy pixels of the network input, confidence, class, …, by falling confidence."""

    def instance_masks(
        self, output: Any, index: int, rows: Tensor, input_shape: tuple[int, int], size: tuple[int, int]
    ) -> Sequence[BoxMask] | None:
        """The masks of `rows`, the detections of image `index` of the batch, in pixels of the frame, or None.

        `input_shape` is (height, width) of the network input, `size` that of the frame.
        """


@dataclass(frozen=True)
class InferenceOptions:
    """How to run the network, and which detections to keep; `imgsz` is (height, width), multiples of the stride."""

    imgsz: tuple[int, int] = (640, 640)
    batch_size: int = 1
    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 1000
    classes: Sequence[int] | None = None
    agnostic_nms: bool = False
    augment: bool = False
    visualize: bool = False


@dataclass
class PredictionSummary:
    """What a run has read and found.

    `sources` counts the files or streams that were named, `images` and `frames` (images included) those that were read.
    `detections` counts detections by class. `unreadable` names what could not be read, or not completely.
    """

    save_dir: Path | None = None
    sources: int = 0
    images: int = 0
    frames: int = 0
    detections: Counter[int] = field(default_factory=Counter)
    unreadable: list[Unreadable] = field(default_factory=list)
    seconds: float = 0.0
    speeds_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)  # pre-processing, inference, NMS and masks; per frame
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether all sources could be read."""
        return not self.unreadable


class _PreparedFrame(NamedTuple):
    frame: Frame
    input: np.ndarray  # (3, h, w) uint8 RGB


@smart_inference_mode()
def predict(
    source: Source, backend: Any, task: PredictionTask, options: InferenceOptions, output: OutputOptions
) -> PredictionSummary:
    """Run `backend` on every frame of `source` and write the outputs that `output` asks for.

    Ctrl-C ends a live source in the ordinary way. For any other source it is raised again, after the videos that were
    begun have been finished. Raises `UserError` if an output would overwrite an input.
    """
    _protect_inputs(source, output)
    if backend.device.type != "cpu":
        backend.warmup(imgsz=(1 if source.live else options.batch_size, 3, *options.imgsz))
    summary = PredictionSummary(output.save_dir, sources=len(source))
    predictor = _BatchPredictor(backend, task, options, output.save_dir)
    log = _ResultLog(backend.names, source.live)
    start = time.perf_counter()
    with Outputs(output, backend.names, source.live) as outputs:
        try:
            for batch in _batches(source, backend, options):
                for result in predictor(batch):
                    outputs.write(result)
                    log.add(result, batch[0].input.shape, predictor.milliseconds)
                    summary.frames += 1
                    summary.images += result.frame.kind == "image"
                    summary.detections.update(result.classes.tolist())
                if outputs.stopped:
                    summary.interrupted = True
                    break
        except KeyboardInterrupt:
            summary.interrupted = True
            if not source.live:
                raise
    summary.seconds = time.perf_counter() - start
    summary.unreadable = source.unreadable
    summary.speeds_ms = predictor.speeds_ms()
    return summary


class _BatchPredictor:
    """Computes the results of batches of prepared frames, and adds up the time of each stage."""

    def __init__(self, backend: Any, task: PredictionTask, options: InferenceOptions, save_dir: Path) -> None:
        self._backend, self._task, self._options, self._save_dir = backend, task, options, save_dir
        self._names = OutputNames()
        self._timers = Profile(), Profile(), Profile()
        self._frames = 0
        self.milliseconds = 0.0  # inference, per frame of the last batch

    def __call__(self, batch: list[_PreparedFrame]) -> list[FrameResult]:
        options, (before, inference, after) = self._options, self._timers
        with before:
            pixels = torch.from_numpy(np.stack([item.input for item in batch])).to(self._backend.device)
            images = (pixels.half() if self._backend.fp16 else pixels.float()).div_(255)
        with inference:
            predictions = self._backend(images, augment=options.augment, visualize=self._feature_folder(batch[0].frame))
        with after:
            found = self._task.postprocess(
                predictions,
                conf_thres=options.conf_thres,
                iou_thres=options.iou_thres,
                classes=options.classes,
                agnostic=options.agnostic_nms,
                max_det=options.max_det,
            )
            shape = (images.shape[2], images.shape[3])
            results = [
                self._result(item.frame, predictions, index, rows.float(), shape)
                for index, (item, rows) in enumerate(zip(batch, found, strict=True))
            ]
        self._frames += len(batch)
        self.milliseconds = inference.dt / len(batch) * 1000
        return results

    def _result(self, frame: Frame, predictions: Any, index: int, rows: Tensor, shape: tuple[int, int]) -> FrameResult:
        size = frame.image.shape[0], frame.image.shape[1]
        masks = self._task.instance_masks(predictions, index, rows, shape, size)
        boxes = scale_boxes(shape, rows[:, :4].clone(), size).cpu().numpy()
        confidences, classes = rows[:, 4].cpu().numpy(), rows[:, 5].long().cpu().numpy()
        return FrameResult(frame, self._names[frame.path], boxes, confidences, classes, masks)

    def _feature_folder(self, frame: Frame) -> Path | bool:
        if not self._options.visualize:
            return False
        name = self._names[frame.path]
        folder = self._save_dir / (name if frame.kind == "image" else f"{name}_{frame.number}")
        return make_folder(folder)

    def speeds_ms(self) -> tuple[float, float, float]:
        before, inference, after = (timer.t / max(1, self._frames) * 1000 for timer in self._timers)
        return before, inference, after


def _batches(source: Source, backend: Any, options: InferenceOptions) -> Iterator[list[_PreparedFrame]]:
    """Batches of up to `batch_size` frames whose network inputs have the same shape.

    Images wait until there are enough of their shape, for a few batches at most. Frames of a live source do not wait.
    Frames of a video keep their order, and come before those of the next video.
    """
    size = 1 if options.visualize else max(1, options.batch_size)
    waiting: dict[tuple[int, ...], list[_PreparedFrame]] = {}  # the shape that has waited longest is first

    def prepared(frame: Frame) -> _PreparedFrame:
        return _PreparedFrame(
            frame, letterbox_chw(frame.image, options.imgsz, int(backend.stride), auto=backend.any_size)
        )

    previous: Frame | None = None
    for group in source:
        for frame in group:
            if previous and previous.path != frame.path and "video" in (previous.kind, frame.kind):
                yield from waiting.values()
                waiting.clear()
            previous = frame
            item = prepared(frame)
            waiting.setdefault(item.input.shape, []).append(item)
            if len(waiting[item.input.shape]) >= (len(source) if source.live else size):
                yield waiting.pop(item.input.shape)
        if source.live:
            yield from waiting.values()
            waiting.clear()
        elif sum(map(len, waiting.values())) >= 4 * size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _protect_inputs(source: Source, output: OutputOptions) -> None:
    """Refuse to write annotated images over their sources, whose names they have."""
    folder = output.save_dir.resolve()
    for path in source.paths:
        if not output.nosave and not source.live and Path(path).resolve().parent == folder:
            raise UserError(f"'{path}' lies in '{output.save_dir}' and would be overwritten; choose another --name")


class _ResultLog:
    """Logs a line per image, and one every few seconds for a stream. The source shows the progress of a video."""

    def __init__(self, names: dict[int, str], live: bool) -> None:
        self._names = names
        self._pause = (1.0 if sys.stdout.isatty() else 10.0) if live else 0.0
        self._last: dict[str, float] = {}

    def add(self, result: FrameResult, shape: Sequence[int], milliseconds: float) -> None:
        frame = result.frame
        if frame.kind == "video":
            return
        now = time.monotonic()
        if frame.kind == "stream" and now - self._last.get(frame.path, -1e9) < self._pause:
            return
        self._last[frame.path] = now
        number = f", frame {frame.number}" if frame.kind == "stream" else ""
        text = f"{shape[1]}x{shape[2]} {result.summary(self._names)}, {milliseconds:.1f}ms"
        LOGGER.info(printable(f"{frame.place} {frame.path}{number}: {text}"))


def log_summary(summary: PredictionSummary, names: dict[int, str], imgsz: tuple[int, int]) -> None:
    """Log what was found, how fast, and what could not be read."""
    if summary.frames:
        _log_counts(summary, names, imgsz)
    if summary.unreadable:
        count = len(summary.unreadable)
        named = [f"{item.path} ({item.reason})" for item in summary.unreadable[:5]]
        listed = ", ".join(named) + (", …" if count > 5 else "")
        LOGGER.error(f"{count} of {summary.sources} sources could not be read, or not in full: {listed}")


def _log_counts(summary: PredictionSummary, names: dict[int, str], imgsz: tuple[int, int]) -> None:
    stills = f"{summary.images} image{'s' if summary.images != 1 else ''}"
    moving = summary.frames - summary.images
    what = f"{stills} and {moving} frames" if summary.images and moving else f"{moving} frames" if moving else stills
    LOGGER.info(printable(f"{what} in {summary.seconds:.1f} s: {describe(summary.detections, names)}"))
    before, inference, after = summary.speeds_ms
    LOGGER.info(
        f"Speed: {before:.1f}ms pre-process, {inference:.1f}ms inference, {after:.1f}ms NMS per image"
        f" at {imgsz[0]}x{imgsz[1]} at the most"
    )
