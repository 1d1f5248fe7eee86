"""The prediction command: weights and a source in; annotated frames, files and counts out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2

from engine.prediction.options import DetectOptions
from engine.prediction.outputs import OutputOptions
from engine.prediction.predictor import InferenceOptions, PredictionSummary, log_summary, predict
from engine.task import DetectionTask, wrong_task
from models.backends import DetectMultiBackend
from models.checkpoints.checkpoint import strip_optimizer
from models.weights import find_weights, newest_best
from utils.cli import network_size
from utils.data.images.memory import check_memory
from utils.data.sources.source import open_source
from utils.devices import select_one_device
from utils.errors import UserError
from utils.files import ROOT, increment_path
from utils.logging import LOGGER

_INFERENCE = ("batch_size", "conf_thres", "iou_thres", "max_det", "classes", "agnostic_nms", "augment", "visualize")
_FILES = ("save_txt", "save_csv", "save_crop", "save_mask")
_OUTPUT = (*_FILES, "save_conf", "nosave", "view_img", "line_thickness", "hide_labels", "hide_conf")


def run_prediction(options: DetectOptions, task: DetectionTask) -> PredictionSummary:
    """Predict as `options` say. Everything that can be checked is checked before the run folder is made."""
    source = open_source(_source(options.source), options.vid_stride)
    font = _font(options.font)
    backend = _backend(options, task)
    imgsz = network_size(options.imgsz, backend.stride)
    backend.check(imgsz, options.augment, options.visualize)
    check_memory(options.batch_size, imgsz)
    _quieten_decoders()

    writes = not options.nosave or options.visualize or any(getattr(options, name) for name in _FILES)
    save_dir = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=writes)
    inference = InferenceOptions(imgsz, **{name: getattr(options, name) for name in _INFERENCE})
    output = OutputOptions(save_dir, font=font, **{name: getattr(options, name) for name in _OUTPUT})
    try:
        summary = predict(source, backend, task, inference, output)
    finally:
        _remove_if_empty(save_dir)
    log_summary(summary, backend.names, imgsz)
    summary.save_dir = save_dir if save_dir.exists() else None
    if summary.save_dir:
        LOGGER.info(f"Results saved to {save_dir}")
    return summary


def _backend(options: DetectOptions, task: DetectionTask) -> DetectMultiBackend:
    """The network of ``--weights``. Raises `UserError` if it is of another task or has not all of ``--classes``."""
    weights = _weights(options, task)
    backend = DetectMultiBackend(
        weights,
        device=select_one_device(options.device),
        dnn=options.dnn,
        fp16=options.half,
        trust=options.trust,
    )
    if backend.task != task.name:
        raise wrong_task(", ".join(weights), backend.task, "predict")
    for number in options.classes or []:
        if number not in backend.names:
            raise UserError(f"--classes {number}: the model's classes are 0 to {max(backend.names)}")
    return backend


def _quieten_decoders() -> None:
    """Keep decoders from writing about broken files and streams to stderr; the sources say it in one line."""
    logging = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # OpenCV 4, OpenCV 5
    logging.setLogLevel(0)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read by OpenCV when the first video is opened


def _remove_if_empty(folder: Path) -> None:
    """A run that could read nothing leaves no run folder behind."""
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder)


def _source(given: str | list[str] | tuple[str, ...]) -> str | list[str] | tuple[str, ...]:
    """`given`; the default source is in the project's folder, wherever the command was started."""
    return given if given != "data/images" or Path(given).exists() else str(ROOT / "data" / "images")


def _font(given: str | None) -> str | None:
    if given is None:
        return None
    from utils.plots.fonts import font_file

    return font_file(given)


def _weights(options: DetectOptions, task: DetectionTask) -> list[str]:
    if not options.weights:
        newest = newest_best(task.run_suffix)
        LOGGER.info(f"--weights not given, so the newest training's: {newest}")
        return [str(newest)]
    found = [str(find_weights(weights)) for weights in options.weights]
    if options.update:
        for path in found:
            if Path(path).suffix == ".pt":  # exported files hold no training state
                strip_optimizer(path)
    return found
