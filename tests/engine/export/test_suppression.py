"""Suppression inside a file: against torchvision, and between its two forms."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms as torchvision_nms

from engine.export.suppression import SelectInOnnx, best_rows, select_by_loop
from utils.ops.nms import nms


def scene(count: int, images: int = 3, classes: int = 4, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Boxes (B, N, 4) xyxy that overlap a lot and scores (B, C, N); with `ties` of few different values."""
    torch.manual_seed(count)
    corner, side = torch.rand(images, count, 2) * 100, torch.rand(images, count, 2) * 60 + 5
    scores = torch.rand(images, classes, count)
    return torch.cat((corner, corner + side), 2), (scores * 8).round() / 8 if ties else scores


def by_torchvision(boxes: Tensor, scores: Tensor, max_det: int, iou: float, conf: float) -> set[tuple[int, int, int]]:
    """The same rows ``image, class, box``, image by image and class by class."""
    rows = set()
    for image in range(len(boxes)):
        for cls, all_scores in enumerate(scores[image]):
            index = (all_scores > conf).nonzero()[:, 0]
            index = index[all_scores[index].argsort(descending=True, stable=True)]  # equal ones in their order
            kept = torchvision_nms(boxes[image, index], torch.arange(len(index), 0, -1.0), iou)[:max_det]
            rows |= {(image, cls, int(i)) for i in index[kept]}
    return rows


class Selector(nn.Module):
    def __init__(self, max_det: int, iou: float, conf: float) -> None:
        super().__init__()
        self.limits = max_det, iou, conf

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return SelectInOnnx.apply(boxes, scores, *self.limits)


def by_onnx_runtime(path: Path, boxes: Tensor, scores: Tensor, *limits: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Selector(*limits), (boxes, scores), str(path), dynamo=False, opset_version=12,  # type: ignore[arg-type]
            input_names=["boxes", "scores"],
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"boxes": boxes.numpy(), "scores": scores.numpy()})[0]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("iou", "conf"), [(0.45, 0.25), (0.1, 0.6), (0.9, 0.0), (1.0, 0.5), (0.0, 0.3)])
def test_both_forms_select_what_torchvision_does(iou: float, conf: float, ties: bool, tmp_path: Path) -> None:
    boxes, scores = scene(70, ties=ties)
    expected = by_torchvision(boxes, scores, 1000, iou, conf)
    assert len(expected) > 12
    for form in (select_by_loop, torch.jit.script(select_by_loop)):
        rows = form(boxes, scores, 1000, iou, conf).tolist()
        assert {tuple(row) for row in rows} == expected
        assert len(rows) == len(expected)
    assert {tuple(row) for row in by_onnx_runtime(tmp_path / "m.onnx", boxes, scores, 1000, iou, conf)} == expected


def test_the_loop_stops_at_max_det_of_an_image_with_the_best() -> None:
    boxes, scores = scene(70)
    rows = select_by_loop(boxes, scores, 5, 0.45, 0.25).tolist()
    everything = by_torchvision(boxes, scores, 1000, 0.45, 0.25)
    for image in range(3):
        best = sorted((row for row in everything if row[0] == image), key=lambda row: -scores[row])
        assert [tuple(row) for row in rows if row[0] == image] == best[:5]


@pytest.mark.parametrize("max_det", [7, 60])
def test_equal_scores_come_in_the_order_of_utils_ops_nms(max_det: int, tmp_path: Path) -> None:
    """Where `max_det` cuts among equals, too; many are equal in 8-bit networks."""
    boxes, scores = scene(80, images=1, ties=True)
    conf, cls = scores.max(1)  # (1, N)
    lone = torch.where(torch.arange(4)[:, None] == cls, scores, 0)  # each box of its best class only
    index = (conf[0] > 0.3).nonzero()[:, 0]
    expected = index[nms(boxes[0, index], conf[0, index], 0.45, cls[0, index], max_det)]
    rows = torch.cat((boxes, conf[..., None], torch.arange(80.0).view(1, 80, 1)), 2)
    for selected in (
        select_by_loop(boxes, lone, max_det, 0.45, 0.3),
        torch.from_numpy(by_onnx_runtime(tmp_path / "m.onnx", boxes, lone, max_det, 0.45, 0.3)),
    ):
        found, count = best_rows(rows, selected, max_det)
        assert found[0, : int(count), 5].tolist() == expected.tolist()


def test_nothing_to_select(tmp_path: Path) -> None:
    boxes, scores = scene(20)
    for rows in (
        select_by_loop(boxes, scores, 5, 0.45, 1.0),
        torch.from_numpy(by_onnx_runtime(tmp_path / "m.onnx", boxes, scores, 5, 0.45, 1.0)),
    ):
        assert rows.shape == (0, 3)
        assert rows.dtype == torch.int64


def test_best_rows_by_hand() -> None:
    rows = torch.zeros(2, 4, 7)
    rows[..., 4] = torch.tensor([[0.3, 0.9, 0.5, 0.8], [0.4, 0.4, 0.4, 0.1]])
    rows[..., 6] = torch.arange(8.0).view(2, 4)  # tells which row it was
    selected = torch.tensor([[0, 0, 0], [1, 1, 2], [0, 1, 3], [0, 0, 2], [1, 0, 1], [1, 0, 0]])
    found, count = best_rows(rows, selected, 2)
    assert count.tolist() == [2, 2]
    assert found[..., 6].tolist() == [[3, 2], [4, 5]]  # by falling confidence; of equal ones the first
    found, count = best_rows(rows, selected, 6)  # more than there are rows
    assert found.shape == (2, 6, 7)
    assert count.tolist() == [3, 3]
    assert found[..., 6].tolist() == [[3, 2, 0, 0, 0, 0], [4, 5, 6, 0, 0, 0]]
    found, count = best_rows(rows, selected[:0], 3)
    assert not found.any()
    assert count.tolist() == [0, 0]


def test_best_rows_keep_the_order_of_many_equal_ones() -> None:
    rows = torch.zeros(1, 500, 6)
    rows[..., 4], rows[0, :, 5] = 0.5, torch.arange(500.0)
    everything = torch.stack([torch.zeros(500), torch.zeros(500), torch.arange(500)], 1).long()
    found, count = best_rows(rows, everything.flip(0), 100)
    assert count.tolist() == [100]
    assert found[0, :, 5].tolist() == list(range(100))
