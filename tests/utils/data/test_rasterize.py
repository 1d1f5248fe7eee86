"""The rasteriser against matplotlib (points in paths), pycocotools and figures by hand; the layers of index maps."""

from __future__ import annotations

import numpy as np
import pytest

from utils.data.rasterize import MaskFormat, index_map, polygons_to_box_masks, rasterize
from utils.errors import UserError
from utils.ops.masks import paste_mask
from utils.ops.polygons import clip_polygon, polygon_boxes


def inside(points, size, ratio=1):
    """Which cell centres matplotlib finds within the polygon."""
    from matplotlib.path import Path

    rows, columns = size[0] // ratio, size[1] // ratio
    centres = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * ratio + ratio / 2
    return Path(np.concatenate((points, points[:1]))).contains_points(centres).reshape(rows, columns).astype(np.uint8)


def star(rng, centre, radius, corners=7):
    angle = np.linspace(0, 2 * np.pi, 2 * corners, endpoint=False) + rng.uniform(0, 6)
    length = np.where(np.arange(2 * corners) % 2, radius, radius * rng.uniform(0.2, 0.6))
    return (centre + length[:, None] * np.stack((np.cos(angle), np.sin(angle)), 1)).astype(np.float32)


@pytest.mark.parametrize("ratio", [1, 4, 8])
def test_stars_inside_and_beyond_the_picture(ratio):
    rng = np.random.default_rng(ratio)
    size = (72, 104)
    outlines = [star(rng, rng.uniform(-20, 110, 2), rng.uniform(2, 70)) for _ in range(60)]
    found = rasterize(outlines, size, ratio)
    assert found.shape == (60, 72 // ratio, 104 // ratio)
    assert found.dtype == np.uint8
    for mask, points in zip(found, outlines, strict=True):
        np.testing.assert_array_equal(mask, inside(points, size, ratio))
    assert 0.05 < found.mean() < 0.5


@pytest.mark.parametrize("ratio", [1, 4])
def test_self_intersecting_outlines_follow_the_even_odd_rule(ratio):
    rng = np.random.default_rng(1)
    outlines = [rng.uniform(-10, 90, (k, 2)).astype(np.float32) for k in (4, 5, 9, 30)]
    for mask, points in zip(rasterize(outlines, (80, 80), ratio), outlines, strict=True):
        np.testing.assert_array_equal(mask, inside(points, (80, 80), ratio))


def test_a_triangle_by_hand():
    """x + y <= 6 from the corner 1, 1: centres 1.5, 2.5, … whose sum is below 6; those on the slanted side are out."""
    found = rasterize([np.array([[1, 1], [5, 1], [1, 5]])], (6, 6))[0]
    assert found.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_rectangles_that_share_a_side_share_no_cell_and_leave_no_gap():
    """Sides through cell centres: each centre belongs to the one on whose left or upper side it lies."""
    tiles = []
    for x1, x2 in ((0, 2.5), (2.5, 6)):
        for y1, y2 in ((0, 3.5), (3.5, 5)):
            tiles.append(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32))
    found = rasterize(tiles, (5, 6))
    assert (found.sum(0) == 1).all()
    assert found.sum((1, 2)).tolist() == [2 * 3, 2 * 2, 4 * 3, 4 * 2]


def test_a_cell_is_decided_by_its_centre():
    """Cells of 4 × 4 pixels, centres at 2, 6, 10: the square from 3 to 9 holds the middle one only."""
    square = np.array([[3, 3], [9, 3], [9, 9], [3, 9]], np.float32)
    assert rasterize([square], (12, 12), 4)[0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert rasterize([square], (14, 13), 4).shape == (1, 3, 3)  # no part of a cell


def test_pieces_of_a_cut_outline_are_joined_without_paint():
    """A comb over each rim in turn falls into teeth; the lines along the rim that join them must leave no trace."""
    comb = [[10, 30], [40, 30]]
    for x in range(40, 10, -6):
        comb += [[x, -20], [x - 3, -20], [x - 3, 20], [x - 6, 20]]
    comb = np.array(comb, np.float32)
    for turn in range(4):
        points = comb
        for _ in range(turn):
            points = np.stack((50 - points[:, 1], points[:, 0]), 1)
        points = points + np.float32([0.2, 0.3])
        moved = points + [[0, 35], [-35, 0], [0, -35], [35, 0]][turn]  # only the teeth are left
        for outline in (points, moved.astype(np.float32)):
            clipped = clip_polygon(outline, (50, 50))
            assert len(clipped) > 8
            for ratio in (1, 2):
                expected = inside(outline, (50, 50), ratio)
                assert expected.any()
                np.testing.assert_array_equal(rasterize([clipped], (50, 50), ratio)[0], expected)


def test_bridges_between_parts_leave_no_trace():
    """Two squares joined by a line there and back (as COCO's multi-part objects are), and a hole joined likewise."""
    two = np.array([[2, 2], [8, 2], [8, 8], [2, 8], [2, 2], [20.3, 15.1], [27, 15.1], [27, 23], [20.3, 23], [20.3, 15.1], [2, 2]])  # fmt: skip # noqa: E501
    found = rasterize([two], (30, 30))[0]
    assert found.sum() == 6 * 6 + 7 * 8
    assert found[2:8, 2:8].all()
    assert found[15:23, 20:27].all()
    ring = np.array([[0, 0], [20, 0], [20, 20], [0, 20], [0, 0], [5, 5], [5, 15], [15, 15], [15, 5], [5, 5], [0, 0]])
    assert rasterize([ring], (20, 20)).sum() == 400 - 100


def test_no_area_no_cells():
    nothing = [np.zeros((0, 2)), np.array([[3.0, 3]]), np.array([[1.0, 1], [9, 9]]), np.full((4, 2), 5.0)]
    tiny = np.array([[4.6, 4.6], [4.9, 4.6], [4.9, 4.9]])
    far = np.array([[1e6, -1e6], [2e6, 5], [1e6, 1e6]], np.float32)
    assert not rasterize([*nothing, tiny, far, -far], (10, 10)).any()
    assert rasterize([tiny - 0.3, tiny - np.array([0.25, 0.15])], (10, 10)).sum((1, 2)).tolist() == [0, 1]
    square = np.array([[2, 2], [4, 2], [4, 4], [2, 4]])
    assert rasterize([nothing[0], square, nothing[0], square, nothing[0]], (6, 6)).sum((1, 2)).tolist() == [0, 4, 0, 4, 0]  # fmt: skip # noqa: E501
    assert rasterize([], (8, 12), 4).shape == (0, 2, 3)


def test_around_the_picture_is_all_of_it():
    huge = np.array([[-1e5, -1e5], [1e5, -1e5], [1e5, 1e5], [-1e5, 1e5]], np.float32)
    assert rasterize([huge], (16, 24), 2).all()
    assert rasterize([np.array([[0, 0], [24, 0], [24, 16], [0, 16]])], (16, 24), 2).all()


def test_close_to_coco(shared_data):
    """Real outlines against pycocotools, which draws with a rule of its own: few cells differ, all on the outline."""
    import cv2
    from pycocotools import mask as coco

    from utils.data.indexing.labels import parse_labels

    files = sorted((shared_data / "data" / "coco128-seg" / "labels" / "train2017").glob("*.txt"))[:12]
    table = parse_labels([f.read_bytes() for f in files], [str(f) for f in files], polygons=True)
    outlines = [o * 160 for o in np.split(table.polygons, np.cumsum(table.polygon_counts)[:-1])]
    different = total = 0
    for mask, points in zip(rasterize(outlines, (160, 160)), outlines, strict=True):
        theirs = coco.decode(coco.frPyObjects([points.ravel().astype(float).tolist()], 160, 160))[..., 0]
        for y, x in np.argwhere(mask != theirs).tolist():
            assert abs(cv2.pointPolygonTest(points, (x + 0.5, y + 0.5), True)) < 0.8
        different += (mask != theirs).sum()
        total += mask.sum()
    assert total > 20_000
    assert different / total < 0.02


# --- index maps -------------------------------------------------------------------------------------------------------


def test_smaller_ones_lie_above():
    stack = np.zeros((4, 4, 6), np.uint8)
    stack[0, 1, 1:3] = 1  # 2 cells
    stack[1] = 1  # all 24
    stack[2, :3, :3] = 1  # 9
    assert index_map(stack).tolist() == [  # the fourth has no cells
        [3, 3, 3, 2, 2, 2],
        [3, 1, 1, 2, 2, 2],
        [3, 3, 3, 2, 2, 2],
        [2, 2, 2, 2, 2, 2],
    ]
    assert index_map(stack).dtype == np.uint8


def test_of_equal_ones_the_later_lies_above():
    stack = np.zeros((2, 1, 3), np.uint8)
    stack[0, 0, :2] = stack[1, 0, 1:] = 1
    assert index_map(stack).tolist() == [[1, 2, 2]]


def test_against_painting_one_after_the_other():
    rng = np.random.default_rng(0)
    for count in (1, 40, 255, 256, 300):
        stack = np.zeros((count, 20, 30), np.uint8)
        for mask in stack:
            (y1, y2), (x1, x2) = np.sort(rng.integers(0, 21, 2)), np.sort(rng.integers(0, 31, 2))
            mask[y1:y2, x1:x2] = 1
        painted = np.zeros((20, 30), int)
        for i in sorted(range(count), key=lambda i: (-int(stack[i].sum()), i)):
            painted[stack[i] == 1] = i + 1
        found = index_map(stack)
        np.testing.assert_array_equal(found, painted)
        assert found.dtype == (np.uint8 if count <= 255 else np.int32)


def test_without_objects():
    assert index_map(np.zeros((0, 3, 5), np.uint8)).tolist() == [[0] * 5] * 3


# --- batches ----------------------------------------------------------------------------------------------------------


def square(x, y, side):
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float32)


def test_both_forms_of_a_batch():
    images = [[square(0, 0, 16), square(4, 4, 4)], [], [square(8, 8, 8)]]
    maps = MaskFormat(ratio=4).draw(images, (16, 16))
    assert maps.shape == (3, 4, 4)
    assert maps[0].tolist() == [[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert not maps[1].any()
    assert maps[2].sum() == 4
    separate = MaskFormat(ratio=4, overlap=False).draw(images, (16, 16))
    assert separate.sum((1, 2)).tolist() == [16, 1, 4]  # nothing is hidden
    assert MaskFormat(4, overlap=False).draw([[], []], (16, 16)).shape == (0, 4, 4)


def test_a_crowded_image_widens_the_whole_batch():
    maps = MaskFormat(1).draw([[square(0, 0, 2)] * 300, [square(0, 0, 1)]], (2, 2))
    assert maps.dtype == np.int32
    assert maps.max() == 300
    assert maps[1].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("ratio", [0, -4, 2.5])
def test_a_ratio_below_one_is_refused(ratio):
    with pytest.raises(UserError, match=f"--mask-ratio {ratio}: a cell of a mask has"):
        MaskFormat(ratio)


def test_sizes_that_do_not_divide():
    for ratio in (1, 2, 4, 8, 16, 32):
        MaskFormat(ratio).check_size((640, 352))
    with pytest.raises(UserError, match="--mask-ratio 3 does not divide the input of 640x352 pixels"):
        MaskFormat(3).check_size((640, 352))


def test_boxes_of_masks_are_boxes_of_outlines_to_a_cell():
    """Of convex outlines; a sharp tip may end between cell centres."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack((np.cos(angle), np.sin(angle)), 1)
    outlines = [(rng.uniform(0, 96, 2) + rng.uniform(8, 40) * circle).astype(np.float32) for _ in range(40)]
    outlines = [o for o in (clip_polygon(o, (96, 96)) for o in outlines) if len(o) and np.ptp(o, 0).min() > 8]
    for mask, box in zip(rasterize(outlines, (96, 96), 4), polygon_boxes(outlines), strict=True):
        ys, xs = mask.nonzero()
        np.testing.assert_allclose(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * 4, box, atol=4)


def test_patches_of_polygons_hold_the_pixels_that_matplotlib_finds_and_little_else():
    rng = np.random.default_rng(5)
    size = (72, 104)
    outlines = [star(rng, rng.uniform(-20, 110, 2), rng.uniform(2, 70)) for _ in range(40)]
    boxed = polygons_to_box_masks([*outlines, np.zeros((0, 2), np.float32)], size)
    for box_mask, points in zip(boxed, outlines, strict=False):
        np.testing.assert_array_equal(paste_mask(box_mask, size), inside(points, size))
        high, wide = np.ptp(points, 0)[::-1]
        assert box_mask.pixels.shape[0] <= high + 2
        assert box_mask.pixels.shape[1] <= wide + 2
    assert boxed[-1].pixels.size == 0
