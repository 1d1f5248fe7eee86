"""How finished images travel from workers to the main process: through memory that is mapped once and used again."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from utils.data.batch import Batch, Placement
from utils.data.images.memory import SharedBytes

PREFETCH = 2  # batches that a worker may be ahead
_NUMBERS = itertools.count()
_OPEN: weakref.WeakValueDictionary[int, Slots] = weakref.WeakValueDictionary()  # of this process, by number


class Slots:
    """For each worker a ring of places of `nbytes`, each for the images of one batch.

    torch would give every batch new shared memory: a page fault for each 4 KB on both sides, which is a third of a
    worker's time in a virtual machine, and an error where /dev/shm is small. Here pages are touched once. A worker
    writes its k-th batch to place k modulo `PREFETCH` + 1. That batch is ordered when the main process takes the
    worker's batch k - `PREFETCH`, so all before that one have been copied out of their places by then.
    """

    def __init__(self, workers: int, nbytes: int) -> None:
        self.number = next(_NUMBERS)
        self._nbytes = nbytes
        self._memory = SharedBytes(workers * (PREFETCH + 1) * nbytes, written_by_workers=True)
        self._shipped = 0  # by this worker
        _OPEN[self.number] = self

    def place(self, worker: int, turn: int, shape: Sequence[int]) -> torch.Tensor:
        """The images `shape` (B, 3, H, W) uint8 of a worker's batch number `turn`; a view.

        Raises `ValueError` for a batch that is larger than a place.
        """
        if math.prod(shape) > self._nbytes:
            raise ValueError(f"a batch {tuple(shape)} does not fit into {self._nbytes} bytes")
        start = (worker * (PREFETCH + 1) + turn % (PREFETCH + 1)) * self._nbytes
        return torch.from_numpy(self._memory.array[start : start + math.prod(shape)].reshape(tuple(shape)))

    def next_place(self, worker: int, shape: Sequence[int]) -> torch.Tensor:
        """In a worker: where the images of its next batch go."""
        return self.place(worker, self._shipped, shape)

    def ship(self, batch: Batch, worker: int) -> Shipment:
        """In a worker: `batch`, ready to travel. Images that are not in their place yet are copied there."""
        place = self.next_place(worker, batch.images.shape)
        if place.data_ptr() != batch.images.data_ptr():
            place.copy_(batch.images)
        self._shipped += 1
        masks = None if batch.masks is None else batch.masks.numpy()
        return Shipment(
            self.number, worker, self._shipped - 1, tuple(batch.images.shape), batch.targets.numpy(), batch.paths,
            batch.shapes, masks, batch.polygons,
        )  # fmt: skip


@dataclass(eq=False)
class Shipment:
    """A batch on its way; its images lie in the place `turn` of `worker`.

    The rest goes through the pipe as arrays, because torch would open shared memory for each tensor. Masks are a
    fraction of the images (a 48th as index maps of ratio 4), and nobody knows beforehand how many there will be.
    """

    slots: int
    worker: int
    turn: int
    size: tuple[int, ...]
    targets: np.ndarray
    paths: Sequence[str]
    shapes: Sequence[Placement | None] | None
    masks: np.ndarray | None
    polygons: list[np.ndarray] | None

    def unpack(self) -> Batch:
        """In the main process: the batch, its images copied out of the place."""
        batch = self._in_place()
        return replace(batch, images=batch.images.clone())

    def pin_memory(self) -> Batch:
        """The same with the copy in page-locked memory; torch's loader calls it in a thread if there is a GPU."""
        return self._in_place().pin_memory()

    def _in_place(self) -> Batch:
        images = _OPEN[self.slots].place(self.worker, self.turn, self.size)
        masks = None if self.masks is None else torch.from_numpy(self.masks)
        return Batch(images, torch.from_numpy(self.targets), self.paths, self.shapes, masks, self.polygons)
