from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.baseline import baseline_loss
from benchmarks.loss import HYP, scene
from utils.losses import detection
from utils.losses.detection import DetectionLoss, scale_gains
from utils.ops.iou import bbox_iou


@pytest.fixture(params=["compact", "padded"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways: as on a CPU, and as on a GPU, where padding stays."""
    monkeypatch.setattr(detection, "values_are_at_hand", lambda _: request.param == "compact")


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("case", ["a", "b", "empty", "smooth", "focal"])
def test_reference_figures(golden: Path, case: str) -> None:
    file = np.load(golden / f"loss_{case}.npz")
    stride = torch.tensor(file["strides"], dtype=torch.float32)
    anchors = torch.tensor(file["anchors_px"], dtype=torch.float32) / stride[:, None, None]
    head = SimpleNamespace(na=3, nl=3, nc=int(file["nc"]), stride=stride, anchors=anchors)
    predictions = [torch.tensor(file[name], requires_grad=True) for name in ("p3", "p4", "p5")]
    loss, items = DetectionLoss(head, json.loads(str(file["hyp"])))(
        predictions, torch.tensor(file["targets"]).view(-1, 6)
    )
    loss.backward()
    assert loss.shape == (1,)
    assert not items.requires_grad
    np.testing.assert_allclose(loss.detach(), file["loss"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(items, file["items_box_obj_cls"], rtol=1e-4, atol=1e-5)
    for prediction, name in zip(predictions, ("g3", "g4", "g5"), strict=True):
        np.testing.assert_allclose(prediction.grad, file[name], rtol=1e-4, atol=1e-7)


def _gradients(loss: torch.Tensor, predictions: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss.sum(), predictions)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("nc", [1, 4])
@pytest.mark.parametrize("targets", [0, 1, 300])
def test_the_baseline_agrees(nc: int, targets: int) -> None:
    """300 objects in two images of 128 pixels: many predictions answer for several."""
    head, predictions, objects = scene(2, 128, nc, targets, seed=targets)
    predictions = [p[:, :, :-1].detach().requires_grad_() for p in predictions]  # not square
    hyp = HYP | {"cls_pw": 0.8, "obj_pw": 1.4}
    loss = DetectionLoss(head, hyp)(predictions, objects)[0]
    expected = baseline_loss(predictions, objects, head, hyp)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(_gradients(loss, predictions), _gradients(expected, predictions), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("fl_gamma", "beta"), [(0.0, 2.0), (1.5, 1.5)])
def test_quality_focal_loss_and_smooth_labels_against_dense_targets(fl_gamma: float, beta: float) -> None:
    head, predictions, targets = scene(2, 128, 4, 60)
    hyp = HYP | {"qfl": True, "fl_gamma": fl_gamma, "label_smoothing": 0.2, "iou_loss": "eiou"}
    criterion = DetectionLoss(head, hyp)

    def mean_qfl(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return ((target - logits.sigmoid()).abs().pow(beta) * entropy).mean()

    obj, cls = torch.zeros(()), torch.zeros(())
    match = criterion.match(predictions, targets)
    scaled = match.rows[:, :4].sigmoid() * 2
    boxes = torch.cat((scaled[:, :2] - 0.5, scaled[:, 2:] ** 2 * match.assignment.anchors), 1)
    iou = bbox_iou(boxes, match.assignment.xywh)[:, 0].detach()
    columns = (match.assignment.valid, match.assignment.owner, match.assignment.cell, match.assignment.classes)
    levels = zip(*(match.assignment.by_level(values) for values in (*columns, iou, match.rows)), strict=True)
    for level, (valid, owner, cell, classes, own_iou, rows) in enumerate(levels):
        logits = predictions[level][..., 4]
        assert torch.equal(match.objectness[level], logits.flatten())
        quality = torch.zeros_like(logits).index_put(cell[owner].unbind(1), own_iou[owner])
        obj = obj + (4.0, 1.0, 0.4)[level] * mean_qfl(logits, quality)
        true = torch.nn.functional.one_hot(classes[valid], 4)
        cls = cls + mean_qfl(rows[valid, 5:], true * 0.9 + (1 - true) * 0.1)
    terms = criterion.terms(criterion.match(predictions, targets))
    torch.testing.assert_close(terms.obj, obj, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms.cls, cls, rtol=1e-5, atol=1e-6)


def test_without_a_choice_it_is_ciou() -> None:
    head, predictions, targets = scene(2, 64, 3, 20)
    losses = [DetectionLoss(head, HYP | {"iou_loss": name})(predictions, targets)[0] for name in ("ciou", "diou")]
    assert torch.equal(DetectionLoss(head, HYP)(predictions, targets)[0], losses[0])
    assert not torch.equal(*losses)


def test_a_model_and_a_wrapped_model_serve() -> None:
    head, predictions, targets = scene(1, 64, 2, 5)
    model = SimpleNamespace(model=[object(), head], hyp=HYP)
    expected = DetectionLoss(head, HYP)(predictions, targets)[0]
    assert torch.equal(DetectionLoss(model)(predictions, targets)[0], expected)
    assert torch.equal(DetectionLoss(SimpleNamespace(module=model), HYP)(predictions, targets)[0], expected)


def test_anchors_changed_later_are_used() -> None:
    head, predictions, targets = scene(1, 64, 2, 20)
    criterion = DetectionLoss(head, HYP)
    before = criterion(predictions, targets)[1]
    head.anchors = head.anchors * 2
    assert not torch.equal(criterion(predictions, targets)[1], before)


def test_channels_behind_the_classes_do_not_matter_and_come_with_the_matches() -> None:
    head, predictions, targets = scene(1, 64, 2, 20)
    wider = [torch.cat((p, torch.full_like(p[..., :3], 7.0)), -1) for p in predictions]
    criterion = DetectionLoss(head, HYP)
    assert torch.equal(criterion(wider, targets)[0], criterion(predictions, targets)[0])
    match = criterion.match(wider, targets)
    assert (match.rows[match.assignment.valid, 7:] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    head, predictions, targets = scene(2, 64, 3, 20)
    rounded = [p.detach().to(dtype).requires_grad_() for p in predictions]
    criterion = DetectionLoss(head, HYP)
    loss = criterion(rounded, targets)[0]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, criterion([p.float() for p in rounded], targets)[0])
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in rounded)


def test_autobalance_follows_the_levels() -> None:
    head, predictions, targets = scene(1, 64, 2, 5)
    criterion = DetectionLoss(head, HYP, autobalance=True)
    assert criterion.balance == [4.0, 1.0, 0.4]
    plain = DetectionLoss(head, HYP)
    levels = []
    for level in range(3):  # one level's objectness at a time
        plain.balance = [float(level == i) for i in range(3)]
        levels.append(plain(predictions, targets)[1][1].item())
    criterion(predictions, targets)
    moved = [w * 0.9999 + 0.0001 / v for w, v in zip((4.0, 1.0, 0.4), levels, strict=True)]
    expected = [w / moved[1] for w in moved]
    assert [float(w) for w in criterion.balance] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("levels", "weights"), [(3, [4, 1, 0.4]), (4, [4, 1, 0.25, 0.06]), (2, [4, 1])])
def test_weights_of_other_numbers_of_levels(levels: int, weights: list[float]) -> None:
    assert DetectionLoss(SimpleNamespace(nl=levels, anchors=None), HYP).balance == weights


def test_padding_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head, predictions, targets = scene(2, 64, 3, 30)
    found = {}
    for compact in (True, False):
        monkeypatch.setattr(detection, "values_are_at_hand", lambda _, compact=compact: compact)
        criterion = DetectionLoss(head, HYP)
        assert bool(criterion.match(predictions, targets).assignment.valid.all()) == compact
        loss, items = criterion(predictions, targets)
        found[compact] = loss, items, *_gradients(loss, predictions)
    for lean, padded in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(lean, padded, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("targets", [0, 7])
def test_nothing_depends_on_values(targets: int) -> None:
    """Fake tensors have none: the step never waits for a GPU to hand one over."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        head, predictions, objects = scene(2, 64, 3, targets)
        loss, items = DetectionLoss(head, HYP)(predictions, objects)
        loss.backward()
        assert items.shape == (3,)
        assert predictions[0].grad is not None
        assert predictions[0].grad.shape == predictions[0].shape


@pytest.mark.usefixtures("rows")
def test_training_steps_reduce_the_loss() -> None:
    head, predictions, targets = scene(2, 64, 3, 10)
    criterion = DetectionLoss(head, HYP)
    optimizer = torch.optim.Adam(predictions, lr=0.1)
    losses = []
    for _ in range(20):
        loss = criterion(predictions, targets)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# --- gains ------------------------------------------------------------------------------------------------------------

GAINS = {"box": 0.05, "cls": 0.5, "obj": 1.0, "lr0": 0.01}


def test_reference_setting_changes_nothing() -> None:
    assert scale_gains(GAINS, nl=3, nc=80, imgsz=(640, 640)) == pytest.approx(GAINS)


def test_gains_follow_levels_classes_and_area() -> None:
    scaled = scale_gains(GAINS, nl=4, nc=8, imgsz=(320, 640))
    assert scaled["box"] == pytest.approx(0.05 * 0.75)
    assert scaled["cls"] == pytest.approx(0.5 * 0.1 * 0.75)
    assert scaled["obj"] == pytest.approx(1.0 * 0.5 * 0.75)
    assert GAINS["box"] == 0.05
