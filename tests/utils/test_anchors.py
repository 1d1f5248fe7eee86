from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.anchors import check_anchors, fit, k_means, kmean_anchors, order_by_stride, shape_ratio
from utils.errors import UserError

COCO = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]]


def _head(strides: tuple[int, ...] = (8, 16, 32), anchors: list = COCO) -> SimpleNamespace:
    stride = torch.tensor(strides, dtype=torch.float32)
    return SimpleNamespace(stride=stride, anchors=torch.tensor(anchors, dtype=torch.float32) / stride[:, None, None])


def _slim_labels(n: int = 400) -> np.ndarray:
    """Nine shapes, thirty times as high as wide, with a little noise: the usual anchors fit few of them."""
    rng = np.random.default_rng(0)
    width = np.geomspace(3, 20, 9)[rng.integers(0, 9, n)]
    return np.stack((width, 30 * width), 1) * rng.normal(1, 0.03, (n, 2))


def test_fit_by_hand() -> None:
    wh = np.array([[10.0, 10], [10, 39], [5, 41], [100, 100]])
    anchors = np.array([[10.0, 10], [30, 30]])
    np.testing.assert_allclose(shape_ratio(wh, anchors)[:2], [[1, 1 / 3], [10 / 39, 1 / 3]])
    found = fit(wh, anchors, thr=4.0)
    assert found == (3 / 4, 5 / 4)


def test_recall_is_that_of_the_loss() -> None:
    """A label has an anchor here exactly where the assignment finds it a prediction."""
    from utils.losses.assignment import assign

    wh = np.random.default_rng(1).uniform(2, 150, (200, 2))
    anchors = np.array(COCO[0], float)
    targets = torch.zeros(200, 6)
    targets[:, 2:4] = 0.5
    targets[:, 4:] = torch.tensor(wh / 640)
    found = assign(targets, torch.tensor(anchors[None] / 8, dtype=torch.float32), [(80, 80)], 4.0)
    share = len(found.target[found.valid].unique()) / 200
    assert 0.2 < share < 0.9
    assert fit(wh, anchors, 4.0).recall == pytest.approx(share)


def test_anchors_that_fit_stay() -> None:
    head = _head()
    before = head.anchors.clone()
    wh = np.random.default_rng(0).uniform(8, 400, (300, 1)) * [1, 1.2]
    assert check_anchors(wh, head).recall > 0.98
    assert torch.equal(head.anchors, before)


def test_anchors_that_do_not_fit_are_replaced_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    head, wh = _head(), _slim_labels()
    buffer = head.anchors
    before = fit(wh, np.array(COCO, float).reshape(-1, 2)).recall
    assert before < 0.9
    after = check_anchors(wh, head, imgsz=(320, 640))
    assert after.recall > 0.99
    assert head.anchors is buffer
    pixels = head.anchors * head.stride[:, None, None]
    assert fit(wh, pixels.double().reshape(-1, 2).numpy()) == pytest.approx(after)
    areas = pixels.prod(-1).flatten()
    assert (areas.diff() >= 0).all(), "small anchors at the small stride"
    assert "320×640" in capsys.readouterr().out


def test_the_same_labels_give_the_same_anchors() -> None:
    first, second = (kmean_anchors(_slim_labels(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_reversed_strides_get_reversed_anchors() -> None:
    head = _head((32, 16, 8), COCO[::-1])
    check_anchors(_slim_labels(), head)
    areas = (head.anchors * head.stride[:, None, None]).prod(-1).mean(-1)
    assert areas[0] > areas[1] > areas[2]
    anchors = np.array(COCO, float)
    np.testing.assert_array_equal(order_by_stride(anchors, np.array([8, 16, 32])), anchors)
    np.testing.assert_array_equal(order_by_stride(anchors, np.array([32, 16, 8])), anchors[::-1])


def test_worse_anchors_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    head = _head()
    before = head.anchors.clone()
    monkeypatch.setattr("utils.anchors.kmean_anchors", lambda *_, **__: np.full((9, 2), 1e4))
    recall = fit(_slim_labels(), np.array(COCO, float).reshape(-1, 2)).recall
    assert check_anchors(_slim_labels(), head).recall == recall
    assert torch.equal(head.anchors, before)


def test_too_few_labels() -> None:
    with pytest.raises(UserError, match="needs 9 labels .* found 8 .*--noautoanchor"):
        check_anchors(_slim_labels(8), _head())
    with pytest.raises(UserError, match="no labels"):
        check_anchors(np.zeros((0, 2)), _head())
    with pytest.raises(UserError, match=r"found 0 \(50 smaller"):
        check_anchors(np.full((50, 2), 0.5), _head())


def test_many_labels_are_sampled() -> None:
    wh = np.tile(_slim_labels(), (60, 1))
    found = kmean_anchors(wh, generations=20)
    assert fit(wh, found).recall > 0.99


def test_k_means_finds_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = centres[rng.integers(0, 4, 400)] + rng.normal(0, 0.1, (400, 2))
    found = k_means(points, 4, rng)
    distance = np.linalg.norm(centres[:, None] - found, axis=2)
    assert distance.min(1).max() < 0.1


def test_k_means_on_points_that_are_all_alike() -> None:
    assert k_means(np.ones((5, 2)), 3, np.random.default_rng(0)).tolist() == [[1, 1]] * 3


def test_refinement_improves_on_k_means() -> None:
    wh = np.random.default_rng(2).lognormal(3, 1, (500, 2))

    def fitness(anchors: np.ndarray) -> float:
        best = shape_ratio(wh[(wh >= 2).all(1)], anchors).max(1)
        return float((best * (best > 0.25)).mean())

    plain, refined = kmean_anchors(wh, generations=0), kmean_anchors(wh, generations=300)
    assert fitness(refined) > fitness(plain) + 0.005
