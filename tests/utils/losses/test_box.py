"""The six box losses beside scalar versions, written from the papers' formulas with `math` alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from benchmarks.loss import HYP, scene
from utils.losses.box import LOSSES, MEASURES, BoxLoss
from utils.losses.detection import DetectionLoss, _decode
from utils.ops.boxes import xywh2xyxy
from utils.ops.iou import box_iou

NAMES = (*MEASURES, *LOSSES)
Box = Sequence[float]  # x, y, w, h


class Pair:
    """Two boxes: I, U, the enclosing box (cw, ch) and the distance of the centres (rho)."""

    def __init__(self, a: Box, b: Box) -> None:
        (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
        left, right = min(ax - aw / 2, bx - bw / 2), max(ax + aw / 2, bx + bw / 2)
        top, bottom = min(ay - ah / 2, by - bh / 2), max(ay + ah / 2, by + bh / 2)
        across = min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2)
        down = min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2)
        self.inter = across * down if across > 0 and down > 0 else 0.0
        self.union = aw * ah + bw * bh - self.inter
        self.iou = self.inter / self.union
        self.cw, self.ch = right - left, bottom - top
        self.rho = math.hypot(ax - bx, ay - by)


def giou(a: Box, b: Box, _at: Box) -> float:
    p = Pair(a, b)
    return 1 - (p.iou - (p.cw * p.ch - p.union) / (p.cw * p.ch))


def diou(a: Box, b: Box, _at: Box) -> float:
    p = Pair(a, b)
    return 1 - p.iou + p.rho**2 / math.hypot(p.cw, p.ch) ** 2


def ciou(a: Box, b: Box, at: Box) -> float:
    """The trade-off alpha has no gradient: it is taken at `at`."""

    def shape(a: Box) -> float:
        return 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2

    alpha = shape(at) / (1 - Pair(at, b).iou + shape(at)) if shape(at) else 0.0
    return diou(a, b, at) + alpha * shape(a)


def eiou(a: Box, b: Box, at: Box) -> float:
    p = Pair(a, b)
    return diou(a, b, at) + (a[2] - b[2]) ** 2 / p.cw**2 + (a[3] - b[3]) ** 2 / p.ch**2


def siou(a: Box, b: Box, _at: Box) -> float:
    """Angle cost with its arc sine, as the paper has it."""
    p = Pair(a, b)
    sine = (max(a[1], b[1]) - min(a[1], b[1])) / p.rho if p.rho else 0.0
    angle = 1 - 2 * math.sin(math.asin(sine) - math.pi / 4) ** 2
    gamma = 2 - angle
    rho_x, rho_y = ((a[0] - b[0]) / p.cw) ** 2, ((a[1] - b[1]) / p.ch) ** 2
    distance = (1 - math.exp(-gamma * rho_x)) + (1 - math.exp(-gamma * rho_y))
    omega_w, omega_h = abs(a[2] - b[2]) / max(a[2], b[2]), abs(a[3] - b[3]) / max(a[3], b[3])
    shape = (1 - math.exp(-omega_w)) ** 4 + (1 - math.exp(-omega_h)) ** 4
    return 1 - p.iou + (distance + shape) / 2


def wiou(a: Box, b: Box, at: Box) -> float:
    """The enclosing box has no gradient: it is taken at `at`."""
    p, still = Pair(a, b), Pair(at, b)
    return math.exp(p.rho**2 / (still.cw**2 + still.ch**2)) * (1 - p.iou)


SCALAR = {"giou": giou, "diou": diou, "ciou": ciou, "eiou": eiou, "siou": siou, "wiou": wiou}


def _pairs(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Two times (n, 4) float64 xywh: a third overlap closely, a third somewhat, a third hardly or not."""
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(n, 4, generator=generator, dtype=torch.float64) * 4 + 1
    spread = torch.tensor([0.1, 0.6, 3.0], dtype=torch.float64).repeat_interleave(n // 3)[:, None]
    noise = torch.randn(n, 4, generator=generator, dtype=torch.float64) * spread
    return torch.cat((true[:, :2] + noise[:, :2], true[:, 2:] * (noise[:, 2:] / 2).exp()), 1), true


@pytest.mark.parametrize("focus", [0.0, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_the_formulas(name: str, focus: float) -> None:
    """Values and, by central differences with what has no gradient held still, gradients."""
    predicted, true = _pairs()
    predicted.requires_grad_()
    loss = BoxLoss(name, focus)(predicted, true).loss
    assert loss.shape == (60,)
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)

    def scalar(a: Box, b: Box, at: Box) -> float:
        return SCALAR[name](a, b, at) * (Pair(at, b).iou ** focus if focus else 1)

    step = 1e-6
    for i, (at, b) in enumerate(zip(predicted.tolist(), true.tolist(), strict=True)):
        assert loss[i].item() == pytest.approx(scalar(at, b, at), rel=1e-5, abs=1e-6)
        for k in range(4):
            ahead, behind = ([v + s * (j == k) for j, v in enumerate(at)] for s in (step, -step))
            slope = (scalar(ahead, b, at) - scalar(behind, b, at)) / (2 * step)
            assert gradient[i, k].item() == pytest.approx(slope, rel=1e-4, abs=1e-5), (at, b, k)
    assert 15 < sum(Pair(a, b).iou > 0.5 for a, b in zip(predicted.tolist(), true.tolist(), strict=True)) < 45


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # a 2 × 2 box, and a 4 × 2 one of the same centre: IoU 1/2, enclosing box 4 × 2
        ("giou", 0.5),
        ("diou", 0.5),
        ("eiou", 0.5 + 4 / 16),
        ("siou", 0.5 + (1 - math.exp(-0.5)) ** 4 / 2),
        ("wiou", 0.5),
    ],
)
def test_by_hand(name: str, expected: float) -> None:
    terms = BoxLoss(name)(torch.tensor([[1.0, 1, 2, 2]]), torch.tensor([[1.0, 1, 4, 2]]))
    assert terms.loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_objectness_should_say(name: str) -> None:
    """The measure where the loss has one, the IoU where it has none; never below 0, and without gradient."""
    predicted, true = _pairs()
    terms = BoxLoss(name, focus=0.5)(predicted.requires_grad_(), true)
    assert not terms.quality.requires_grad
    for quality, a, b in zip(terms.quality.tolist(), predicted.tolist(), true.tolist(), strict=True):
        value = 1 - SCALAR[name](a, b, a) if name in MEASURES else Pair(a, b).iou
        assert quality == pytest.approx(max(value, 0), rel=1e-5, abs=1e-6)


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="unknown box loss 'siuo'.*did you mean 'siou'.*known are giou, diou, ciou"):
        BoxLoss("siuo")


TRUE = [0.5, 0.5, 2.0, 3.0]
DEGENERATE = {
    "equal": (TRUE, TRUE),
    "equal, its IoU rounded to above 1": ([-0.38, 0.61, 0.2, 0.4], [-0.38, 0.61, 0.2, 0.4]),
    "same centre": ([0.5, 0.5, 1.0, 1.0], TRUE),
    "centres on a line": ([1.5, 0.5, 2.0, 3.0], TRUE),
    "touching": ([2.5, 0.5, 2.0, 3.0], TRUE),
    "no width": ([0.5, 0.5, 0.0, 3.0], TRUE),
    "no height": ([0.5, 0.5, 2.0, 0.0], TRUE),
    "nothing": ([0.5, 0.5, 0.0, 0.0], TRUE),
    "both nothing": ([0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]),
    "both nothing, elsewhere": ([0.5, 0.5, 0.0, 0.0], [9.0, 0.5, 0.0, 0.0]),
    "hardly anything": ([0.5, 0.5, 1e-30, 1e-38], TRUE),
    "far apart": ([1e6, -1e6, 2.0, 3.0], TRUE),
    "huge": ([0.5, 0.5, 1e9, 1e9], TRUE),
    "both huge": ([1e9, 0.5, 1e9, 1e8], [0.5, 0.5, 1e9, 1e9]),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("focus", [0.0, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_boxes_have_finite_losses_and_gradients(name: str, focus: float, dtype: torch.dtype) -> None:
    limit = torch.finfo(dtype).max / 2
    boxes = torch.tensor(list(DEGENERATE.values()), dtype=torch.float64).clamp(-limit, limit).to(dtype)
    predicted, true = boxes[:, 0].clone().requires_grad_(), boxes[:, 1]
    loss, quality = BoxLoss(name, focus)(predicted, true)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)
    if dtype == torch.float16:  # a slope of 1 / EPS, at a box without size, is beyond it
        gradient = gradient.clamp(-limit, limit)
    for kind, value, fit, slope in zip(DEGENERATE, loss.tolist(), quality.tolist(), gradient, strict=True):
        assert math.isfinite(value), kind
        assert 0 <= fit <= 1.001, kind
        assert torch.isfinite(slope).all(), (kind, slope)
        if kind.startswith("equal"):
            assert value == pytest.approx(0, abs=1e-4)
            assert fit == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_equal_boxes_of_any_size_have_no_loss(name: str) -> None:
    """Rounding puts the IoU of many of them a little above 1."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(20000, 4, generator=generator) * torch.tensor([2, 2, 8, 8]) + torch.tensor(
        [-0.5, -0.5, 0.1, 0.1]
    )
    predicted = boxes.clone().requires_grad_()
    loss = BoxLoss(name)(predicted, boxes).loss
    assert loss.abs().max() < 2e-5
    loss.sum().backward()
    assert torch.isfinite(predicted.grad).all()


@pytest.mark.parametrize(("name", "focus"), [*((name, 0.0) for name in NAMES), ("eiou", 0.5)])
def test_outputs_follow_the_boxes(name: str, focus: float) -> None:
    """A few steps from random outputs of a head: the predictions that answer for objects come to cover them."""
    head, predictions, targets = scene(2, 64, 3, 10)
    criterion = DetectionLoss(head, HYP | {"iou_loss": name, "focal_iou": focus})
    optimizer = torch.optim.Adam(predictions, lr=0.1)

    def overlap() -> float:
        assignment, rows, _ = criterion.match([p.detach() for p in predictions], targets)
        boxes = xywh2xyxy(_decode(rows[:, :4], assignment.anchors)), xywh2xyxy(assignment.xywh)
        return box_iou(*boxes).diagonal().mean().item()

    before = overlap()
    for _ in range(30):
        optimizer.zero_grad()
        criterion(predictions, targets)[0].backward()
        optimizer.step()
    assert before < 0.5
    assert overlap() > 0.75


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_went_astray_has_a_finite_gradient(name: str, dtype: torch.dtype) -> None:
    """Logits of ±200: the box has no height, or stands at the limit of what an anchor can say."""
    head, predictions, targets = scene(1, 64, 3, 20)
    predictions = [(p.detach().sign() * 200).to(dtype).requires_grad_() for p in predictions]
    DetectionLoss(head, HYP | {"iou_loss": name})(predictions, targets)[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in predictions)


def test_nothing_depends_on_values() -> None:
    """Fake tensors have none: the step never waits for a GPU to hand one over."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        true = torch.rand(5, 4)
        for name in NAMES:
            predicted = torch.rand(5, 4, requires_grad=True)
            BoxLoss(name, focus=0.5)(predicted, true).loss.sum().backward()
            assert predicted.grad is not None
