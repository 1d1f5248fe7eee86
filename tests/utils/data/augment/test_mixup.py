from __future__ import annotations

import numpy as np
import pytest

from tests.utils.data.pictures import texture
from utils.data.augment.mixup import draw_share, mixup
from utils.data.augment.scene import View
from utils.data.instances import Instances


def view(seed, classes):
    n = len(classes)
    return View(texture(40, 60, seed), Instances(np.array(classes, np.float32), np.full((n, 4), seed, np.float32)))


def test_pixels_are_averaged_and_objects_joined():
    first, second = view(1, [3, 4]), view(2, [5])
    expected = 0.3 * first.image.astype(float) + 0.7 * second.image
    mixed = mixup(first, second, 0.3)
    assert np.abs(mixed.image - expected).max() <= 0.51
    assert mixed.instances.classes.tolist() == [3, 4, 5]
    assert mixed.instances.boxes[:, 0].tolist() == [1, 1, 2]


def test_shares_have_the_beta_distribution():
    rng = np.random.default_rng(0)
    shares = np.array([draw_share(rng) for _ in range(20_000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.002)
    assert shares.var() == pytest.approx(1 / (4 * 65), rel=0.03)  # ab / ((a + b)² (a + b + 1))
