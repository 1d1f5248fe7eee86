from __future__ import annotations

import numpy as np
import pytest

from utils.data.augment.camera import Camera
from utils.data.augment.copy_paste import copy_paste
from utils.data.augment.tiles import SourceImage, place, render
from utils.data.instances import Instances
from utils.data.rasterize import index_map, rasterize

CANVAS = (100, 200)
BACKGROUND, OBJECT = 30, 220


def tiles(boxes, polygons=True):
    """One picture, a canvas large, with bright rectangles where its objects are."""
    image = np.full((*CANVAS, 3), BACKGROUND, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = OBJECT
    outlines = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32) for x1, y1, x2, y2 in boxes]
    array = np.array(boxes, np.float32).reshape(-1, 4)
    instances = Instances(np.arange(len(boxes), dtype=np.float32), array, outlines if polygons else None)
    return [place(SourceImage(image, CANVAS, instances), 0, 0, 1.0, (0, 0, CANVAS[1], CANVAS[0]))]


def pasted(boxes, fraction, polygons=True, seed=0):
    return copy_paste(tiles(boxes, polygons), CANVAS, fraction, np.random.default_rng(seed))


def test_copies_appear_mirrored_with_their_labels():
    found = pasted([(10, 20, 40, 60)], 1.0)
    image, instances = render(found, CANVAS, np.eye(3), CANVAS, 1.0)
    assert instances.boxes.tolist() == [[10, 20, 40, 60], [160, 20, 190, 60]]
    assert instances.classes.tolist() == [0, 0]
    bright = (image[..., 0] > 125).nonzero()
    assert (image[21:59, 161:189] == OBJECT).all()
    assert len(bright[0]) == pytest.approx(2 * 30 * 40, rel=0.08)


def test_copies_follow_the_camera():
    """Pixels and box of a copy agree under a tilted view."""
    camera = Camera(12.0, 0.9, (3.0, 2.0))
    found = pasted([(10, 20, 40, 60)], 1.0)
    image, instances = render(found, CANVAS, camera.matrix(CANVAS, CANVAS), CANVAS, 0.9)
    for box in instances.boxes:
        x1, y1, x2, y2 = np.rint(box).astype(int)
        ys, xs = (image[y1 - 3 : y2 + 3, x1 - 3 : x2 + 3, 0] > 125).nonzero()
        ends = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        np.testing.assert_allclose(ends, (3, 3, x2 - x1 + 3, y2 - y1 + 3), atol=1.6)
    assert len(instances) == 2


def test_a_copy_that_would_hide_an_object_is_left_out():
    assert len(pasted([(10, 20, 40, 60), (150, 10, 190, 70)], 1.0)) == 1  # each would land on the other
    assert len(pasted([(85, 20, 110, 60)], 1.0)) == 1  # and this one on itself
    # the large one would hide half of the small one, the small one a sixth of the large one
    assert [t.instances.classes.tolist() for t in pasted([(10, 20, 40, 60), (185, 20, 195, 60)], 1.0)[1:]] == [[1]]


def test_the_fraction_is_that_of_the_objects():
    boxes = [(4, y, 60, y + 4) for y in range(0, 100, 10)]
    assert [len(pasted(boxes, f)) - 1 for f in (0.0, 0.1, 0.5, 1.0)] == [0, 1, 5, 10]
    chosen = {tuple(sorted(t.instances.classes[0] for t in pasted(boxes, 0.3, seed=s)[1:])) for s in range(20)}
    assert len(chosen) > 10


def test_nothing_to_copy():
    assert len(pasted([], 1.0)) == 1
    assert len(pasted([(10, 20, 40, 60)], 1.0, polygons=False)) == 1


def test_a_smaller_copy_lies_above_what_it_covers_in_the_index_map_too():
    """The small one's copy (class 1) hides a corner of the large one: in the pixels and in the map."""
    view = render(pasted([(120, 10, 195, 90), (20, 5, 40, 45)], 1.0), CANVAS, np.eye(3), CANVAS, 1.0)
    assert view.instances.classes.tolist() == [0, 1, 1]
    assert view.instances.boxes[2].tolist() == [160, 5, 180, 45]
    seen = index_map(rasterize(view.instances.polygons, CANVAS))
    assert (seen[5:45, 160:180] == 3).all()
    assert (seen[50:90, 120:195] == 1).all()


def test_a_larger_copy_lies_below_what_it_covers_in_the_index_map():
    """By area alone: at most `MAX_COVERED` of the smaller one's box is counted as its own though it is hidden."""
    view = render(pasted([(185, 20, 195, 60), (8, 5, 70, 30)], 1.0), CANVAS, np.eye(3), CANVAS, 1.0)
    large = 2 + view.instances.classes[2:].tolist().index(1)
    assert view.instances.boxes[large].tolist() == [130, 5, 192, 30]  # covers 7 × 10 of 10 × 40 pixels
    seen = index_map(rasterize(view.instances.polygons, CANVAS))
    assert (seen[20:60, 185:195] == 1).all()
    assert (seen[5:20, 130:192] == large + 1).all()
