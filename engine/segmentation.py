"""Instance segmentation as a task: boxes as in detection, and a mask for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from engine.task import DetectionTask
from engine.training.options import SegmentTrainOptions, TrainOptions
from engine.validation.validated_image import ValidatedImage
from utils.data.batch import Batch
from utils.data.rasterize import MaskFormat, polygons_to_box_masks, rasterize
from utils.logging import LOGGER
from utils.ops.boxes import scale_boxes
from utils.ops.masks import box_mask_iou, box_masks, mask_iou, process_mask

if TYPE_CHECKING:
    from utils.ops.masks import BoxMask


class SegmentationTask(DetectionTask):
    """Masks: the `Segment` head, a mask loss beside the three of detection, and a second metric group.

    `retina_masks` predicts and matches masks in pixels of the original image, instead of predicting in pixels of the
    network's input and matching in cells of the prototypes, a quarter of that.
    """

    name = "segment"
    default_cfg = "yolov5_MobileNetv2-seg.yaml"
    run_suffix = "-seg"
    loss_names = ("box", "seg", "obj", "cls")
    metric_groups = ("(B)", "(M)")
    iou_types = ("bbox", "segm")
    polygons = True
    train_options = SegmentTrainOptions

    def __init__(self, retina_masks: bool = False) -> None:
        self.retina_masks = retina_masks

    def build_model(
        self, cfg: str | Path | dict[str, Any], ch: int = 3, nc: int | None = None, anchors: Any = None
    ) -> nn.Module:
        from models.yolo import SegmentationModel

        return SegmentationModel(cfg, ch=ch, nc=nc, anchors=anchors)

    def cfg_from_checkpoint(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """`cfg`; a detector's with a `Segment` for its `Detect`, so that it lends a segmenter all but the outputs."""
        *rows, (sources, number, module, *arguments) = cfg["head"]
        if module != "Detect":
            return cfg
        LOGGER.info("The checkpoint is a detector: its network gets a Segment head, with new outputs and prototypes")
        return {**cfg, "head": [*rows, [sources, number, "Segment", *arguments]]}

    def data_options(self, options: TrainOptions) -> dict[str, Any]:
        assert isinstance(options, SegmentTrainOptions)
        return {"polygons": True, "masks": MaskFormat(options.mask_ratio, overlap=not options.no_overlap)}

    def criterion(self, model: nn.Module, hyp: dict[str, Any], options: TrainOptions | None = None) -> Any:
        from utils.losses.segmentation import SegmentationLoss

        return SegmentationLoss(model, hyp, overlap=not getattr(options, "no_overlap", False))

    def loss(self, criterion: Any, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        return criterion(predictions, batch.targets, batch.masks)

    def training_output(self, output: Any) -> Any:
        return [level.float() for level in output[2]], output[1].float()

    def inference_output(self, output: Any) -> Any:
        return tuple(output[:2])

    def postprocess(self, output: Any, **nms: Any) -> list[Tensor]:
        decoded, prototypes = output[:2]
        return super().postprocess(decoded, nm=prototypes.shape[1], **nms)

    def with_labels(self, output: Any, batch: Batch) -> tuple[Any, list[Tensor]]:
        """As for detection; each label brings its own mask as one prototype more, of which it has the only share."""
        decoded, prototypes = self.inference_output(output)
        _, labels = super().with_labels(output, batch)
        assert batch.polygons is not None, "a loader with polygons=True is needed"
        counts, (b, nm, h, w) = [len(rows) for rows in labels], prototypes.shape
        size = batch.images.shape[2], batch.images.shape[3]
        masks = torch.from_numpy(rasterize(batch.polygons, size, size[0] // h)).split(counts)
        own = prototypes.new_full((b, max(counts), h, w), -1.0)
        for image, stack in zip(own, masks, strict=True):
            image[: len(stack)] = stack * 2.0 - 1.0
        labels = [
            torch.cat((rows, rows.new_zeros(len(rows), nm), torch.eye(len(rows), max(counts)).to(rows)), 1)
            for rows in labels
        ]
        return (pad(decoded, (0, max(counts))), torch.cat((prototypes, own), 1)), labels

    def match_inputs(self, output: Any, batch: Batch, detections: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """The overlaps (m, n) of labels and detections, or with `retina_masks` the prototypes (nm, h, w)."""
        prototypes, size = output[1], (batch.images.shape[2], batch.images.shape[3])
        if self.retina_masks:
            return {"prototypes": list(prototypes)}
        overlaps = []
        for i, (own, found) in enumerate(zip(prototypes, detections, strict=True)):
            known = torch.from_numpy(rasterize(batch.outlines(i), size, size[0] // own.shape[1]))
            masks = process_mask(own, found[:, 6:], found[:, :4], size)
            overlaps.append(mask_iou(known.to(own.device, non_blocking=True), masks))
        return {"mask_iou": overlaps}

    def match(self, image: ValidatedImage, iou_thresholds: Tensor) -> tuple[Tensor, ...]:
        from utils.metrics.matching import match_by_iou

        iou = self._retina_iou(image) if self.retina_masks else image.cache["mask_iou"]
        right = match_by_iou(iou, image.labels[:, 0], image.detections[:, 5], iou_thresholds)
        return *super().match(image, iou_thresholds), right

    def instance_masks(
        self, output: Any, index: int, rows: Tensor, input_shape: tuple[int, int], size: tuple[int, int]
    ) -> list[BoxMask]:
        return self._masks(output[1][index], rows, input_shape, size, None, self.retina_masks)

    def target_masks(self, batch: Batch, options: TrainOptions) -> Sequence[Tensor]:
        assert isinstance(options, SegmentTrainOptions)
        return batch.mask_stacks(overlap=not options.no_overlap)

    def plot_masks(self, image: ValidatedImage) -> tuple[np.ndarray, np.ndarray]:
        prototypes, size = image.output[1][image.index], image.input_shape
        known = rasterize(image.polygons(), size, size[0] // prototypes.shape[1])
        rows = image.input_detections.to(prototypes.device)
        return known, process_mask(prototypes, rows[:, 6:], rows[:, :4], size).cpu().numpy()

    def original_masks(self, image: ValidatedImage) -> list[BoxMask]:
        if "masks" not in image.cache:  # matching, JSON and text files ask for the same ones
            prototypes = image.cache.get("prototypes", image.output[1][image.index])
            image.cache["masks"] = self._masks(
                prototypes, image.input_detections, image.input_shape, image.size, image.ratio_pad, retina=True
            )
        return image.cache["masks"]

    def dummy_batch(self, size: tuple[int, int], device: torch.device, nc: int) -> Batch:
        batch = super().dummy_batch(size, device, nc)
        height, width = size[0] // 4, size[1] // 4
        batch.masks = torch.zeros((2, height, width), dtype=torch.uint8, device=device)
        batch.masks[0, height // 4 : height // 2, width // 4 : width // 2] = 1
        return batch

    def _retina_iou(self, image: ValidatedImage) -> np.ndarray:
        """(m, n) labels × detections, in pixels of the original."""
        return box_mask_iou(polygons_to_box_masks(image.original_polygons(), image.size), self.original_masks(image))

    @staticmethod
    def _masks(
        prototypes: Tensor,
        rows: Tensor,
        input_shape: tuple[int, int],
        size: tuple[int, int],
        ratio_pad: tuple | None,
        retina: bool,
    ) -> list[BoxMask]:
        boxes = scale_boxes(input_shape, rows[:, :4].clone(), size, ratio_pad)
        return box_masks(prototypes, rows[:, 6:], boxes, size, input_shape, ratio_pad, retina)
