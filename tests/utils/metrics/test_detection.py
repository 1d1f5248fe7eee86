from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.metrics.average_precision import ap_per_class
from utils.metrics.detection import DetectionMetrics, fitness


def _images(count: int = 20) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    images = []
    for i in range(count):
        n, m = i % 5, (i * 3) % 4
        confidence = torch.rand(n, generator=generator)
        correct = torch.rand(n, 10, generator=generator) < 0.5
        classes = torch.randint(3, (n,), generator=generator).float()
        images.append((correct, confidence, classes, torch.randint(2, (m,), generator=generator).float()))
    return images


def test_images_add_up_to_the_data_set() -> None:
    metrics = DetectionMetrics(4)
    for image in _images():
        metrics.update(*image)
    whole = ap_per_class(*(torch.cat(column) for column in zip(*_images(), strict=True)))
    assert metrics.compute() is metrics
    np.testing.assert_array_equal(metrics.result.ap, whole.ap)
    assert metrics.map50 == pytest.approx(whole.ap[:, 0].mean())
    assert metrics.map == pytest.approx(whole.ap.mean())
    assert metrics.mean_results() == [whole.p.mean(), whole.r.mean(), whole.ap[:, 0].mean(), whole.ap.mean()]


def test_a_class_without_labels_gets_the_mean() -> None:
    metrics = DetectionMetrics(4)
    for image in _images():
        metrics.update(*image)
    assert metrics.result.classes.tolist() == [0, 1]
    assert metrics.maps.shape == (4,)
    np.testing.assert_array_equal(metrics.maps[:2], metrics.result.ap.mean(1))
    np.testing.assert_array_equal(metrics.maps[2:], metrics.map)


def test_nothing_added_no_labels_no_detections() -> None:
    metrics = DetectionMetrics(3)
    assert metrics.mean_results() == [0, 0, 0, 0]
    assert metrics.maps.tolist() == [0, 0, 0]
    metrics.update(torch.zeros(2, 10, dtype=torch.bool), torch.ones(2), torch.zeros(2), torch.zeros(0))
    assert metrics.mean_results() == [0, 0, 0, 0]
    metrics.update(torch.zeros(0, 10, dtype=torch.bool), torch.zeros(0), torch.zeros(0), torch.ones(2))
    assert metrics.compute().result.classes.tolist() == [1]
    assert metrics.mean_results()[1:] == [0, 0, 0]


def test_a_later_image_is_not_forgotten() -> None:
    metrics = DetectionMetrics(1)
    metrics.update(np.ones((1, 10), bool), [0.9], [0], [0])
    assert metrics.map == pytest.approx(0.995)
    metrics.update(np.zeros((0, 10), bool), [], [], [0] * 3)
    assert metrics.map < 0.7


def test_fitness() -> None:
    metrics = DetectionMetrics(1)
    metrics.update([[True] * 5 + [False] * 5], [0.9], [0], [0])
    assert metrics.map50 == pytest.approx(0.995)
    assert fitness(metrics) == pytest.approx(0.1 * 0.995 + 0.9 * 0.4975)
    assert fitness(np.array([0.3, 0.4, 0.5, 0.6])) == pytest.approx(0.59)
    assert fitness(np.array([[9, 9, 0.5, 0.6, 7], [9, 9, 1, 1, 7]])).tolist() == [pytest.approx(0.59), 1]
