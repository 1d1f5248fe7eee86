"""Task: the only seam between detection and segmentation. The loops in `engine/` ask it for everything that differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.validation.scene import Scene
from utils.data.batch import Batch


class DetectionTask:
    """Boxes: the `Detect` head, box + objectness + class loss, one metric group."""

    name = "detect"
    default_cfg = "yolov5_MobileNetv2.yaml"
    predict_command = "detect.py"
    val_command = "val.py"
    run_suffix = ""  # runs/train, runs/val, runs/detect
    loss_names: tuple[str, ...] = ("box", "obj", "cls")
    metric_groups: tuple[str, ...] = ("",)  # suffix of the metric columns; segmentation has (B) and (M)
    iou_types: tuple[str, ...] = ("bbox",)  # of the official COCO evaluator, one for each metric group
    polygons = False  # whether the data path carries polygons

    def build_model(
        self,
        cfg: str | Path | dict[str, Any],
        ch: int = 3,
        nc: int | None = None,
        anchors: Any = None,
    ) -> nn.Module:
        """An untrained model of this task from a YAML name, path or mapping."""
        from models.yolo import DetectionModel

        return DetectionModel(cfg, ch=ch, nc=nc, anchors=anchors)

    def criterion(self, model: nn.Module, hyp: dict[str, Any], autobalance: bool = False) -> Any:
        """The training loss for `model`; gains in `hyp` are used as given."""
        from utils.losses.detection import DetectionLoss

        return DetectionLoss(model, hyp, autobalance=autobalance)

    def loss(self, criterion: Any, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Total loss (1,) times the batch size, and its detached parts in the order of `loss_names`."""
        return criterion(predictions, batch.targets)

    def without_raw(self, output: Any) -> Any:
        """The model's evaluation output less what only the loss needs: what `postprocess` and `match` read."""
        return output[0] if isinstance(output, (list, tuple)) else output

    def postprocess(self, output: Any, **nms: Any) -> list[Tensor]:
        """Per image (n, 6): xyxy in pixels of the network input, confidence, class; `nms` goes to `utils.ops.nms`."""
        from utils.ops.nms import non_max_suppression

        return non_max_suppression(output, **nms)

    def match(self, scene: Scene, iou_thresholds: Tensor) -> tuple[Tensor, ...]:
        """For each of `metric_groups`, (n, len(iou_thresholds)) bool: which detections of `scene` are right."""
        from utils.metrics.matching import match_detections

        return (match_detections(scene.detections[:, :6], scene.labels, iou_thresholds),)

    def coco_fields(self, scene: Scene) -> list[dict[str, Any]]:
        """For each detection of `scene`, what its row in a COCO results file has besides image, box, class, score."""
        return [{}] * len(scene.detections)

    def dummy_batch(self, size: tuple[int, int], device: torch.device, nc: int) -> Batch:
        """Two grey images of `size` (height, width), the first with one object, for dry runs."""
        images = torch.full((2, 3, *size), 114, dtype=torch.uint8, device=device)
        targets = torch.tensor([[0, nc - 1, 0.5, 0.5, 0.4, 0.6]], device=device)
        return Batch(images=images, targets=targets, paths=["dry run"] * 2, shapes=None)
