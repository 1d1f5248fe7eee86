from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.metrics.matching import match_by_iou, match_detections
from utils.ops.iou import box_iou

THRESHOLDS = torch.linspace(0.5, 0.95, 10)


def _reference_rule(iou: np.ndarray, same: np.ndarray, threshold: float) -> np.ndarray:
    """One threshold, in words: pairs by falling overlap; the first of each detection; then, by the detections'
    order, the first of each label."""
    pairs = [(iou[label, d], d, label) for label, d in zip(*np.nonzero((iou >= threshold) & same), strict=True)]
    chosen: dict[int, int] = {}
    for _, d, label in sorted(pairs, key=lambda pair: -pair[0]):
        chosen.setdefault(d, label)
    owner: dict[int, int] = {}
    for d in sorted(chosen):
        owner.setdefault(chosen[d], d)
    correct = np.zeros(iou.shape[1], bool)
    correct[list(owner.values())] = True
    return correct


def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two classes, and detections jittered around them so that many compete."""
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 15), rng.integers(1, 80)
    corner, size = rng.uniform(0, 60, (m, 2)), rng.uniform(10, 40, (m, 2))
    labels = np.concatenate((rng.integers(0, 2, (m, 1)), corner, corner + size), 1)
    of = rng.integers(0, m, n)
    boxes = labels[of, 1:] + rng.normal(0, 2.5, (n, 4))
    classes = np.where(rng.random(n) < 0.8, labels[of, 0], 1 - labels[of, 0])
    detections = np.concatenate((boxes, np.sort(rng.random((n, 1)), 0)[::-1], classes[:, None]), 1)
    return detections.astype(np.float32), labels.astype(np.float32)


@pytest.mark.parametrize("seed", range(25))
def test_the_reference_rule_at_all_thresholds(seed: int) -> None:
    detections, labels = _scene(seed)
    found = match_detections(torch.tensor(detections), torch.tensor(labels), THRESHOLDS)
    iou, same = box_iou(labels[:, 1:], detections[:, :4]), labels[:, :1] == detections[:, 5]
    expected = np.stack([_reference_rule(iou, same, float(t)) for t in THRESHOLDS], 1)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == torch.bool
    assert torch.equal(match_detections(detections, labels, THRESHOLDS.numpy()), found), "arrays are as good"


def test_the_scenes_mean_something() -> None:
    found = [match_detections(*_scene(seed), THRESHOLDS) for seed in range(25)]
    assert 0 < sum(int(f[:, 0].sum()) for f in found) < sum(len(f) for f in found)
    assert any(bool((f[:, 1:] & ~f[:, :-1]).any()) for f in found), "a duplicate at 0.5 is right where the first fails"


def test_duplicates_and_wrong_classes() -> None:
    labels = [[0, 0, 0, 10, 10], [1, 20, 20, 30, 30]]
    detections = [
        [0, 0, 10, 9, 0.9, 0],  # IoU 0.9
        [0, 0, 10, 10, 0.8, 0],  # a perfect duplicate: right only above 0.9, where the first is wrong
        [20, 20, 30, 30, 0.7, 0],  # the right box, the wrong class
    ]
    found = match_detections(np.array(detections), np.array(labels), THRESHOLDS.numpy().astype(np.float64))
    assert found[0].tolist() == [True] * 8 + [bool(np.float32(0.9) <= 0.9), False]
    assert found[1, -1]
    assert not found[1, :8].any()
    assert not found[2].any()


def test_an_overlap_of_exactly_the_threshold_suffices() -> None:
    assert match_by_iou(np.array([[0.5]]), [3], [3], [0.5, 0.55]).tolist() == [[True, False]]


def test_the_best_label_counts_and_not_a_free_one() -> None:
    """Both detections overlap label 0 most; the second does not fall back on label 1."""
    iou = np.array([[0.9, 0.8], [0.1, 0.7]])
    assert match_by_iou(iou, [0, 0], [0, 0], [0.5]).tolist() == [[True], [False]]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_match(n: int, m: int) -> None:
    found = match_detections(torch.zeros(n, 6), torch.zeros(m, 5), THRESHOLDS)
    assert found.shape == (n, 10)
    assert not found.any()
