from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.data.batch import Batch
from utils.data.batch_buffers import PREFETCH, BatchBuffers


def batch(value, shape=(2, 3, 4, 8)):
    return Batch(torch.full(shape, value, dtype=torch.uint8), torch.full((1, 6), value), ["a", "b"][: shape[0]], None)


def test_a_batch_arrives_as_it_was():
    buffers = BatchBuffers(1, 2 * 3 * 4 * 8)
    found = buffers.pack(batch(5), 0).unpack()
    assert torch.equal(found.images, batch(5).images)
    assert torch.equal(found.targets, batch(5).targets)
    assert found.paths == ["a", "b"]
    assert found.masks is None


@pytest.mark.parametrize("shape", [(2, 1, 2), (300, 1, 2), (0, 1, 2)])
def test_masks_and_outlines_travel_along(shape):
    """Masks may be more than images; they go through the pipe as arrays, so no shared memory is opened for them."""
    buffers = BatchBuffers(1, 192)
    masks = torch.arange(shape[0] * 2, dtype=torch.int32).reshape(shape)
    outlines = [np.ones((3, 2), np.float32), np.zeros((0, 2), np.float32)]
    packed = buffers.pack(replace(batch(5), masks=masks, polygons=outlines), 0)
    assert not any(isinstance(value, torch.Tensor) for value in vars(packed).values())
    found = pickle.loads(pickle.dumps(packed)).unpack()
    assert torch.equal(found.masks, masks)
    assert found.masks.dtype == torch.int32
    for one, other in zip(found.polygons, outlines, strict=True):
        np.testing.assert_array_equal(one, other)


def test_as_many_buffers_as_batches_may_be_on_their_way():
    buffers = BatchBuffers(2, 2 * 3 * 4 * 8)
    packed = [buffers.pack(batch(value), worker=1) for value in range(1, PREFETCH + 2)]
    assert [s.unpack().images[0, 0, 0, 0].item() for s in packed] == list(range(1, PREFETCH + 2))
    assert not any(buffers.buffer(0, turn, (192,)).any() for turn in range(PREFETCH + 1))  # of the other worker
    buffers.pack(batch(99), worker=1)
    assert packed[0].unpack().images[0, 0, 0, 0].item() == 99  # the oldest buffer again


def test_a_batch_larger_than_a_place_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3, 4, 8\) does not fit into 192 bytes"):
        BatchBuffers(2, 192).pack(batch(5, (3, 3, 4, 8)), 0)


def test_what_was_unpacked_is_a_copy():
    buffers = BatchBuffers(1, 192)
    first = buffers.pack(batch(1), 0).unpack()
    for value in range(2, 9):
        buffers.pack(batch(value), 0)
    assert (first.images == 1).all()


def test_pinning_copies_too(monkeypatch):
    """Page-locked memory needs a GPU; what torch's loader calls for it is a copy in any case."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    buffers = BatchBuffers(1, 192)
    pinned = torch.utils.data._utils.pin_memory.pin_memory(buffers.pack(batch(1), 0))
    for value in range(2, 9):
        buffers.pack(batch(value), 0)
    assert isinstance(pinned, Batch)
    assert (pinned.images == 1).all()
    assert torch.equal(pinned.targets, batch(1).targets)


def test_images_made_in_their_place_are_not_copied():
    buffers = BatchBuffers(1, 192)
    buffer = buffers.next_buffer(0, (2, 3, 4, 8))
    buffer.fill_(7)
    made = batch(0)
    made.images = buffer
    assert (buffers.pack(made, 0).unpack().images == 7).all()


@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (2, 3, 4, 4)])
def test_other_shapes_fit_as_long_as_they_are_not_larger(shape):
    assert (BatchBuffers(1, 384).pack(batch(3, shape), 0).unpack().images.shape) == shape
