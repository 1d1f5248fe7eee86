"""Which images make which batch: the order of an epoch, its share of each process, and the partners of each mosaic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from utils.data.augment.view import PARTNERS


class Ticket(NamedTuple):
    """An order for one sample. Equal tickets give equal samples, in whatever process."""

    image: int
    key: tuple[int, ...]  # seeds the sample's random choices, together with the data set's seed
    partners: tuple[int, ...] = ()


class BatchPlan(Sampler[list[Ticket]]):
    """The batches of one epoch after another; a pure function of seed and epoch.

    Args:
        order: gives the images of an epoch, before shuffling; asked at the start of each.
        batch_size: images a batch.
        shuffle: a new order every epoch.
        seed: of the orders and partners.
        rank, world: this process takes every `world`-th batch from the `rank`-th on.
        even: several processes all get equally many batches, all full, as those that train together need it: the first
            images are used twice if need be. Else each image is used once, and some processes get a batch less.
        drop_last: leave out a last batch that is not full.
        partners: None for no mosaics; else how many recent images of a worker the partners are drawn from.
        streams: number of workers; batch k is made by worker ``k % streams``.

    Partners are drawn uniformly from the last `partners` images that the same worker made samples of, whose pixels it
    still has; at the start of an epoch these are the last ones of the epoch before. As the order is random, every image
    is as likely as any other to be a partner, and does that thrice an epoch on average, as in YOLOv5; only which images
    meet is no longer independent from one sample to the next. If `partners` covers the data set they are independent.
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
        partners: int | None = None,
        streams: int = 1,
    ) -> None:
        self.order = order
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed % 2**32
        self.rank = rank
        self.world = world
        self.even = even
        self.drop_last = drop_last
        self.partners = partners
        self.streams = max(streams, 1)
        self.epoch = 0

    def __len__(self) -> int:
        """Batches that this process gets in an epoch."""
        count, full = len(self.order()), self.batch_size * self.world
        if self.drop_last:
            return count // full
        if self.even:
            return -(-count // full)
        return len(range(self.rank, -(-count // self.batch_size), self.world))

    def __iter__(self) -> Iterator[list[Ticket]]:
        batches = self._batches(self.epoch)
        partners = self._partners(batches) if self.partners else None
        for k, batch in enumerate(batches):
            first = (k * self.world + self.rank) * self.batch_size
            yield [
                Ticket(image, (self.epoch, first + j), tuple(partners[k][j].tolist()) if partners else ())
                for j, image in enumerate(batch.tolist())
            ]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """The image numbers of this process's batches."""
        order = np.asarray(self.order())
        if self.shuffle:
            # epoch -1 is what "before the first" means to `_partners`
            order = order[np.random.default_rng((self.seed, epoch + 1)).permutation(len(order))]
        full = self.batch_size * self.world
        if self.drop_last:
            order = order[: len(order) // full * full]
        elif self.world > 1 and self.even:
            order = np.resize(order, -(-len(order) // full) * full)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)][self.rank :: self.world]

    def _partners(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """For each batch (batch size, PARTNERS) image numbers."""
        rng = np.random.default_rng((self.seed, self.epoch, self.rank, self.streams))
        order, before = np.asarray(self.order()), self._batches(self.epoch - 1)
        span = self.partners or 0
        result: list[np.ndarray] = [np.empty(0)] * len(batches)
        for stream in range(min(self.streams, len(batches))):
            numbers = range(stream, len(batches), self.streams)
            history, current = (np.concatenate(made[stream :: self.streams]) for made in (before, batches))
            if span >= len(order):
                drawn = order[rng.integers(0, len(order), (len(current), PARTNERS))]
            else:
                back = rng.integers(1, min(span, len(history)) + 1, (len(current), PARTNERS))
                at = len(history) + np.arange(len(current))[:, None] - back
                drawn = np.concatenate((history, current))[at]
            ends = np.cumsum([len(batches[k]) for k in numbers])[:-1]
            for k, part in zip(numbers, np.split(drawn, ends), strict=True):
                result[k] = part
        return result
