"""Kept for old scripts: YOLOv5's names for the loader, the data set and its augmentation, with its arguments.

No command of this project uses them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.data.augment.camera import draw_camera
from utils.data.augment.tiles import Tile, render
from utils.data.batch import LetterboxInfo, collate
from utils.data.dataset import DetectionDataset
from utils.data.indexing.index import build_index
from utils.data.instances import Instances
from utils.data.loader import Loader, create_loader
from utils.data.rasterize import MaskFormat

LegacySample = tuple[torch.Tensor, torch.Tensor, str, "LetterboxInfo | None"]


class LoadImagesAndLabels(DetectionDataset):
    """A `DetectionDataset` of folders and lists, whose items are ``image, labels, path, shapes``.

    ``image`` is (3, h, w) uint8 RGB. ``labels`` is (n, 6) float32: 0 (`collate_fn` puts the number of the image there),
    class, xywhn.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        img_size: int | tuple[int, int] = 640,
        batch_size: int = 16,
        augment: bool = False,
        hyp: Mapping[str, float] | None = None,
        rect: bool = False,
        image_weights: bool = False,
        cache_images: bool | str = False,
        single_cls: bool = False,
        stride: int = 32,
        pad: float = 0.0,
        min_items: int = 0,
        prefix: str = "",
    ) -> None:
        paths = [path] if isinstance(path, (str, Path)) else path
        index = build_index(paths, None, single_cls=single_cls, prefix=prefix)
        if min_items:
            index = index.select(np.diff(index.offsets) >= min_items)
        cache = "ram" if cache_images is True else cache_images or ""
        super().__init__(
            index, img_size, augment=augment, hyp=hyp, rect=rect and not image_weights, batch_size=batch_size,
            stride=stride, pad=pad, cache=cache, prefix=prefix,
        )  # fmt: skip

    @property
    def img_files(self) -> list[str]:
        """The paths of the images; also called ``im_files``."""
        return self.index.paths

    im_files = img_files

    @property
    def shapes(self) -> np.ndarray:
        """The (width, height) of the originals, (n, 2)."""
        return self.index.shapes[:, ::-1]

    @property
    def labels(self) -> list[np.ndarray]:
        """The labels of each image, (n, 5): class, xywhn."""
        rows = np.concatenate((self.index.classes[:, None], self.index.boxes), 1)
        return np.split(rows, self.index.offsets[1:-1])

    def __getitem__(self, item: int) -> LegacySample:  # type: ignore[override]
        batch = collate([super().__getitem__(item)])
        return batch.images[0], batch.targets, batch.paths[0], batch.shapes[0] if batch.shapes else None

    @staticmethod
    def collate_fn(items: Sequence[LegacySample]) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...], tuple]:
        """Turn items into ``images (B, 3, h, w), targets (n, 6), paths, shapes``."""
        images, labels, paths, shapes = zip(*items, strict=True)
        for i, rows in enumerate(labels):
            rows[:, 0] = i
        return torch.stack(images), torch.cat(labels), paths, shapes


def create_dataloader(
    path: str | Path | Sequence[str | Path],
    imgsz: int | tuple[int, int],
    batch_size: int,
    stride: int,
    single_cls: bool = False,
    hyp: Mapping[str, float] | None = None,
    augment: bool = False,
    cache: bool | str = False,
    pad: float = 0.0,
    rect: bool = False,
    rank: int = -1,
    workers: int = 8,
    image_weights: bool = False,
    quad: bool = False,
    prefix: str = "",
    shuffle: bool = False,
    seed: int = 0,
    masks: MaskFormat | None = None,
) -> tuple[Loader, DetectionDataset]:
    """Make a loader and its data set. Batches unpack into ``images, targets, paths, shapes[, masks]``."""
    loader = create_loader(
        path, imgsz, batch_size, stride=stride, augment=augment, hyp=hyp, rect=rect, pad=pad,
        cache="ram" if cache is True else cache or "", workers=workers, rank=rank, image_weights=image_weights,
        quad=quad, shuffle=shuffle, seed=seed, single_cls=single_cls, masks=masks, prefix=prefix,
    )  # fmt: skip
    return loader, loader.dataset


def random_perspective(*args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """`random_perspective_of_segments` without the outlines: returns image and targets."""
    return random_perspective_of_segments(*args, **kwargs)[:2]


def random_perspective_of_segments(
    im: np.ndarray,
    targets: np.ndarray | Sequence = (),
    segments: Sequence[np.ndarray] = (),
    degrees: float = 10,
    translate: float = 0.1,
    scale: float = 0.1,
    shear: float = 10,
    perspective: float = 0.0,
    border: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """A random view of `im` (h, w, 3), with the `targets` (n, 5: class, xyxy pixels) and outlines that stay visible.

    `border` (y, x) is added on each side of the result. `segments` are the outlines of the targets, (k, 2) pixels each.
    Python's global generator makes the random choices, as in YOLOv5.
    """
    height, width = im.shape[:2]
    rows = np.asarray(targets, np.float32).reshape(-1, 5)
    polygons = [np.asarray(s, np.float32) for s in segments] if len(segments) else None
    outline = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    tile = Tile(im, np.eye(3), outline, Instances(rows[:, 0], rows[:, 1:], polygons))
    gains = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear, "perspective": perspective}
    camera = draw_camera({**gains, "fliplr": 0.0, "flipud": 0.0}, np.random.default_rng(random.getrandbits(64)))
    output = (height + 2 * border[0], width + 2 * border[1])
    image, seen = render([tile], (height, width), camera.matrix((height, width), output), output, camera.scale)
    return image, np.concatenate((seen.classes[:, None], seen.boxes), 1), list(seen.polygons or ())
