from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from benchmarks.loss import ANCHORS, HYP, STRIDES, scene
from tests.utils.losses.dense_masks import dense_mask_loss
from utils.losses import detection, segmentation
from utils.losses.detection import DetectionLoss
from utils.losses.segmentation import SegmentationLoss

NM = 5


@pytest.fixture(params=["compact", "padded"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways: as on a CPU, and as on a GPU, where padding stays and chunks cover whole images."""
    monkeypatch.setattr(detection, "values_are_at_hand", lambda _: request.param == "compact")


class Case(NamedTuple):
    head: Any
    predictions: list[torch.Tensor]
    prototypes: torch.Tensor
    targets: torch.Tensor
    masks: torch.Tensor  # (n, h, w) of 0 and 1

    def inputs(self) -> tuple[torch.Tensor, ...]:
        return *self.predictions, self.prototypes


def make_case(targets: int, batch: int = 2, imgsz: int = 128, nc: int = 3) -> Case:
    """A large object and random ones in pictures that are not square; prototypes a quarter of the pictures."""
    head, predictions, objects = scene(batch, imgsz, nc, targets, seed=targets)
    objects[:1, 2:] = torch.tensor([0.4, 0.55, 0.5, 0.3])
    predictions = [
        torch.cat((p, 0.5 * torch.randn(*p.shape[:-1], NM)), -1)[:, :, :-1].detach().requires_grad_()
        for p in predictions
    ]
    height, width = imgsz // 4 - 1, imgsz // 4
    prototypes = torch.randn(batch, NM, height, width, requires_grad=True)
    return Case(head, predictions, prototypes, objects, (torch.rand(targets, height, width) < 0.4).float())


def index_maps(case: Case) -> torch.Tensor:
    """(B, h, w) in which an image's later objects hide its earlier ones."""
    maps = torch.zeros(len(case.prototypes), *case.masks.shape[1:], dtype=torch.uint8)
    for i, layer in enumerate(maps):
        for rank, mask in enumerate(case.masks[case.targets[:, 0] == i], 1):
            layer[mask > 0] = rank
    return maps


def visible(case: Case) -> torch.Tensor:
    """(n, h, w) of 0 and 1: what such an index map shows of each object."""
    maps, seen = index_maps(case), torch.zeros_like(case.masks)
    for i, layer in enumerate(maps):
        own = (case.targets[:, 0] == i).nonzero()[:, 0]
        for rank, number in enumerate(own, 1):
            seen[number] = (layer == rank).float()
    return seen


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("kind", ["overlap", "separate"])
def test_reference_figures(golden: Path, kind: str) -> None:
    file = np.load(golden / f"segloss_{kind}.npz")
    stride = torch.tensor(STRIDES, dtype=torch.float32)
    anchors = torch.tensor(ANCHORS, dtype=torch.float32) / stride[:, None, None]
    head = SimpleNamespace(na=3, nl=3, nc=int(file["nc"]), stride=stride, anchors=anchors)
    raw = [torch.tensor(file[name], requires_grad=True) for name in ("p3", "p4", "p5")]
    prototypes = torch.tensor(file["proto"], requires_grad=True)
    loss, items = SegmentationLoss(head, HYP, overlap=kind == "overlap")(
        (raw, prototypes), torch.tensor(file["targets"]), torch.tensor(file["masks"])
    )
    loss.backward()
    assert loss.shape == (1,)
    assert not items.requires_grad
    np.testing.assert_allclose(loss.detach(), file["loss"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(items, file["items_box_seg_obj_cls"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(raw[0].grad, file["g3"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(prototypes.grad, file["g_proto"], rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("targets", [0, 1, 60])
def test_the_dense_formula_agrees(monkeypatch: pytest.MonkeyPatch, targets: int, overlap: bool) -> None:
    monkeypatch.setattr(segmentation, "CHUNK_BYTES", 4 << 20)  # several chunks
    case = make_case(targets)
    criterion = SegmentationLoss(case.head, HYP, overlap)
    masks = index_maps(case) if overlap else case.masks
    shown = visible(case) if overlap else case.masks
    matches = criterion.detection.match(case.predictions, case.targets)
    loss = criterion.mask_term(matches, case.prototypes, case.targets, masks)
    expected = dense_mask_loss(case.predictions, case.prototypes, case.targets, shown, case.head, HYP["anchor_t"])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert (loss > 0) == (targets > 0)
    pairs = zip(
        torch.autograd.grad(loss, case.inputs(), allow_unused=True),
        torch.autograd.grad(expected, case.inputs(), allow_unused=True),
        strict=True,
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, torch.zeros_like(found) if wanted is None else wanted, rtol=1e-4, atol=1e-7)


def test_one_pair_by_hand() -> None:
    """One prediction, one object of 8 × 4 cells of which the left half is mask; all logits ln 3, so p = 3/4."""
    anchors = torch.tensor([[[8.0, 4.0]]])
    head = SimpleNamespace(na=1, nl=1, nc=1, stride=torch.tensor([8.0]), anchors=anchors)
    prediction = torch.zeros(1, 1, 1, 1, 7)
    prediction[..., 6:] = np.log(3.0)
    prototypes = torch.ones(1, 1, 16, 16, requires_grad=True)
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.5, 0.25]])  # columns 4 to 12, rows 6 to 10
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[:, :, :8] = 1
    hyp = HYP | {"box": 1.0, "anchor_t": 100.0}
    loss, items = SegmentationLoss(head, hyp)(([prediction.requires_grad_()], prototypes), targets, masks)
    assert items[1].item() == pytest.approx((-np.log(0.75) - np.log(0.25)) / 2, rel=1e-6)
    loss.backward()
    slope = np.where(np.arange(16) < 8, 0.75 - 1, 0.75) * np.log(3) / 32
    expected = np.zeros((16, 16))
    expected[6:10, 4:12] = slope[4:12]
    np.testing.assert_allclose(prototypes.grad[0, 0], expected, rtol=1e-5, atol=1e-9)


def test_derivatives_in_float64() -> None:
    """Numeric differences, of the function that computes its own gradients."""
    torch.manual_seed(0)
    coefficients = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    prototypes = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    of_row = torch.tensor([1, 0, 2, 1, 1])
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.6, 0.9], [1, 0, 0.3, 0.4, 0.5, 0.5], [1, 0, 0.6, 0.6, 0.9, 0.9]])
    wanted = segmentation._mask_targets(targets, torch.randint(3, (2, 4, 5)), prototypes.shape, True)

    def term(c: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        chunks = segmentation._chunks_of_one_object(of_row, wanted)
        return segmentation._MaskTerm.apply(c, p, torch.arange(1.0, 6).double(), wanted, chunks)

    assert torch.autograd.gradcheck(term, (coefficients, prototypes))


def test_boxes_objectness_and_classes_are_those_of_detection() -> None:
    case = make_case(20)
    items = SegmentationLoss(case.head, HYP)((case.predictions, case.prototypes), case.targets, index_maps(case))[1]
    expected = DetectionLoss(case.head, HYP)(case.predictions, case.targets)[1]
    assert torch.equal(items[[0, 2, 3]], expected)


@pytest.mark.parametrize("overlap", [True, False])
def test_masks_of_another_resolution(overlap: bool) -> None:
    """Three times as fine, or coarser: the nearest value, as PyTorch's interpolation has it."""
    case = make_case(10)
    masks = index_maps(case) if overlap else case.masks
    criterion = SegmentationLoss(case.head, HYP, overlap)
    outputs = case.predictions, case.prototypes
    fine = masks.repeat_interleave(3, 1).repeat_interleave(3, 2)
    torch.testing.assert_close(criterion(outputs, case.targets, fine)[1], criterion(outputs, case.targets, masks)[1])
    coarse = masks[:, :17, :13]
    resized = torch.nn.functional.interpolate(coarse[None].float(), masks.shape[1:])[0]
    found, expected = (criterion(outputs, case.targets, each)[1] for each in (coarse, resized))
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("rows")
def test_what_lies_outside_the_boxes_does_not_matter() -> None:
    case = make_case(1)
    criterion = SegmentationLoss(case.head, HYP, overlap=False)
    height, width = case.masks.shape[1:]
    x, y, w, h = (case.targets[0, 2:] * torch.tensor([width, height, width, height])).tolist()
    columns, rows = (slice(math.ceil(at - side / 2), math.ceil(at + side / 2)) for at, side in ((x, w), (y, h)))
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[rows, columns] = False
    before = criterion((case.predictions, case.prototypes), case.targets, case.masks)[1]
    changed = case.prototypes.detach().clone()
    changed[:, :, outside] = 7
    masks = torch.where(outside, 1 - case.masks, case.masks)
    assert before[1] > 0
    torch.testing.assert_close(criterion((case.predictions, changed), case.targets, masks)[1], before)


@pytest.mark.usefixtures("rows")
def test_an_object_smaller_than_a_cell_has_no_mask_to_learn() -> None:
    case = make_case(1)
    case.targets[0, 2:] = torch.tensor([0.5 + 0.5 / 32, 0.5, 0.02, 0.02])  # between two columns' numbers
    case.head.anchors = case.head.anchors / 8
    loss, items = SegmentationLoss(case.head, HYP)((case.predictions, case.prototypes), case.targets, index_maps(case))
    loss.backward()
    assert items[0] > 0
    assert items[1] == 0
    assert torch.isfinite(loss)
    assert not case.prototypes.grad.any()


@pytest.mark.usefixtures("rows")
def test_large_logits_stay_finite() -> None:
    case = make_case(10)
    loss = SegmentationLoss(case.head, HYP)((case.predictions, case.prototypes * 1e4), case.targets, index_maps(case))[
        0
    ]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(slope).all() for slope in torch.autograd.grad(loss, case.inputs()))


def test_reduced_precision_is_computed_in_float32() -> None:
    case = make_case(10)
    halves = [tensor.detach().to(torch.bfloat16).requires_grad_() for tensor in case.inputs()]
    singles = [tensor.detach().float().requires_grad_() for tensor in halves]
    criterion, masks = SegmentationLoss(case.head, HYP), index_maps(case)
    with torch.autocast("cpu", torch.bfloat16):
        loss, items = criterion((halves[:-1], halves[-1]), case.targets, masks)
    expected, parts = criterion((singles[:-1], singles[-1]), case.targets, masks)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(items, parts)
    slopes, wanted = torch.autograd.grad(loss, halves), torch.autograd.grad(expected, singles)
    for found, slope in zip(slopes, wanted, strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), slope, rtol=1e-2, atol=1e-4)


def test_the_layout_of_the_prototypes_is_kept() -> None:
    case = make_case(10)
    striped = case.prototypes.detach().to(memory_format=torch.channels_last).requires_grad_()
    criterion, masks = SegmentationLoss(case.head, HYP), index_maps(case)
    criterion((case.predictions, case.prototypes), case.targets, masks)[0].backward()
    criterion((case.predictions, striped), case.targets, masks)[0].backward()
    assert striped.grad.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(striped.grad, case.prototypes.grad)


def test_no_gradients_are_made_where_none_are_wanted() -> None:
    case = make_case(10)
    with torch.no_grad():
        loss = SegmentationLoss(case.head, HYP)((case.predictions, case.prototypes), case.targets, index_maps(case))[0]
    expected = SegmentationLoss(case.head, HYP)((case.predictions, case.prototypes), case.targets, index_maps(case))[0]
    assert not loss.requires_grad
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("targets", [0, 7])
def test_nothing_depends_on_values(targets: int, overlap: bool) -> None:
    """Fake tensors have none: the step never waits for a GPU to hand one over."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        head, predictions, objects = scene(2, 64, 3, targets)
        wider = [torch.cat((p, torch.randn(*p.shape[:-1], NM)), -1).detach().requires_grad_() for p in predictions]
        prototypes = torch.randn(2, NM, 16, 16, requires_grad=True)
        masks = torch.zeros(2 if overlap else targets, 16, 16, dtype=torch.uint8)
        loss, items = SegmentationLoss(head, HYP, overlap)((wider, prototypes), objects, masks)
        loss.backward()
        assert items.shape == (4,)
        assert prototypes.grad.shape == prototypes.shape


def test_memory_does_not_grow_with_the_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor made for 10 and for 400 objects: no larger than the inputs, or than a chunk."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.size = max(self.size, result.numel() * result.element_size())
            return result

    monkeypatch.setattr(segmentation, "CHUNK_BYTES", 1 << 20)
    case = make_case(400)
    inputs = max(tensor.numel() for tensor in case.inputs()) * 4
    for compact in (True, False):
        monkeypatch.setattr(detection, "values_are_at_hand", lambda _, compact=compact: compact)
        criterion = SegmentationLoss(case.head, HYP)
        with Largest() as largest:
            criterion((case.predictions, case.prototypes), case.targets, index_maps(case))[0].backward()
        assert largest.size <= max(inputs, 1 << 20)


@pytest.mark.usefixtures("rows")
def test_training_steps_reduce_the_mask_loss() -> None:
    case = make_case(10)
    criterion, masks = SegmentationLoss(case.head, HYP), index_maps(case)
    optimizer = torch.optim.Adam(case.inputs(), lr=0.1)
    losses = []
    for _ in range(20):
        loss, items = criterion((case.predictions, case.prototypes), case.targets, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(items[1].item())
    assert losses[-1] < 0.7 * losses[0]
