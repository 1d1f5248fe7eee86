"""Which images make which batch: the order of an epoch, the share of each process, and the images of each mosaic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

MOSAIC_INDICES = 7  # a mosaic needs three more images; a second one, which is mixed with it, needs four


class SampleRequest(NamedTuple):
    """Asks for one sample. Equal requests give equal samples, whichever process answers them."""

    image: int
    key: tuple[int, ...]  # seeds the sample's random choices, together with the data set's seed
    mosaic_indices: tuple[int, ...] = ()  # the other images of its mosaics


class BatchPlan(Sampler[list[SampleRequest]]):
    """The batches of one epoch after another. They depend on the seed and the epoch and on nothing else.

    Args:
        order: gives the images of an epoch before shuffling; it is called at the start of each epoch.
        batch_size: images per batch.
        shuffle: make a new order in every epoch.
        seed: seeds the orders and the choice of mosaic images.
        rank, world: this process takes every `world`-th batch, beginning with batch number `rank`.
        even: give all processes equally many batches, all of them full, as processes that train together need it. The
            first images are then used twice if necessary. Without it each image is used once, and some processes get
            one batch less.
        drop_last: leave out a last batch that is not full.
        mosaic_pool: from how many recent images of a worker the others of a mosaic are drawn; None for no mosaics.
        workers: number of workers; batch k is made by worker ``k % workers``.

    The other images of a mosaic are drawn uniformly from the last `mosaic_pool` images of which the same worker made
    samples, because it still has their pixels; at the start of an epoch these are the last images of the epoch before.
    As the order is random, every image is equally likely to be drawn. On average it is drawn three times per epoch, as
    in YOLOv5; only the images that meet in one mosaic are not independent of those in the next. If `mosaic_pool` covers
    the data set, they are independent.
    """

    def __init__(
        self,
        order: Callable[[], np.ndarray],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        even: bool = True,
        drop_last: bool = False,
        mosaic_pool: int | None = None,
        workers: int = 1,
    ) -> None:
        self.order = order
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed % 2**32
        self.rank = rank
        self.world = world
        self.even = even
        self.drop_last = drop_last
        self.mosaic_pool = mosaic_pool
        self.workers = max(workers, 1)
        self.epoch = 0

    def __len__(self) -> int:
        """How many batches this process gets per epoch."""
        count, full = len(self.order()), self.batch_size * self.world
        if self.drop_last:
            return count // full
        if self.even:
            return -(-count // full)
        return len(range(self.rank, -(-count // self.batch_size), self.world))

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        batches = self._batches(self.epoch)
        others = self._mosaic_indices(batches) if self.mosaic_pool else None
        for k, batch in enumerate(batches):
            first = (k * self.world + self.rank) * self.batch_size
            yield [
                SampleRequest(image, (self.epoch, first + j), tuple(others[k][j].tolist()) if others else ())
                for j, image in enumerate(batch.tolist())
            ]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """The image numbers of this process's batches."""
        order = np.asarray(self.order())
        if self.shuffle:
            # epoch -1 stands for the one before the first in `_mosaic_indices`
            order = order[np.random.default_rng((self.seed, epoch + 1)).permutation(len(order))]
        full = self.batch_size * self.world
        if self.drop_last:
            order = order[: len(order) // full * full]
        elif self.world > 1 and self.even:
            order = np.resize(order, -(-len(order) // full) * full)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)][self.rank :: self.world]

    def _mosaic_indices(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """For each batch an array (batch size, MOSAIC_INDICES) of image numbers."""
        rng = np.random.default_rng((self.seed, self.epoch, self.rank, self.workers))
        order, before = np.asarray(self.order()), self._batches(self.epoch - 1)
        span = self.mosaic_pool or 0
        result: list[np.ndarray] = [np.empty(0)] * len(batches)
        for worker in range(min(self.workers, len(batches))):
            numbers = range(worker, len(batches), self.workers)
            history, current = (np.concatenate(made[worker :: self.workers]) for made in (before, batches))
            if span >= len(order):
                drawn = order[rng.integers(0, len(order), (len(current), MOSAIC_INDICES))]
            else:
                back = rng.integers(1, min(span, len(history)) + 1, (len(current), MOSAIC_INDICES))
                at = len(history) + np.arange(len(current))[:, None] - back
                drawn = np.concatenate((history, current))[at]
            ends = np.cumsum([len(batches[k]) for k in numbers])[:-1]
            for k, part in zip(numbers, np.split(drawn, ends), strict=True):
                result[k] = part
        return result
