from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.data.batch import Batch, Placement, Sample, assemble, collate, quad
from utils.data.instances import Instances


def sample(value, boxes, size=(32, 64), classes=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.array(classes if classes is not None else [value] * len(boxes), np.float32)
    placement = Placement(size, ((1.0, 1.0), (0.0, 0.0)))
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
