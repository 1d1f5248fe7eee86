from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.ops.boxes import xywh2xyxy
from utils.ops.iou import bbox_iou, box_iou

FORMS = ("IoU", "GIoU", "DIoU", "CIoU")


def _boxes(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 4, generator=generator, dtype=torch.float64) * 40 + 10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("xywh", [True, False])
def test_reference_figures(golden: Path, form: str, xywh: bool) -> None:
    file = np.load(golden / "iou.npz")
    box1, box2 = torch.tensor(file["xywh1"]), torch.tensor(file["xywh2"])
    if not xywh:
        box1, box2 = xywh2xyxy(box1), xywh2xyxy(box2)
    found = bbox_iou(box1, box2, xywh=xywh, **({form: True} if form != "IoU" else {}))
    assert found.shape == (50, 1)
    np.testing.assert_allclose(found[:, 0], file[form], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_torchvision_agrees(form: str) -> None:
    from torchvision import ops

    box1, box2 = (xywh2xyxy(_boxes(64, seed)) for seed in (1, 2))
    found = bbox_iou(box1, box2, xywh=False, **({form: True} if form != "IoU" else {}))[:, 0]
    losses = {
        "GIoU": ops.generalized_box_iou_loss,
        "DIoU": ops.distance_box_iou_loss,
        "CIoU": ops.complete_box_iou_loss,
    }
    expected = ops.box_iou(box1, box2).diagonal() if form == "IoU" else 1 - losses[form](box1, box2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_aspect_weight_is_constant_to_autograd() -> None:
    """Torchvision's CIoU keeps it constant too: the gradients agree."""
    from torchvision.ops import complete_box_iou_loss

    box1, box2 = (xywh2xyxy(_boxes(16, seed)) for seed in (3, 4))
    box1.requires_grad_()
    (ours,) = torch.autograd.grad(bbox_iou(box1, box2, xywh=False, CIoU=True).sum(), box1)
    (theirs,) = torch.autograd.grad(-complete_box_iou_loss(box1, box2).sum(), box1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_boxes_without_size_and_equal_boxes_have_finite_gradients(form: str) -> None:
    """Rounding puts the IoU of many equal boxes just above 1."""
    generator = torch.Generator().manual_seed(0)
    equal = torch.rand(20000, 4, generator=generator) * torch.tensor([2, 2, 8, 8]) - torch.tensor([0.5, 0.5, 0, 0])
    flat = torch.tensor([[0.0, 0, 2, 0], [0, 0, 0, 2], [0, 0, 0, 0], [0, 0, 2, 2]])
    box1 = torch.cat((equal, flat)).requires_grad_()
    box2 = torch.cat((equal, flat.flip(0)))
    found = bbox_iou(box1, box2, **({form: True} if form != "IoU" else {}))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(box1.grad).all()
    assert (found[:20000] - 1).abs().max() < 1e-2  # the smallest boxes lose some to eps


def test_pairwise_iou() -> None:
    from torchvision import ops

    box1, box2 = xywh2xyxy(_boxes(7, 5)), xywh2xyxy(_boxes(9, 6))
    torch.testing.assert_close(box_iou(box1, box2), ops.box_iou(box1, box2), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(box_iou(box1.numpy(), box2.numpy()), ops.box_iou(box1, box2), rtol=1e-6, atol=1e-7)


def test_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 10, 10]])
    b = torch.tensor([[5.0, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10]])
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1 / 3, 0, 1]]))
    torch.testing.assert_close(bbox_iou(a, b, xywh=False), torch.tensor([[1 / 3], [0], [1]]))
    # enclosing box of the second pair: 30 × 30 around 2 × 100
    torch.testing.assert_close(bbox_iou(a, b, xywh=False, GIoU=True)[1], torch.tensor([-700 / 900]))
    torch.testing.assert_close(bbox_iou(a, b, xywh=False, DIoU=True)[1], torch.tensor([-800 / 1800]))


def test_no_boxes() -> None:
    assert box_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert bbox_iou(torch.zeros(0, 4), torch.zeros(0, 4), CIoU=True).shape == (0, 1)
