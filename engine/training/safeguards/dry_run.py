"""A dry run on a copy of the model before epoch 0, so that what would fail after 150 epochs fails now."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from engine.task import DetectionTask
from utils.errors import UserError, is_out_of_memory


def dry_run(model: nn.Module, task: DetectionTask, hyp: dict[str, Any], device: torch.device) -> None:
    """Run loss, backward, fuse and a validation-mode forward on two small grey images, on a copy of `model`.

    Raises `UserError` that names the stage and the cause; `model` and its gradients are untouched.
    """
    stride = int(max(model.stride))  # type: ignore[arg-type]
    stage = "copying the model"
    try:
        twin = copy.deepcopy(model).to(device).float()
        batch = task.dummy_batch((2 * stride, 4 * stride), device, model.nc)  # type: ignore[arg-type]
        images = batch.images.float() / 255
        stage = "forward in training mode"
        predictions = twin.train()(images)
        stage = "loss"
        loss, _ = task.loss(task.criterion(twin, hyp), predictions, batch)
        stage = "backward"
        loss.sum().backward()
        with torch.inference_mode():
            stage = "fuse()"
            twin.eval().fuse()  # type: ignore[operator]
            stage = "forward in evaluation mode after fuse()"
            task.postprocess(twin(images), conf_thres=0.25, iou_thres=0.45)
    except (RuntimeError, MemoryError, TypeError, ValueError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise UserError(f"not enough memory even for a dry run at {stride * 2}×{stride * 4}") from error
        if "deterministic implementation" in str(error):  # torch's words
            what = str(error).split()[0]
            raise UserError(
                f"--deterministic: {what}, which this network needs, gives no repeatable results on {device.type}; "
                "leave --deterministic out, or give a network without that operation"
            ) from error
        raise UserError(f"dry run before training failed at {stage}: {type(error).__name__}: {error}") from error
    if not torch.isfinite(loss).all():
        raise UserError("dry run before training gave a non-finite loss; check the weights and the hyper-parameters")
