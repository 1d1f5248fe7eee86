from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.utils.data.pictures import texture
from utils.data.augment.color import change_color, draw_color_gains
from utils.hyp import load_hyp


def by_tables(image, gains):
    """Three lookup tables over the HSV channels, values cut to whole numbers."""
    levels = np.arange(256)
    tables = [levels * gains[0] % 180, (levels * gains[1]).clip(0, 255), (levels * gains[2]).clip(0, 255)]
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    changed = [t.astype(np.uint8)[c] for t, c in zip(tables, channels, strict=True)]
    return cv2.cvtColor(np.stack(changed, 2), cv2.COLOR_HSV2BGR)


@pytest.mark.parametrize(
    "gains",
    [
        (1.015, 1.0, 1.0),
        (0.985, 1.7, 0.6),
        (1.0, 0.3, 1.4),
        (1.0, 1.0, 1.39),
        (1.4, 1.2, 0.9),
        (1.9, 1.7, 1.4),
        (0.1, 1.0, 1.0),
    ],
)
def test_equals_lookup_tables_up_to_rounding(gains):
    image = texture(120, 160, 4)
    found = change_color(image, gains).astype(int)
    np.testing.assert_array_equal(image, texture(120, 160, 4))
    difference = np.abs(found - by_tables(image, gains))
    assert difference.mean() < 2.5  # rounding against cutting, half a step of hue, saturation and value each
    assert np.percentile(difference, 99) <= 8
    assert np.abs(found - image).mean() > (3 if gains[0] == 1.0 or abs(gains[0] - 1) > 0.1 else 0.5)


def test_a_part_of_an_image_is_changed_as_its_copy_is():
    """And in parts of all widths: what is taken as one long row comes back as it was."""
    image = texture(64, 160, 2)
    for width in (1, 31, 32, 77):
        part = image[5:50, 9 : 9 + width]
        found = change_color(part, (0.99, 1.3, 0.8))
        assert found.shape == part.shape
        np.testing.assert_array_equal(found, change_color(part.copy(), (0.99, 1.3, 0.8)))
        assert np.abs(found.astype(int) - by_tables(part, (0.99, 1.3, 0.8))).mean() < 2.5
    np.testing.assert_array_equal(image, texture(64, 160, 2))


def test_no_change_is_no_work():
    image = texture(20, 20, 0)
    assert change_color(image, (1.0, 1.0, 1.0)) is image


def test_grey_keeps_its_colour_but_not_its_brightness():
    grey = np.full((4, 4, 3), 114, np.uint8)
    assert (change_color(grey.copy(), (1.01, 1.5, 0.5)) == 57).all()
    assert (change_color(grey.copy(), (1.01, 1.5, 3.0)) == 255).all()


def test_hue_is_a_circle():
    violet = cv2.cvtColor(np.uint8([[[179, 200, 200]]]), cv2.COLOR_HSV2BGR)
    turned = cv2.cvtColor(change_color(violet, (1.05, 1.0, 1.0)), cv2.COLOR_BGR2HSV)
    assert int(turned[0, 0, 0]) in (7, 8)  # 179 * 1.05 = 187.95, less 180


@pytest.mark.parametrize(("key", "part"), [("hsv_h", 0), ("hsv_s", 1), ("hsv_v", 2)])
def test_each_gain_draws_its_own_factor(key, part):
    hyp = load_hyp({"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, key: 0.4})
    rng = np.random.default_rng(0)
    drawn = np.array([draw_color_gains(hyp, rng) for _ in range(3000)])
    assert drawn[:, part].min() == pytest.approx(0.6, abs=0.01)
    assert drawn[:, part].max() == pytest.approx(1.4, abs=0.01)
    assert drawn[:, part].mean() == pytest.approx(1.0, abs=0.02)
    assert (np.delete(drawn, part, 1) == 1).all()
