"""How many kernels the losses would launch on a GPU: not more, whatever is chosen, than are promised."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.loss import HYP, Launches, scene
from utils.losses import detection, gather
from utils.losses.box import LOSSES, MEASURES
from utils.losses.detection import DetectionLoss
from utils.losses.segmentation import SegmentationLoss

MOST = 300


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No value is read, rows keep their padding, and zeros are torch's."""
    for module in (detection, gather):
        monkeypatch.setattr(module, "values_are_at_hand", lambda _: False)


def test_what_is_counted() -> None:
    x = torch.ones(3, 4, requires_grad=True)
    with Launches() as launches:
        (x.view(4, 3).t()[1:].exp() + torch.empty(2, 4)).sum()
    assert launches.counts == {"exp": 1, "add": 1, "sum": 1}


CHOICES: list[dict[str, Any]] = [
    *({"iou_loss": name} for name in (*MEASURES, *LOSSES)),
    {"iou_loss": "eiou", "focal_iou": 0.5},
    {"fl_gamma": 1.5},
    {"qfl": True, "label_smoothing": 0.1},
]


@pytest.mark.parametrize("choice", [{}, *CHOICES], ids=lambda choice: "-".join(map(str, choice.values())) or "default")
def test_detection(choice: dict[str, Any]) -> None:
    head, predictions, targets = scene(2, 64, 80, 20)
    criterion = DetectionLoss(head, HYP | choice, autobalance=not choice)
    with Launches() as forward:
        loss, _ = criterion(predictions, targets)
    with Launches() as backward:
        loss.backward()
    assert forward.counts.total() <= MOST, forward.counts
    assert backward.counts.total() <= MOST, backward.counts


@pytest.mark.parametrize("overlap", [True, False])
def test_segmentation(overlap: bool) -> None:
    """The masks of few objects, which are one piece (`segmentation.CHUNK_BYTES`)."""
    head, predictions, targets = scene(2, 64, 80, 20)
    wider = [torch.cat((p, torch.randn(*p.shape[:-1], 5)), -1).detach().requires_grad_() for p in predictions]
    prototypes = torch.randn(2, 5, 16, 16, requires_grad=True)
    masks = torch.zeros(2 if overlap else 20, 16, 16, dtype=torch.uint8)
    with Launches() as forward:
        loss, _ = SegmentationLoss(head, HYP, overlap)((wider, prototypes), targets, masks)
    with Launches() as backward:
        loss.backward()
    assert forward.counts.total() <= MOST + 100, forward.counts
    assert backward.counts.total() <= MOST, backward.counts
