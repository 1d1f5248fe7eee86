"""The task: the only seam between detection and segmentation. The three loops ask it for everything that differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.training.options import TrainOptions
from engine.validation.validated_image import ValidatedImage
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
    """The error for `weights` of another `task`; it names the `command` (train, val or predict) that is theirs."""
    return UserError(f"{weights}: a {task} model; the command for it is {command_of(COMMANDS[task][command])}")


class DetectionTask:
    """Detection of boxes: the `Detect` head, a loss of box, objectness and class, and one metric group."""

    name = "detect"
    default_cfg = "yolov5_MobileNetv2.yaml"
    run_suffix = ""  # runs/train, runs/val, runs/detect
    loss_names: tuple[str, ...] = ("box", "obj", "cls")
    metric_groups: tuple[str, ...] = ("",)  # suffix of the metric columns; segmentation has (B) and (M)
    iou_types: tuple[str, ...] = ("bbox",)  # of the official COCO evaluator, one for each metric group
    polygons = False  # whether the data path carries polygons
    train_options: type[TrainOptions] = TrainOptions

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

    def cfg_from_checkpoint(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """The model YAML for a training that starts from a checkpoint and gives no --cfg; `cfg` is the checkpoint's."""
        return cfg

    def data_options(self, options: TrainOptions) -> dict[str, Any]:
        """Arguments of `utils.data.loader.create_loader` for a training with these command-line `options`."""
        return {"polygons": False}

    def criterion(self, model: nn.Module, hyp: dict[str, Any], options: TrainOptions | None = None) -> Any:
        """The training loss for `model`; gains in `hyp` are used as given, `options` are the command line's."""
        from utils.losses.detection import DetectionLoss

        return DetectionLoss(model, hyp)

    def loss(self, criterion: Any, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Total loss (1,) times the batch size, and its detached parts in the order of `loss_names`."""
        return criterion(predictions, batch.targets)

    def training_output(self, output: Any) -> Any:
        """The part of the model's output in evaluation mode that `loss` reads, as float32."""
        return [level.float() for level in output[1]]

    def inference_output(self, output: Any) -> Any:
        """The part of the model's output in evaluation mode that the methods below read."""
        return output[0] if isinstance(output, (list, tuple)) else output

    def postprocess(self, output: Any, **nms: Any) -> list[Tensor]:
        """Per image (n, 6 [+ nm]): xyxy in pixels of the network input, confidence, class, and what else the head says.

        `nms` goes to `utils.ops.nms`.
        """
        from utils.ops.nms import non_max_suppression

        return non_max_suppression(output, **nms)

    def with_labels(self, output: Any, batch: Batch) -> tuple[Any, list[Tensor]]:
        """For --save-hybrid: `output`, and per image the ``labels`` for `postprocess`: (m, 5) class, xywh pixels."""
        height, width = batch.images.shape[2:]
        pixels = batch.targets * batch.targets.new_tensor([1, 1, width, height, width, height])
        return output, [pixels[pixels[:, 0] == i, 1:] for i in range(len(batch))]

    def match_inputs(self, output: Any, batch: Batch, detections: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """What `match` needs beside boxes: under each name, one float tensor per image.

        They are on the device of `output` and `detections`. The validator copies all of them to the CPU at once, where
        `batch` already is, and puts them into `ValidatedImage.cache`.
        """
        return {}

    def match(self, image: ValidatedImage, iou_thresholds: Tensor) -> tuple[Tensor, ...]:
        """Which detections of `image` are right: (n, len(iou_thresholds)) bool for each of `metric_groups`."""
        from utils.metrics.matching import match_detections

        return (match_detections(image.detections[:, :6], image.labels, iou_thresholds),)

    def instance_masks(
        self, output: Any, index: int, rows: Tensor, input_shape: tuple[int, int], size: tuple[int, int]
    ) -> list[BoxMask] | None:
        """The masks of detections, in pixels of the image that the network saw letterboxed; None without masks.

        Args:
            output: the model's, for a batch.
            index: of the image in the batch.
            rows: (n, 6 + nm) of that image, as `postprocess` gives them.
            input_shape: (height, width) of the network input.
            size: (height, width) of the image.
        """
        return None

    def target_masks(self, batch: Batch, options: TrainOptions) -> Sequence[Any] | None:
        """The label masks of a training batch to draw, (n_i, h, w) per image, at any resolution; None without masks."""
        return None

    def plot_masks(self, image: ValidatedImage) -> tuple[np.ndarray, np.ndarray] | None:
        """Masks to draw over the network input, at any resolution: (m, h, w) of labels, (n, h, w) of detections."""
        return None

    def original_masks(self, image: ValidatedImage) -> list[BoxMask] | None:
        """The masks of the detections of `image`, in pixels of the original image; None without masks."""
        return None

    def dummy_batch(self, size: tuple[int, int], device: torch.device, nc: int) -> Batch:
        """Two grey images of `size` (height, width), the first with one object, for dry runs."""
        images = torch.full((2, 3, *size), 114, dtype=torch.uint8, device=device)
        targets = torch.tensor([[0, nc - 1, 0.5, 0.5, 0.4, 0.6]], device=device)
        return Batch(images=images, targets=targets, paths=["dry run"] * 2, shapes=None)
