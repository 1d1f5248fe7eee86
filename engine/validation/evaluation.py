"""One validation of the command: loads weights and data set, scores them, writes and prints the results."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.task import DetectionTask, wrong_task
from engine.validation.coco import (
    CocoIds,
    JsonWriter,
    ids_of_annotations,
    import_pycocotools,
    report_gap,
    score_officially,
    write_ground_truth,
)
from engine.validation.listeners import TextWriter, ValidationListener
from engine.validation.options import ValOptions
from engine.validation.report import write_per_class
from engine.validation.validator import ValidationResult, ValidationSummary, validate
from models.backends import DetectMultiBackend
from utils.cli import image_size, network_size
from utils.data.images.memory import check_memory
from utils.data.indexing.index import ImageIndex, build_index
from utils.data.loader import create_loader
from utils.data.spec import DatasetSpec, load_dataset
from utils.devices import select_one_device
from utils.errors import UserError, out_of_memory_means
from utils.files import increment_path
from utils.logging import LOGGER, colorstr
from utils.ops.letterbox import make_divisible


@dataclass(frozen=True)
class Evaluation:
    """A model and a data set split, ready to be scored as `options` say."""

    options: ValOptions
    task: DetectionTask
    model: DetectMultiBackend
    device: torch.device
    index: ImageIndex
    names: dict[int, str]  # of the data set; one name with --single-cls
    official: tuple[Path, CocoIds] | None  # for --save-json: an official annotation file
    save_dir: Path

    @classmethod
    def prepare(cls, options: ValOptions, task: DetectionTask) -> Evaluation:
        """Load what `options` name, and refuse what does not fit together before anything takes long."""
        check_options(options)
        if options.save_json:
            import_pycocotools()
        device = select_one_device(options.device)
        model = DetectMultiBackend(
            options.weights, device, dnn=options.dnn, fp16=options.half, trust=options.trust
        )  # fmt: skip
        model.to(memory_format=torch.channels_last)  # a third less time on a CPU, tensor cores fed right on a GPU
        if model.task != task.name:
            raise wrong_task(options.weights[0], model.task, "val")
        if options.task != "study":  # which tries sizes of its own
            height, width = image_size(options.imgsz)
            size = make_divisible(height, model.stride), make_divisible(width, model.stride)
            model.check(size, options.augment)
        split = options.task if options.task in ("train", "test") else "val"
        spec = load_dataset(options.data, need=(split,))
        if not options.single_cls:
            check_classes(model.names, spec, str(options.weights[0]))
        index = build_index(
            spec.split(split), spec.nc, names=spec.names, polygons=task.polygons, single_cls=options.single_cls,
            prefix=f"{split}: ",
        )  # fmt: skip
        if options.task != "study":
            check_memory(min(options.batch_size, len(index)), size)
        names = {0: "object"} if options.single_cls and spec.nc > 1 else spec.names
        official = official_annotations(options, spec, index, names, outlines=task.polygons)
        save_dir = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=True)
        return cls(options, task, model, device, index, names, official, save_dir)

    def run(self) -> ValidationSummary:
        """Score, write the files that were asked for, and log where they are."""
        options = self.options
        writers = contextlib.ExitStack()
        with writers:
            listeners: list[ValidationListener] = []
            if options.save_txt:
                listeners.append(TextWriter(self.save_dir, options.save_conf, self.task))
            if options.save_json:
                truth, ids = self.ground_truth()
                predictions = self.save_dir / f"{Path(options.weights[0]).stem}_predictions.json"
                listeners.append(writers.enter_context(JsonWriter(predictions, ids, self.task)))
            result, shape = self.score(image_size(options.imgsz), listeners=listeners)
        write_per_class(
            self.save_dir / "metrics_per_class.csv", result.groups, result.counts, self.names, self.task.metric_groups
        )
        self.report_speed(result, shape)
        if options.save_json:
            self.score_officially(result, truth, predictions, ids)
        if options.save_txt:
            LOGGER.info(
                f"{len(list((self.save_dir / 'labels').glob('*.txt')))} label files in {self.save_dir / 'labels'}"
            )
        LOGGER.info(f"Results in {colorstr('bold', str(self.save_dir))}")
        return result.summary

    def score(
        self, imgsz: tuple[int, int], *, listeners: list[ValidationListener] | None = None, **overrides: Any
    ) -> tuple[ValidationResult, tuple[int, ...]]:
        """Validate at `imgsz` (height, width); also the input shape. `overrides` replace arguments of `validate`."""
        options = self.options
        stride = self.model.stride
        size = network_size(imgsz, stride)
        rect = self.model.any_size and options.task != "speed"
        loader = create_loader(
            self.index, size, min(options.batch_size, len(self.index)), stride=stride, rect=rect,
            pad=0.5 if rect else 0.0, workers=options.workers, single_cls=options.single_cls, nc=len(self.names),
            polygons=self.task.polygons,
        )  # fmt: skip
        shape = (min(options.batch_size, len(self.index)), 3, *size)
        self.model.warmup(imgsz=(1 if self.model.pt else shape[0], 3, *size))
        arguments: dict[str, Any] = {
            "conf_thres": options.conf_thres, "iou_thres": options.iou_thres, "max_det": options.max_det,
            "amp_dtype": torch.float16 if options.half else None, "augment": options.augment,
            "single_cls": options.single_cls, "save_hybrid": options.save_hybrid, "save_dir": self.save_dir,
            "plots": not options.no_plots,
            "verbose": options.verbose or len(self.names) < 50, "listeners": listeners or (),
        }  # fmt: skip
        arguments.update(overrides)
        given = options.batch_size
        with out_of_memory_means(f"at --batch-size {given}; try --batch-size {max(given // 2, 1)}"):
            result = validate(self.model, loader, self.task, names=self.names, device=self.device, **arguments)
        return result, shape

    def report_speed(self, result: ValidationResult, shape: tuple[int, ...]) -> None:
        pre, inference, nms = result.speeds_ms
        LOGGER.info(
            f"Speed per image: {pre:.1f} ms pre-processing, {inference:.1f} ms inference, {nms:.1f} ms NMS, "
            f"at {shape[2]}×{shape[3]} in batches of {shape[0]}"
        )

    def ground_truth(self) -> tuple[Path, CocoIds]:
        """The official annotation file, or one written from the labels, and the ids it uses."""
        if self.official is not None:
            return self.official
        path = self.save_dir / "ground_truth.json"
        return path, write_ground_truth(self.index, self.names, path)

    def score_officially(self, result: ValidationResult, truth: Path, predictions: Path, ids: CocoIds) -> None:
        """Run the official evaluator on each metric group and log how far our figures are from its own."""
        LOGGER.info(f"Scoring {predictions} against {truth}")
        for iou_type, metrics in zip(self.task.iou_types, result.groups, strict=True):
            official = score_officially(truth, predictions, list(ids.images.values()), iou_type)
            report_gap(official, metrics.map50, metrics.map, iou_type)


def official_annotations(
    options: ValOptions, spec: DatasetSpec, index: ImageIndex, names: Mapping[int, str], outlines: bool
) -> tuple[Path, CocoIds] | None:
    """With --save-json, the annotation file to score against and its ids; None if there is no such file.

    ``--coco-annotations`` names it; else it is ``annotations/instances_<folder of the images>.json`` of the data set,
    as COCO ships it.
    """
    if not options.save_json:
        return None
    path = spec.path / "annotations" / f"instances_{Path(index.path(0)).parent.name}.json"
    if options.coco_annotations:
        path = Path(options.coco_annotations)
    elif options.single_cls or not path.is_file():
        return None
    return path, ids_of_annotations(path, index.paths, names, outlines)


def check_options(options: ValOptions) -> None:
    """Refuse flags that contradict each other."""
    image_size(options.imgsz)
    if options.coco_annotations and not options.save_json:
        raise UserError("--coco-annotations is for --save-json; give both")
    if options.conf_thres > 0.001 and options.task in ("train", "val", "test"):
        LOGGER.warning(f"--conf-thres {options.conf_thres} is above 0.001, which lowers recall and mAP")
    if options.save_hybrid:
        LOGGER.warning("--save-hybrid adds the labels to the detections: mAP below is of both together")


def check_classes(names: Mapping[int, str], spec: DatasetSpec, weights: str) -> None:
    """Raise `UserError` if model and data set differ in their number of classes; warn if names differ."""
    if len(names) != spec.nc:
        raise UserError(
            f"{weights} detects {len(names)} classes ({_some(names)}), but {spec.yaml_file or 'the data set'} has "
            f"{spec.nc} ({_some(spec.names)}); use weights trained on this data, or --single-cls to ignore classes"
        )
    differing = [c for c in range(spec.nc) if names.get(c) != spec.names.get(c)]
    if differing:
        c = differing[0]
        LOGGER.warning(
            f"{len(differing)} class names differ: class {c} is '{names.get(c)}' in {weights}, but "
            f"'{spec.names.get(c)}' in the data set; if the order differs, the figures below mean nothing"
        )


def _some(names: Mapping[int, str]) -> str:
    shown = [str(name) for name in list(names.values())[:3]]
    return ", ".join([*shown, "…"] if len(names) > 3 else shown)
