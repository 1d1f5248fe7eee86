from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.engine.cuda import stand_in_cuda
from utils.errors import UserError
from utils.ops import nms as module
from utils.ops.nms import nms, non_max_suppression


def _scene(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crowded boxes, scores and classes."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 300
    boxes = torch.cat((corner, corner + 20 + torch.rand(n, 2, generator=generator) * 80), 1)
    scores = (torch.randperm(n, generator=generator) + 1) / (n + 1)  # no two alike: ties would be settled at random
    return boxes, scores, torch.randint(4, (n,), generator=generator)


@pytest.mark.parametrize("case", ["default", "val", "agnostic", "classes", "masks"])
def test_reference_figures(golden: Path, case: str) -> None:
    file = np.load(golden / f"nms_{case}.npz")
    pred = torch.tensor(file["pred"])
    before = pred.clone()
    found = non_max_suppression((pred, "raw outputs"), **json.loads(str(file["args"])))
    assert len(found) == 2
    for i, detections in enumerate(found):
        np.testing.assert_allclose(detections, file[f"out{i}"], rtol=1e-4, atol=1e-5)
    assert torch.equal(pred, before), "the argument is left alone"


@pytest.mark.parametrize("n", [0, 1, 200, 1500])
@pytest.mark.parametrize("iou_thres", [0.0, 0.3, 0.7])
def test_torchvision_agrees(n: int, iou_thres: float) -> None:
    from torchvision.ops import batched_nms
    from torchvision.ops import nms as torchvision_nms

    boxes, scores, groups = _scene(n, seed=n)
    assert torch.equal(nms(boxes, scores, iou_thres), torchvision_nms(boxes, scores, iou_thres))
    expected = batched_nms(boxes, scores, groups, iou_thres)
    assert torch.equal(nms(boxes, scores, iou_thres, groups), expected)
    assert torch.equal(nms(boxes, scores, iou_thres, groups, max_keep=17), expected[:17])


@pytest.mark.parametrize("block", [0, 2, 100, 10**6])
@pytest.mark.parametrize("max_keep", [None, 0, 5, 60, 10**4])
def test_blocks_and_the_best_alone_make_no_difference(
    block: int, max_keep: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where scores of different groups are equal, and where the best that are tried end among equal ones."""
    from torchvision.ops import nms as torchvision_nms

    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_MANY", 1000)
    boxes, scores, _ = _scene(1500, seed=4)
    groups = torch.arange(1500) % 7 % 4  # 429, 428, 428 and 215 boxes
    for levels in (10, 1000):
        scores = (scores * levels).round() / levels
        expected = torchvision_nms(boxes.double() + groups[:, None] * 10_000, scores.double(), 0.5)
        assert torch.equal(nms(boxes, scores, 0.5, groups, max_keep), expected[:max_keep])
        assert torch.equal(nms(boxes, scores, 0.5, groups.float(), max_keep), expected[:max_keep])
        assert 100 < len(expected) < 1400
        alone = torchvision_nms(boxes.double(), scores.double(), 0.5)
        assert torch.equal(nms(boxes, scores, 0.5, None, max_keep), alone[:max_keep])


def test_few_wanted_of_many_compare_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of crowded random boxes, hundreds of times fewer pairs than all."""
    pairs: list[int] = []
    kernel = module._kernel()

    def counting(boxes: torch.Tensor, scores: torch.Tensor, iou_thres: float) -> torch.Tensor:
        pairs.append(len(boxes) ** 2)
        return kernel(boxes, scores, iou_thres)

    monkeypatch.setattr(module, "_kernel", lambda: counting)
    boxes, scores, _ = _scene(20000, seed=2)
    groups = torch.arange(20000) % 80
    kept = nms(boxes, scores, 0.45, groups, max_keep=300)
    assert len(kept) == 300
    assert sum(pairs) < 20000**2 / 300
    pairs.clear()
    assert torch.equal(nms(boxes, scores, 0.45, groups)[:300], kept)
    assert sum(pairs) < 20000**2 / 60  # class by class


def _by_group(boxes: torch.Tensor, scores: torch.Tensor, iou_thres: float, groups: torch.Tensor) -> torch.Tensor:
    """What torchvision's kernel, in the type of `boxes`, keeps of each group alone, by falling score."""
    from torchvision.ops import nms as torchvision_nms

    pieces = [(groups == group).nonzero()[:, 0] for group in groups.unique()]
    kept = torch.cat([piece[torchvision_nms(boxes[piece], scores[piece], iou_thres)] for piece in pieces])
    return kept[scores[kept].argsort(descending=True)]


@pytest.mark.parametrize("iou_thres", [0.0, 0.45, 0.6])
@pytest.mark.parametrize("nc", [1, 3, 80])
def test_a_gpu_suppresses_in_float32_as_group_by_group(nc: int, iou_thres: float) -> None:
    """To the box, for coordinates that are multiples of 2⁻¹⁰ pixels, some of them outside of the picture."""
    boxes, scores, _ = _scene(3000, seed=nc)
    boxes = ((boxes * 2 - 100) * 1024).round() / 1024
    groups = torch.arange(3000) % nc
    with stand_in_cuda():
        kept = nms(boxes.to("cuda"), scores.to("cuda"), iou_thres, groups.float().to("cuda")).cpu()
    assert torch.equal(kept, _by_group(boxes, scores, iou_thres, groups))
    assert 30 < len(kept) < 3000


def test_what_float32_costs_other_coordinates() -> None:
    """At most half of 2⁻¹⁰ pixels, and no group comes near another."""
    boxes, _, _ = _scene(4000, seed=1)
    boxes, groups = boxes * 3.5, torch.arange(4000) % 80  # up to 1400 pixels
    apart = module._apart(boxes, groups.float())
    exact = module._apart(boxes.double(), groups.double())
    assert (apart - exact).abs().max() <= 2**-11
    places = torch.stack(
        [torch.cat((b[:, :2].amin(0), b[:, 2:].amax(0))) for b in (apart[groups == g] for g in range(80))]
    )
    inner = torch.minimum(places[:, None, 2:], places[:, 2:]) - torch.maximum(places[:, None, :2], places[:, :2])
    assert ((inner < -0.5).any(2) | torch.eye(80, dtype=torch.bool)).all()


class Count(TorchDispatchMode):
    """Counts operations that write a tensor, and those that write one of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.wide = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.operations += bool(written) and not func.is_view
        self.wide += any(leaf.dtype == torch.float64 for leaf in written)
        return result


@pytest.mark.parametrize(("multi_label", "most"), [(True, 25), (False, 27)])
def test_a_gpu_gets_no_float64_and_little_to_do(multi_label: bool, most: int) -> None:
    """Operations on the device for an image, and waits for it: both no more than with one shift in float64."""
    with stand_in_cuda() as watch:
        pred = torch.rand(1, 500, 85).to("cuda")
        watch.waits.clear()
        with Count() as count:
            (found,) = non_max_suppression(pred, multi_label=multi_label, conf_thres=0.9)
        assert found.is_cuda
    assert (count.operations, count.wide) == (most, 0)
    assert sum(count for (_, what), count in watch.waits.items() if what != "torchvision::nms") == 2  # and the kernel's


def test_a_chain_keeps_every_other_box() -> None:
    """Each box overlaps its neighbours only: a suppressed box suppresses nobody, however long the chain."""
    left = torch.arange(600.0) * 10
    boxes = torch.stack((left, torch.zeros(600), left + 16, torch.full((600,), 10.0)), 1)
    kept = nms(boxes, torch.linspace(1, 0.5, 600), 0.2)
    assert kept.tolist() == list(range(0, 600, 2))


def test_equal_scores_keep_their_order_and_empty_boxes_survive() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5], [5, 5, 5, 5]])
    assert nms(boxes, torch.ones(4), 0.5).tolist() == [0, 2, 3]


def _prediction(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([rows])


def test_confidence_is_objectness_times_probability() -> None:
    pred = _prediction([50, 60, 20, 10, 0.9, 0.5, 0.6], [150, 60, 20, 10, 0.5, 0.4, 0.4])
    (found,) = non_max_suppression(pred, conf_thres=0.25)
    torch.testing.assert_close(found, torch.tensor([[40, 55, 60, 65, 0.54, 1]]))


def test_several_labels_a_box() -> None:
    (found,) = non_max_suppression(_prediction([50, 60, 20, 10, 1.0, 0.5, 0.6]), multi_label=True)
    assert found[:, 5].tolist() == [1, 0]


def test_one_class_needs_no_several_labels() -> None:
    (found,) = non_max_suppression(_prediction([50, 60, 20, 10, 1.0, 0.5]), multi_label=True)
    assert found[:, 4:].tolist() == [[0.5, 0]]


def test_candidates_are_limited_to_the_most_confident() -> None:
    rows = [[100.0 * i, 60, 20, 10, 1.0, 0.3 + 0.01 * i] for i in range(10)]
    (found,) = non_max_suppression(_prediction(*rows), max_nms=3)
    torch.testing.assert_close(found[:, 4], torch.tensor([0.39, 0.38, 0.37]))


def test_known_objects_come_first() -> None:
    pred = _prediction([50, 60, 20, 10, 0.9, 0.5, 0.9], [300, 60, 20, 10, 0.9, 0.5, 0.9])
    (found,) = non_max_suppression(pred, labels=[torch.tensor([[1.0, 51, 60, 20, 10]])])
    torch.testing.assert_close(found, torch.tensor([[41, 55, 61, 65, 1, 1], [290, 55, 310, 65, 0.81, 1]]))
    alone = non_max_suppression(pred[:, :0], labels=[torch.tensor([[0.0, 51, 60, 20, 10]])])
    assert alone[0].tolist() == [[41, 55, 61, 65, 1, 0]]


def test_half_precision_and_no_detections() -> None:
    pred = _prediction([501.0, 60, 20, 10, 0.9, 0.5, 0.9]).half()
    (found,) = non_max_suppression(pred)
    assert found.dtype == torch.float32
    assert found[0, :4].tolist() == [491, 55, 511, 65]
    (none,) = non_max_suppression(pred, conf_thres=0.99)
    assert none.shape == (0, 6)
    assert non_max_suppression(pred[:0]) == []


def test_nan_is_no_detection() -> None:
    assert len(non_max_suppression(_prediction([50, 60, 20, 10, float("nan"), 0.9]))[0]) == 0
    assert len(non_max_suppression(_prediction([50, 60, 20, 10, 0.9, float("nan")]))[0]) == 0


def test_thresholds_are_checked() -> None:
    with pytest.raises(UserError, match="--conf-thres is 25"):
        non_max_suppression(torch.zeros(1, 1, 6), conf_thres=25)
    with pytest.raises(UserError, match=r"--iou-thres is -0\.1"):
        non_max_suppression(torch.zeros(1, 1, 6), iou_thres=-0.1)
