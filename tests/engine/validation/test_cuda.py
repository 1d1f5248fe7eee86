"""A validation on a GPU that is not there: decoding, non-maximum suppression, masks, matching, as on the CPU."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from engine.validation.timer import StageTimer
from engine.validation.validator import ValidationResult, validate
from tests.engine.cuda import stand_in_cuda
from tests.engine.training.step import NC
from tests.engine.validation.scenes import labelled_batches, unsure_network
from utils.data.batch import Batch
from utils.hyp import load_hyp

TASKS = {
    "detect": DetectionTask(),
    "segment": SegmentationTask(),
    "segment, retina": SegmentationTask(retina_masks=True),
}


def _validate(
    task: DetectionTask, net: nn.Module, batches: list[Batch], device: str, **options: Any
) -> ValidationResult:
    criterion = task.criterion(net, load_hyp("hyp.scratch-low.yaml"))
    return validate(
        net,
        batches,
        task,
        names={i: str(i) for i in range(NC)},
        device=torch.device(device),
        criterion=criterion,
        progress=False,
        **options,
    )


@pytest.mark.parametrize("save_hybrid", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_the_same_figures_as_on_the_cpu(name: str, save_hybrid: bool) -> None:
    task = TASKS[name]
    net = unsure_network(task)
    batches = labelled_batches(task, net)
    expected = _validate(task, net, batches, "cpu", save_hybrid=save_hybrid)
    with stand_in_cuda():
        found = _validate(task, net.to("cuda"), batches, "cuda", save_hybrid=save_hybrid)
    assert expected.metrics.map > 0.1
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-6)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_one_copy_to_the_cpu_a_batch(name: str) -> None:
    """Detections, losses and overlaps of masks (or prototypes) come together; nothing else waits for the GPU.

    Non-maximum suppression is not counted: how many candidates there are must be known to go on, several times an
    image. Those are single numbers.
    """
    task = TASKS[name]
    net = unsure_network(task)
    batches = labelled_batches(task, net)
    with stand_in_cuda() as watch:
        net.to("cuda")
        watch.waits.clear()
        _validate(task, net, batches, "cuda")
        waits = {where: times for where, times in watch.waits.items() if not where[0].startswith("utils/ops/nms.py")}
    assert waits == {("utils/devices.py:to_cpu", "_to_copy"): len(batches)}


@pytest.mark.parametrize("amp_dtype", [torch.bfloat16, torch.float16, None])
def test_mixed_precision_in_the_type_that_was_asked_for(
    amp_dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def autocast(device: str, dtype: torch.dtype | None, enabled: bool) -> contextlib.AbstractContextManager[None]:
        asked.append((device, dtype, enabled))
        return contextlib.nullcontext()

    task = TASKS["detect"]
    net = unsure_network(task)
    batches = labelled_batches(task, net)
    with stand_in_cuda():
        net.to("cuda")
        monkeypatch.setattr("torch.autocast", autocast)
        _validate(task, net, batches, "cuda", amp_dtype=amp_dtype)
    assert asked == [("cuda", amp_dtype, amp_dtype is not None)]


class _Event:
    """Stands for `torch.cuda.Event`: a GPU that takes 3 ms from each mark to the next."""

    marks = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: str) -> None:
        assert stream == "the stream of cuda:1"
        self.at = 3.0 * _Event.marks
        _Event.marks += 1

    def elapsed_time(self, end: _Event) -> float:
        return end.at - self.at


def test_stages_are_timed_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr("torch.cuda.Event", _Event)
    monkeypatch.setattr("torch.cuda.synchronize", lambda *_: pytest.fail("waits for the GPU"))
    timer = StageTimer(torch.device("cuda", 1), 2)
    for _ in range(2):
        with timer.stage(0):
            pass
        with timer.stage(1):
            pass
        timer.read_marks()
    np.testing.assert_allclose(timer.seconds, 2 * 3e-3)


def _argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` given its first argument on the CPU."""
    return lambda first, *more, **options: function(first.cpu(), *more, **options)


def _result(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` whose result, or the first part of it, comes on the CPU."""

    def planted(*arguments: Any) -> Any:
        result = function(*arguments)
        return result.cpu() if isinstance(result, torch.Tensor) else result._replace(centre=result.centre.cpu())

    return planted


PLANTS = {
    "decoding": ("models.yolo", "make_anchor_grid", _result),
    "loss": ("utils.losses.detection", "assign", _argument),
    "candidates": ("utils.ops.nms", "nms", _argument),
    "suppression": ("utils.ops.nms", "_apart", _argument),
    "masks": ("engine.segmentation", "process_mask", _argument),
    "mask IoU": ("engine.segmentation", "mask_iou", _argument),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_tensor_left_on_the_cpu_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function, plant = PLANTS[name]
    task = TASKS["segment"]
    net = unsure_network(task)
    batches = labelled_batches(task, net)
    with stand_in_cuda():
        net.to("cuda")
        monkeypatch.setattr(f"{module}.{function}", plant(getattr(importlib.import_module(module), function)))
        with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
            _validate(task, net, batches, "cuda")


def test_a_tensor_left_on_the_gpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matching is numpy's: what it is given must have come to the CPU."""
    task = TASKS["detect"]
    net = unsure_network(task)
    batches = labelled_batches(task, net)
    monkeypatch.setattr("engine.validation.validator.to_cpu", list)
    with stand_in_cuda(), pytest.raises(TypeError, match="numpy"):
        _validate(task, net.to("cuda"), batches, "cuda")
