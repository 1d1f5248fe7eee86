"""What is drawn of a validation: what a user of `detect.py` would see, not what is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from engine.validation.validator import validate
from tests.engine.validation.scenes import Oracle, labelled_batches, make_batches, make_index, unsure_network
from utils.ops.iou import box_iou

CPU = torch.device("cpu")
NAMES = {0: "cat", 1: "dog", 2: "elk"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[np.ndarray], Any]]:
    """Of each picture its name, the boxes of each image, and the masks."""
    pictures: list[tuple[str, list[np.ndarray], Any]] = []

    def plot_images(images: Any, targets: Any, paths: Any, fname: Any, names: Any, masks: Any = None) -> None:
        boxes = [np.asarray(rows) for rows in targets] if isinstance(targets, list) else []
        pictures.append((Path(fname).name, boxes, masks))

    monkeypatch.setattr("engine.validation.listeners.plot_images", plot_images)
    return pictures


def test_each_object_is_drawn_once(drawn: list, tmp_path: Path) -> None:
    """Two boxes of one object overlap by half, one box is of two classes, and one is unsure: two of five are drawn."""

    class Undecided(Oracle):
        def forward(self, images: torch.Tensor) -> Any:
            decoded, raw = super().forward(images)
            decoded[:, 2, 5 + 2] = 0.8  # an elk nearly as much as a dog
            return decoded, raw

    found = [
        (40, 40, 30, 30, 0.9, 0), (50, 40, 30, 30, 0.8, 0),  # IoU 0.5: below validation's 0.6, above detect's 0.45
        (90, 60, 20, 20, 0.7, 1),
        (20, 80, 10, 10, 0.2, 1),
    ]  # fmt: skip
    index = make_index([[(0, 0.3, 0.4, 0.2, 0.3)]])
    result = validate(
        Undecided([found], 3), make_batches(index), DetectionTask(), names=NAMES, device=CPU, save_dir=tmp_path,
        plots=True, progress=False,
    )  # fmt: skip
    pictures = {name: boxes for name, boxes, _ in drawn}
    (boxes,) = pictures["val_batch0_pred.jpg"]
    np.testing.assert_allclose(boxes[:, 4:], [[0.9, 0], [0.7, 1]], rtol=1e-6)
    assert len(result.metrics._images[0][1]) == 5, "all of them are judged"


def test_masks_are_those_of_the_boxes_that_are_drawn(drawn: list, tmp_path: Path) -> None:
    task = SegmentationTask()
    net = unsure_network(task)
    validate(
        net, labelled_batches(task, net), task, names=NAMES, device=CPU, save_dir=tmp_path, plots=True, progress=False
    )
    predicted = [(boxes, masks) for name, boxes, masks in drawn if name.endswith("_pred.jpg")]
    assert len(predicted) == 2
    for boxes, masks in predicted:
        assert [len(rows) for rows in boxes] == [len(stack) for stack in masks]
        assert sum(len(rows) for rows in boxes) > 0
        for rows in boxes:
            assert (rows[:, 4] > 0.25).all()
            same = rows[:, 5][:, None] == rows[:, 5]
            overlap = box_iou(rows[:, :4], rows[:, :4]) * same - np.eye(len(rows))
            assert overlap.max(initial=0) <= 0.45 + 1e-6


def test_no_second_suppression_without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    class Watched(DetectionTask):
        def postprocess(self, output: Any, **nms: Any) -> list[torch.Tensor]:
            calls.append(nms)
            return super().postprocess(output, **nms)

    task = Watched()
    index = make_index([[(0, 0.3, 0.4, 0.2, 0.3)]] * 3)
    validate(
        Oracle([[(40, 40, 30, 30, 0.9, 0)]] * 3, 3), make_batches(index), task, names=NAMES, device=CPU, progress=False
    )
    assert [nms["conf_thres"] for nms in calls] == [0.001, 0.001]
