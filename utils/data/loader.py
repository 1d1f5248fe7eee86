"""The loader: it gives the batches of a data set, made by worker processes that stay alive between epochs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from utils.data.batch import Batch
from utils.data.batch_buffers import PREFETCH, BatchBuffers, BufferedBatch
from utils.data.dataset import DetectionDataset
from utils.data.indexing.index import ImageIndex, build_index
from utils.data.rasterize import MaskFormat
from utils.data.sampling import BatchPlan, SampleRequest
from utils.devices import return_free_memory
from utils.distributed import local_world_size, main_process_first, world_size
from utils.errors import UserError


class _Failure(NamedTuple):
    """A user's mistake that a worker found, on its way to the main process, which raises it without a traceback."""

    message: str


class _Batches(Dataset):
    """What a worker runs: it turns a list of requests into a batch, packed if it has to travel."""

    def __init__(self, dataset: DetectionDataset, quads: bool, buffers: BatchBuffers | None) -> None:
        self.dataset = dataset
        self.quads = quads
        self.buffers = buffers

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, requests: list[SampleRequest]) -> Batch | BufferedBatch | _Failure:
        worker = get_worker_info()
        try:
            if worker is None or self.buffers is None:
                return self.dataset.batch(requests, self.quads)
            buffer = self.buffers.next_buffer(worker.id, self.dataset.batch_shape(requests))
            return self.buffers.pack(self.dataset.batch(requests, self.quads, buffer), worker.id)
        except UserError as error:
            return _Failure(str(error))


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # there are as many workers as cores already


class Loader:
    """Iterates over the batches of one epoch after another.

    Each ``iter()`` begins the next epoch, and `set_epoch` chooses it. The batches depend on the seed, the epoch and the
    number of workers only. Raises `UserError` with the file's name where an image cannot be read.
    """

    def __init__(self, dataset: DetectionDataset, plan: BatchPlan, workers: int, quads: bool = False) -> None:
        self.dataset = dataset
        self.plan = plan
        self.num_workers = workers
        self.epoch = 0
        self._started = False
        height, width = dataset.largest_size
        groups = -(-plan.batch_size // 4) * 4  # quads fill up a last group of fewer than four
        buffers = BatchBuffers(workers, groups * 3 * height * width) if workers else None
        self._batches = DataLoader(
            _Batches(dataset, quads, buffers),
            batch_size=None,  # the plan's lists of requests are batches already
            sampler=plan,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(plan.seed),  # leaves the global generator alone
        )

    @property
    def batch_size(self) -> int:
        """Images per batch of this process."""
        return self.plan.batch_size

    @property
    def processes(self) -> int:
        """The number of processes among which the batches are dealt in turn."""
        return self.plan.world

    def __len__(self) -> int:
        return len(self.plan)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next ``iter()`` begins."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        self.plan.epoch = self.epoch
        self.epoch += 1
        if self.num_workers and not self._started:  # a validation may start when a training has used gigabytes
            return_free_memory()
            self._started = True
        for batch in self._batches:
            if isinstance(batch, _Failure):
                raise UserError(batch.message)
            yield batch.unpack() if isinstance(batch, BufferedBatch) else batch


def create_loader(
    paths_or_index: str | Path | Sequence[str | Path] | ImageIndex,
    imgsz: int | tuple[int, int],
    batch_size: int,
    *,
    stride: int = 32,
    augment: bool = False,
    hyp: Mapping[str, float] | None = None,
    rect: bool = False,
    pad: float = 0.0,
    cache: str = "",
    workers: int = 8,
    rank: int = -1,
    image_weights: bool = False,
    quad: bool = False,
    shuffle: bool = False,
    seed: int = 0,
    single_cls: bool = False,
    nc: int | None = None,
    polygons: bool = False,
    masks: MaskFormat | None = None,
    prefix: str = "",
    drop_last: bool = False,
) -> Loader:
    """A loader over an index, or over folders and lists of images that are indexed first.

    Args:
        batch_size: images per batch of this process; with `quad` a quarter as many, of twice the side, come out.
        workers: the most worker processes; there are never more than this process has cores or batches. 0 for none.
        rank: of this process in distributed training; -1 if it is alone. All processes call this together, and each
            gets its share of the batches: equally many if they are augmented, else each image once.
        image_weights: the caller assigns ``loader.dataset.indices`` before each epoch; that order is not shuffled.
        shuffle: make a new order in each epoch; not with `rect`.
        polygons: read polygons and not only boxes; implied by `masks`.

    The other arguments are those of `DetectionDataset` and `build_index`.
    """
    if batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {batch_size}")
    if isinstance(paths_or_index, ImageIndex):
        index = paths_or_index.as_single_class() if single_cls else paths_or_index
    else:
        paths = [paths_or_index] if isinstance(paths_or_index, (str, Path)) else paths_or_index
        with main_process_first() if rank >= 0 else contextlib.nullcontext():
            index = build_index(paths, nc, polygons=polygons or masks is not None, single_cls=single_cls, prefix=prefix)
    dataset = DetectionDataset(
        index, imgsz, augment=augment, hyp=hyp, rect=rect, batch_size=batch_size, stride=stride, pad=pad, cache=cache,
        shared=rank >= 0, seed=seed, masks=masks, prefix=prefix,
    )  # fmt: skip
    world, neighbours = (world_size(), local_world_size()) if rank >= 0 else (1, 1)
    batches = -(-len(index) // (batch_size * world))
    workers = max(0, min(workers, _cores() // neighbours or 1, batches))
    plan = BatchPlan(
        dataset.epoch_indices, batch_size, shuffle=shuffle and not rect and not image_weights, seed=seed,
        rank=max(rank, 0), world=world, even=augment, drop_last=drop_last and len(index) >= batch_size * world,
        mosaic_pool=dataset.images_at_hand if dataset.mosaic else None, workers=workers,
    )  # fmt: skip
    return Loader(dataset, plan, workers, quads=quad)


def _cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return multiprocessing.cpu_count()
