"""Shared memory through which workers hand their finished batches to the main process; it is mapped once and reused."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from utils.data.batch import Batch, LetterboxInfo
from utils.data.images.memory import SharedBytes

PREFETCH = 2  # batches that a worker may be ahead
_NUMBERS = itertools.count()
_OPEN: weakref.WeakValueDictionary[int, BatchBuffers] = weakref.WeakValueDictionary()  # of this process, by number


class BatchBuffers:
    """A ring of buffers for each worker. A buffer has `nbytes` bytes and holds the images of one batch.

    torch would give every batch new shared memory. That costs a page fault for each 4 KB on both sides, which is a
    third of a worker's time in a virtual machine, and it is an error where /dev/shm is small. Here every page is
    touched once. A worker writes its k-th batch to buffer k modulo `PREFETCH` + 1. The main process orders that batch
    when it takes the worker's batch k - `PREFETCH`, so it has copied all earlier batches out of their buffers by then.
    """

    def __init__(self, workers: int, nbytes: int) -> None:
        self.number = next(_NUMBERS)
        self._nbytes = nbytes
        self._memory = SharedBytes(workers * (PREFETCH + 1) * nbytes, written_by_workers=True)
        self._packed = 0  # batches, by this worker
        _OPEN[self.number] = self

    def buffer(self, worker: int, turn: int, shape: Sequence[int]) -> torch.Tensor:
        """A view of the buffer that holds the images `shape` (B, 3, H, W) uint8 of a worker's batch number `turn`.

        Raises `ValueError` for a batch that is larger than a buffer.
        """
        if math.prod(shape) > self._nbytes:
            raise ValueError(f"a batch {tuple(shape)} does not fit into {self._nbytes} bytes")
        start = (worker * (PREFETCH + 1) + turn % (PREFETCH + 1)) * self._nbytes
        return torch.from_numpy(self._memory.array[start : start + math.prod(shape)].reshape(tuple(shape)))

    def next_buffer(self, worker: int, shape: Sequence[int]) -> torch.Tensor:
        """The buffer for the images of the next batch. This is called in a worker."""
        return self.buffer(worker, self._packed, shape)

    def pack(self, batch: Batch, worker: int) -> BufferedBatch:
        """Make `batch` ready to travel, in a worker. Images that are not in their buffer yet are copied there."""
        buffer = self.next_buffer(worker, batch.images.shape)
        if buffer.data_ptr() != batch.images.data_ptr():
            buffer.copy_(batch.images)
        self._packed += 1
        masks = None if batch.masks is None else batch.masks.numpy()
        return BufferedBatch(
            self.number, worker, self._packed - 1, tuple(batch.images.shape), batch.targets.numpy(), batch.paths,
            batch.shapes, masks, batch.polygons,
        )  # fmt: skip


@dataclass(eq=False)
class BufferedBatch:
    """A batch on its way to the main process. Its images lie in the buffer `turn` of `worker`.

    The rest goes through a pipe as arrays, because torch would open shared memory for each tensor. Masks are much
    smaller than the images (a 48th of them as index maps of ratio 4), and nobody knows beforehand how many there are.
    """

    buffers: int  # number of the `BatchBuffers`
    worker: int
    turn: int
    shape: tuple[int, ...]  # of the images
    targets: np.ndarray
    paths: Sequence[str]
    shapes: Sequence[LetterboxInfo | None] | None
    masks: np.ndarray | None
    polygons: list[np.ndarray] | None

    def unpack(self) -> Batch:
        """The batch with its images copied out of the buffer. This is called in the main process."""
        batch = self._in_buffer()
        return replace(batch, images=batch.images.clone())

    def pin_memory(self) -> Batch:
        """The batch, with its images copied to page-locked memory. torch's loader calls this if there is a GPU."""
        return self._in_buffer().pin_memory()

    def _in_buffer(self) -> Batch:
        images = _OPEN[self.buffers].buffer(self.worker, self.turn, self.shape)
        masks = None if self.masks is None else torch.from_numpy(self.masks)
        return Batch(images, torch.from_numpy(self.targets), self.paths, self.shapes, masks, self.polygons)
