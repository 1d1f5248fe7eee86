from __future__ import annotations

import numpy as np
import pytest

from utils.data.instances import Instances
from utils.data.rasterize import rasterize
from utils.ops.geometry import project, scaling, translation

TURN = np.array([[0.0, -1, 100], [1, 0, 0], [0, 0, 1]])  # by 90 degrees: (x, y) → (100 - y, x)
TILT = np.array([[0.8, -0.3, 30], [0.25, 0.9, -5], [3e-4, 1e-4, 1]])


def some(polygons=True, n=2):
    boxes = np.array([[10, 20, 30, 60], [50, 10, 90, 40]], np.float32)[:n]
    outlines = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32) for x1, y1, x2, y2 in boxes]
    return Instances(np.array([3, 1], np.float32)[:n], boxes, outlines if polygons else None)


def test_from_normalized():
    found = Instances.from_normalized(
        np.array([2.0], np.float32),
        np.array([[0.1, 0.2, 0.5, 0.4]], np.float32),
        [np.array([[0.1, 0.2], [0.5, 0.4]], np.float32)],
        (100, 200),
    )
    np.testing.assert_allclose(found.boxes, [[20, 20, 100, 40]])
    np.testing.assert_allclose(found.polygons, [[[20, 20], [100, 40]]])
    assert found.boxes.dtype == np.float32


@pytest.mark.parametrize("polygons", [False, True])
def test_warp_turns_boxes_and_outlines_alike(polygons):
    found = some(polygons).warp(TURN)
    assert found.boxes.tolist() == [[40, 10, 80, 30], [60, 50, 90, 90]]
    assert found.boxes.dtype == np.float32
    assert found.classes.tolist() == [3, 1]


def test_the_box_of_a_polygon_is_tight():
    triangle = np.array([[50.0, 0], [100, 50], [50, 100]], np.float32)  # of the box 50, 0, 100, 100
    box = Instances(np.zeros(1, np.float32), np.array([[50, 0, 100, 100]], np.float32))
    outlined = Instances(box.classes, box.boxes, [triangle])
    angle = np.radians(45)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(
        outlined.warp(turn).boxes[0], [*project(triangle, turn).min(0), *project(triangle, turn).max(0)], atol=1e-4
    )
    assert np.prod(outlined.warp(turn).boxes[0, 2:] - outlined.warp(turn).boxes[0, :2]) < 0.7 * np.prod(
        box.warp(turn).boxes[0, 2:] - box.warp(turn).boxes[0, :2]
    )


def test_edges_of_rectangles_stay_straight_under_perspective():
    """Corners suffice: every point of a side, warped, lies within the box round the warped corners."""
    found = some(False).warp(TILT)
    for (x1, y1, x2, y2), box in zip(some().boxes, found.boxes, strict=True):
        t = np.linspace(0, 1, 50)[:, None]
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)
        sides = np.concatenate([a + t * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)])
        warped = project(sides, TILT)
        np.testing.assert_allclose(box, [*warped.min(0), *warped.max(0)], rtol=1e-5)


@pytest.mark.parametrize("power", [0.0, 1e-3, 4e-3, 1.2e-2])
def test_masks_of_warped_outlines_are_warped_masks(power):
    """Cell by cell: its centre is brought back through the inverse and looked up in the outline as it was.

    At 4e-3 and above a part of the canvas lies behind the eye: it must not appear, and what is in front of it must not
    change.
    """
    from matplotlib.path import Path

    rng = np.random.default_rng(0)
    size = 90, 120
    centres = np.stack(np.meshgrid(np.arange(120) + 0.5, np.arange(90) + 0.5), -1).reshape(-1, 2)
    behind = 0
    for _ in range(25):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        outline = np.stack((np.cos(angle), np.sin(angle)), 1) * rng.uniform(40, 300, (12, 1)) + rng.uniform(0, 100, 2)
        outline = outline.astype(np.float32)
        tilt = np.array([[1, 0, 0], [0, 1, 0], [*rng.uniform(-power, power, 2), 1]])
        matrix = translation(60, 45) @ scaling(0.5, 0.7) @ tilt @ translation(-50, -60)
        behind += ((outline @ matrix[2, :2] + matrix[2, 2]) < 0).any()
        found = Instances(np.zeros(1), np.zeros((1, 4), np.float32), [outline]).warp(matrix).clip(size)
        back = np.concatenate((centres, np.ones((len(centres), 1))), 1) @ np.linalg.inv(matrix).T
        before = Path(np.concatenate((outline, outline[:1]))).contains_points(back[:, :2] / back[:, 2:])
        expected = (before & (back[:, 2] > 0)).reshape(size)
        assert (rasterize(found.polygons, size)[0] != expected).sum() <= 2  # of 10,800: float32 on a centre
    assert behind == 0 if power < 4e-3 else behind > 5


def test_warps_compose():
    other = translation(3, -2) @ scaling(0.7, 1.4)
    once, twice = some().warp(other @ TILT), some().warp(TILT).warp(other)
    np.testing.assert_allclose(once.boxes, twice.boxes, atol=1e-3)
    for a, b in zip(once.polygons, twice.polygons, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_clip_cuts_boxes_and_polygons():
    found = some().warp(translation(-20, -30)).clip((20, 50))
    assert found.boxes.tolist() == [[0, 0, 10, 20], [30, 0, 50, 10]]
    assert [p.min(0).tolist() + p.max(0).tolist() for p in found.polygons] == found.boxes.tolist()


def test_what_is_outside_gets_a_box_without_area():
    for polygons in (False, True):
        found = some(polygons).warp(translation(500, 0)).clip((100, 100))
        assert ((found.boxes[:, 2:] - found.boxes[:, :2]).prod(1) == 0).all()
        assert not found.visible(some(polygons)).any()


def box(*xyxy):
    return Instances(np.zeros(1, np.float32), np.array([xyxy], np.float32))


@pytest.mark.parametrize(
    ("before", "after", "scale", "visible"),
    [
        ((0, 0, 10, 10), (0, 0, 2.5, 10), 1.0, True),
        ((0, 0, 10, 10), (0, 0, 2.0, 10), 1.0, False),  # not wider than 2 pixels
        ((0, 0, 10, 10), (0, 0, 10, 1.9), 1.0, False),
        ((0, 0, 100, 100), (0, 0, 31, 33), 1.0, True),  # 10.2 % of the area
        ((0, 0, 100, 100), (0, 0, 31, 32), 1.0, False),  # 9.9 %
        ((0, 0, 100, 100), (0, 0, 31, 32), 0.5, True),  # of the area it has after the zoom
        ((0, 0, 400, 3), (0, 0, 297, 3), 1.0, True),  # 1:99
        ((0, 0, 400, 3), (0, 0, 303, 3), 1.0, False),  # 1:101
    ],
)
def test_thresholds_of_visibility(before, after, scale, visible):
    assert box(*after).visible(box(*before), scale).tolist() == [visible]


def test_polygons_need_a_hundredth_of_the_area():
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    before = Instances(np.zeros(2, np.float32), np.array([[0, 0, 100, 100]] * 2, np.float32), [square * 100] * 2)
    after = Instances(np.zeros(2, np.float32), np.array([[0, 0, 11, 10], [0, 0, 9, 11]], np.float32), [square, square])
    assert after.visible(before).tolist() == [True, False]


def test_select_and_concatenate():
    joined = Instances.concatenate([some(), some(n=1), some(n=0)])
    assert len(joined) == 3
    assert len(joined.polygons) == 3
    for keep in (np.array([False, True, True]), np.array([1, 2])):
        part = joined.select(keep)
        assert part.classes.tolist() == [1, 3]
        np.testing.assert_array_equal(part.polygons[1], some().polygons[0])
    assert Instances.concatenate([some(False), some(False)]).polygons is None


def test_to_xywhn():
    np.testing.assert_allclose(some().to_xywhn((100, 200))[0], [0.1, 0.4, 0.1, 0.4])


def test_no_objects_pass_through_everything():
    for polygons in (False, True):
        found = some(polygons, 0).warp(TILT).clip((10, 10))
        assert found.select(found.visible(found)).to_xywhn((10, 10)).shape == (0, 4)
