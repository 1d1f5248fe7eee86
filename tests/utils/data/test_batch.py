from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.data.batch import Batch, LetterboxInfo, Sample, assemble, collate, quad
from utils.data.instances import Instances
from utils.data.rasterize import MaskFormat


def sample(value, boxes, size=(32, 64), classes=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.array(classes if classes is not None else [value] * len(boxes), np.float32)
    placement = LetterboxInfo(size, ((1.0, 1.0), (0.0, 0.0)))
    return Sample(np.full((3, *size), value, np.uint8), Instances(classes, boxes), f"{value}.jpg", placement)


SAMPLES = [sample(1, [[0, 0, 32, 16], [16, 8, 48, 24]]), sample(2, []), sample(3, [[0, 0, 64, 32]])]


def test_collate():
    batch = collate(SAMPLES)
    assert batch.images.shape == (3, 3, 32, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert batch.targets.tolist() == [[0, 1, 0.25, 0.25, 0.5, 0.5], [0, 1, 0.5, 0.5, 0.5, 0.5], [2, 3, 0.5, 0.5, 1, 1]]
    assert batch.targets.dtype == torch.float32
    assert list(batch.paths) == ["1.jpg", "2.jpg", "3.jpg"]
    assert batch.shapes[0] == ((32, 64), ((1.0, 1.0), (0.0, 0.0)))
    assert len(batch) == 3


def test_no_objects_at_all():
    assert collate([sample(1, []), sample(2, [])]).targets.shape == (0, 6)


def test_unpacks_as_in_yolov5():
    images, targets, paths, shapes = collate(SAMPLES)
    assert (len(images), len(targets), len(paths), len(shapes)) == (3, 3, 3, 3)
    batch = collate(SAMPLES)
    masked = Batch(batch.images, batch.targets, batch.paths, batch.shapes, torch.zeros(3, 8, 16))
    assert len(list(masked)) == 5


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="different sizes"):
        collate([sample(1, []), sample(2, [], (64, 64))])


def test_moves_everything():
    batch = collate(SAMPLES).to("meta")
    assert batch.images.device.type == batch.targets.device.type == "meta"
    assert list(batch.paths) == ["1.jpg", "2.jpg", "3.jpg"]


def test_assemble_copies_no_pixels():
    images = torch.zeros(3, 3, 32, 64, dtype=torch.uint8)
    assert assemble(images, SAMPLES).images is images


class Fixed:
    """A generator whose next numbers are known."""

    def __init__(self, *values):
        self.values = list(values)

    def random(self):
        return self.values.pop(0)


def quads(samples, *draws):
    return collate(quad(samples, Fixed(*draws)))


def test_quad_of_four_images():
    """First below it the second, to their right the third and the fourth."""
    four = [sample(v, [[0, 0, 64, 32]], classes=[v]) for v in (10, 20, 30, 40)]
    found = quads(four, 0.9)
    assert found.images.shape == (1, 3, 64, 128)
    assert found.images[0, 0, ::32, ::64].tolist() == [[10, 30], [20, 40]]
    assert found.targets.tolist() == [
        [0, 10, 0.25, 0.25, 0.5, 0.5],
        [0, 20, 0.25, 0.75, 0.5, 0.5],
        [0, 30, 0.75, 0.25, 0.5, 0.5],
        [0, 40, 0.75, 0.75, 0.5, 0.5],
    ]
    assert list(found.paths) == ["10.jpg"]


def test_quad_of_one_enlarged():
    four = [sample(v, [[0, 0, 32, 16]], classes=[v]) for v in (10, 20, 30, 40)]
    found = quads(four * 2, 0.9, 0.1)
    assert found.images.shape == (2, 3, 64, 128)
    assert (found.images[1] == 10).all()
    assert found.targets[4:].tolist() == [[1, 10, 0.25, 0.25, 0.5, 0.5]]
    assert len(found.paths) == len(found.shapes) == 2


def test_quad_of_a_rest():
    found = quads([sample(v, [[0, 0, 32, 16]]) for v in (10, 20, 30, 40, 50, 60)], 0.9)
    assert found.images.shape[0] == 2
    assert (found.images[1] == 50).all()
    assert found.targets[-1].tolist() == [1, 50, 0.25, 0.25, 0.5, 0.5]


# --- masks ------------------------------------------------------------------------------------------------------------


def outlined(value, boxes, size=(32, 64), placement=True):
    """A sample whose objects are rectangles with outlines."""
    plain = sample(value, boxes, size)
    outlines = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32) for x1, y1, x2, y2 in boxes]
    instances = Instances(plain.instances.classes, plain.instances.boxes, outlines)
    return plain._replace(instances=instances, shapes=plain.shapes if placement else None)


OUTLINED = [
    outlined(1, [[16, 8, 32, 16], [0, 0, 48, 32]]),
    outlined(2, []),
    outlined(3, [[0, 0, 64, 32]]),
    outlined(4, [[32, 0, 64, 16], [32, 16, 48, 32], [40, 8, 48, 16]]),
]


def test_masks_as_index_maps():
    batch = collate(OUTLINED, MaskFormat(ratio=8))
    assert batch.masks.shape == (4, 4, 8)
    assert batch.masks.dtype == torch.uint8
    assert batch.masks[0].tolist() == [
        [2, 2, 2, 2, 2, 2, 0, 0],
        [2, 2, 1, 1, 2, 2, 0, 0],
        [2, 2, 2, 2, 2, 2, 0, 0],
        [2, 2, 2, 2, 2, 2, 0, 0],
    ]
    assert not batch.masks[1].any()
    assert batch.masks[3][1].tolist() == [0, 0, 0, 0, 1, 3, 1, 1]
    stacks = batch.mask_stacks(overlap=True)
    assert [tuple(stack.shape) for stack in stacks] == [(2, 4, 8), (0, 4, 8), (1, 4, 8), (3, 4, 8)]
    assert [stack.sum((1, 2)).tolist() for stack in stacks] == [[2, 22], [], [32], [7, 4, 1]]


def test_masks_one_an_object():
    batch = collate(OUTLINED, MaskFormat(ratio=8, overlap=False))
    assert batch.masks.shape == (6, 4, 8)
    stacks = batch.mask_stacks(overlap=False)
    assert [stack.sum((1, 2)).tolist() for stack in stacks] == [[2, 24], [], [32], [8, 4, 1]]
    assert all(stack.dtype == torch.uint8 for stack in stacks)


def test_no_masks_unless_asked_for():
    batch = collate(OUTLINED)
    assert batch.masks is None
    with pytest.raises(ValueError, match="no masks"):
        batch.mask_stacks(True)


def test_outlines_stay_with_samples_that_are_not_augmented():
    batch = collate(OUTLINED)
    assert len(batch.polygons) == len(batch.targets) == 6
    assert batch.polygons[2].tolist() == [[0, 0], [64, 0], [64, 32], [0, 32]]
    assert collate([outlined(1, [[0, 0, 8, 8]], placement=False)]).polygons is None
    assert collate(SAMPLES).polygons is None


@pytest.mark.parametrize("overlap", [True, False])
def test_masks_of_quads(overlap):
    """The masks of four images put together, and those of one image enlarged."""
    masks = MaskFormat(8, overlap)
    single = [stack.numpy() for stack in collate(OUTLINED, masks).mask_stacks(overlap)]
    found = collate(quad(OUTLINED * 2, Fixed(0.9, 0.1)), masks)
    assert found.images.shape == (2, 3, 64, 128)
    four, one = (stack.numpy() for stack in found.mask_stacks(overlap))
    expected = np.zeros((6, 8, 16), np.uint8)
    for rows, mask, (y, x) in ((slice(0, 2), 0, (0, 0)), (slice(2, 3), 2, (0, 8)), (slice(3, 6), 3, (4, 8))):
        expected[rows, y : y + 4, x : x + 8] = single[mask]
    np.testing.assert_array_equal(four, expected)
    np.testing.assert_array_equal(one, single[0].repeat(2, 1).repeat(2, 2))
