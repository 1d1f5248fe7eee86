"""Task: the only seam between detection and segmentation. The loops in `engine/` ask it for everything that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.validation.scene import Scene
from utils.cli import command_of
from utils.data.batch import Batch
from utils.errors import UserError

if TYPE_CHECKING:
    from utils.ops.masks import BoxMask

COMMANDS = {
    "detect": {"train": "train.py", "val": "val.py", "predict": "detect.py"},
    "segment": {"train": "segment/train.py", "val": "segment/val.py", "predict": "segment/predict.py"},
}


def wrong_task(weights: str, task: str, command: str) -> UserError:
    """What to say of `weights` of another `task`, and which `command` (train, val, predict) is theirs."""
    return UserError(f"{weights}: a {task} model; the command for it is {command_of(COMMANDS[task][command])}")


class DetectionTask:
    """Boxes: the `Detect` head, box + objectness + class loss, one metric group."""

    name = "detect"
    default_cfg = "yolov5_MobileNetv2.yaml"
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

    def cfg_like(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """The network that a training starts from where only a checkpoint is given, whose own is `cfg`: that one."""
        return cfg

    def data_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What `utils.data.loader.create_loader` must know in a training with these command-line `options`."""
        return {"polygons": False}

    def criterion(self, model: nn.Module, hyp: dict[str, Any], options: Mapping[str, Any] | None = None) -> Any:
        """The training loss for `model`; gains in `hyp` are used as given, `options` are the command line's."""
        from utils.losses.detection import DetectionLoss

        return DetectionLoss(model, hyp)

    def loss(self, criterion: Any, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Total loss (1,) times the batch size, and its detached parts in the order of `loss_names`."""
        return criterion(predictions, batch.targets)

    def raw(self, output: Any) -> Any:
        """Of the model's evaluation output what `loss` reads, in float32."""
        return [level.float() for level in output[1]]

    def without_raw(self, output: Any) -> Any:
        """The model's evaluation output less what only the loss needs: what the methods below read."""
        return output[0] if isinstance(output, (list, tuple)) else output

    def postprocess(self, output: Any, **nms: Any) -> list[Tensor]:
        """Per image (n, 6 [+ nm]): xyxy in pixels of the network input, confidence, class, and what else the head says.

        `nms` goes to `utils.ops.nms`.
        """
        from utils.ops.nms import non_max_suppression

        return non_max_suppression(output, **nms)

    def with_labels(self, output: Any, batch: Batch) -> tuple[Any, list[Tensor]]:
        """For --save-hybrid: `output`, and what `postprocess` takes as ``labels``: per image class, xywh pixels."""
        height, width = batch.images.shape[2:]
        pixels = batch.targets * batch.targets.new_tensor([1, 1, width, height, width, height])
        return output, [pixels[pixels[:, 0] == i, 1:] for i in range(len(batch))]

    def evidence(self, output: Any, batch: Batch, detections: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """What `match` reads of a batch beside boxes, in `Scene.kept`: under each name one float tensor an image.

        It is still on the device of `output` and `detections`; the validator brings all of it to the CPU at once, where
        `batch` is already.
        """
        return {}

    def match(self, scene: Scene, iou_thresholds: Tensor) -> tuple[Tensor, ...]:
        """For each of `metric_groups`, (n, len(iou_thresholds)) bool: which detections of `scene` are right."""
        from utils.metrics.matching import match_detections

        return (match_detections(scene.detections[:, :6], scene.labels, iou_thresholds),)

    def instance_masks(
        self, output: Any, index: int, rows: Tensor, input_shape: tuple[int, int], size: tuple[int, int]
    ) -> list[BoxMask] | None:
        """The masks of detections, in pixels of the picture that the network saw letterboxed; None without masks.

        Args:
            output: the model's, for a batch.
            index: of the image in the batch.
            rows: (n, 6 + nm) of that image, as `postprocess` gives them.
            input_shape: (height, width) of the network input.
            size: (height, width) of the picture.
        """
        return None

    def target_masks(self, batch: Batch, options: Mapping[str, Any]) -> Sequence[Any] | None:
        """The true masks in a training batch, (n_i, h, w) of each image, any resolution, to draw; None for boxes."""
        return None

    def drawn_masks(self, scene: Scene) -> tuple[np.ndarray, np.ndarray] | None:
        """Masks over the network input, any resolution, to draw: (m, h, w) of the labels, (n, h, w) of `scene.raw`."""
        return None

    def scene_masks(self, scene: Scene) -> list[BoxMask] | None:
        """The masks of the detections of `scene`, as exact as can be, in pixels of the original; None without masks."""
        return None

    def dummy_batch(self, size: tuple[int, int], device: torch.device, nc: int) -> Batch:
        """Two grey images of `size` (height, width), the first with one object, for dry runs."""
        images = torch.full((2, 3, *size), 114, dtype=torch.uint8, device=device)
        targets = torch.tensor([[0, nc - 1, 0.5, 0.5, 0.4, 0.6]], device=device)
        return Batch(images=images, targets=targets, paths=["dry run"] * 2, shapes=None)
