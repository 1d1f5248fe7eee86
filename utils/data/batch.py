"""What travels from the data set to the network: one sample, and a batch of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.data.instances import Instances


class Placement(NamedTuple):
    """Where the original image lies in the network's input: original × `ratio` + `pad`, for `scale_boxes`."""

    shape: tuple[int, int]  # (height, width) of the original
    ratio_pad: tuple[tuple[float, float], tuple[float, float]]  # (ratio_h, ratio_w), (pad_w, pad_h)


class Sample(NamedTuple):
    """One image ready for the network, with its objects in that image's pixels."""

    image: np.ndarray  # (3, height, width) uint8 RGB
    instances: Instances
    path: str
    shapes: Placement | None  # None for augmented samples


@dataclass(eq=False)
class Batch:
    """Images and targets; iterates as ``images, targets, paths, shapes`` (and ``masks`` if there are any)."""

    images: torch.Tensor  # (B, 3, H, W) uint8 RGB
    targets: torch.Tensor  # (n, 6) float32: image in the batch, class, xywhn
    paths: Sequence[str]
    shapes: Sequence[Placement | None] | None
    masks: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Any]:
        yield from (self.images, self.targets, self.paths, self.shapes)
        if self.masks is not None:
            yield self.masks

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch with its tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (the data loader calls this for CUDA)."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, function: Any) -> Batch:
        masks = None if self.masks is None else function(self.masks)
        return replace(self, images=function(self.images), targets=function(self.targets), masks=masks)


def assemble(images: torch.Tensor, samples: Sequence[Sample]) -> Batch:
    """The batch of `samples`, whose pixels are already in `images` (B, 3, H, W)."""
    rows = []
    for i, sample in enumerate(samples):
        row = np.empty((len(sample.instances), 6), np.float32)
        row[:, 0] = i
        row[:, 1] = sample.instances.classes
        row[:, 2:] = sample.instances.to_xywhn(sample.image.shape[1:])  # type: ignore[arg-type]
        rows.append(row)
    targets = torch.from_numpy(np.concatenate(rows))
    return Batch(images, targets, tuple(s.path for s in samples), tuple(s.shapes for s in samples))


def collate(samples: Sequence[Sample]) -> Batch:
    """The batch of loose `samples` of one size."""
    sizes = {sample.image.shape[1:] for sample in samples}
    if len(sizes) != 1:
        raise ValueError(f"samples of different sizes cannot make a batch: {sorted(sizes)}")
    images = torch.empty((len(samples), 3, *sizes.pop()), dtype=torch.uint8)
    for target, sample in zip(images.numpy(), samples, strict=True):
        target[...] = sample.image
    return assemble(images, samples)


def quad(batch: Batch, rng: np.random.Generator) -> Batch:
    """Four images into one of twice the side: either the first of them enlarged, or all four as a 2×2 square.

    The batch shrinks to a quarter while its pixels stay as many (YOLOv5's ``--quad``: some of the use of 1280 pixels at
    the price of 640). A last group of fewer than four is represented by its first image, enlarged.
    """
    count, _, height, width = batch.images.shape
    groups = range(0, count, 4)
    images = torch.empty((len(groups), 3, 2 * height, 2 * width), dtype=batch.images.dtype)
    targets = []
    for i, first in enumerate(groups):
        if first + 4 > count or rng.random() < 0.5:
            images[i] = torch.nn.functional.interpolate(
                batch.images[first : first + 1].float(), scale_factor=2.0, mode="bilinear", align_corners=False
            )[0].to(images.dtype)
            rows = batch.targets[batch.targets[:, 0] == first].clone()
            rows[:, 0] = i
            targets.append(rows)
            continue
        for j in range(4):  # below the first the second, to their right the third and the fourth
            x, y = j // 2, j % 2
            images[i, :, y * height : (y + 1) * height, x * width : (x + 1) * width] = batch.images[first + j]
            rows = batch.targets[batch.targets[:, 0] == first + j]
            rows = rows * torch.tensor([0, 1, 0.5, 0.5, 0.5, 0.5])
            targets.append(rows + torch.tensor([i, 0, x / 2, y / 2, 0, 0]))
    return Batch(images, torch.cat(targets), batch.paths[::4], batch.shapes and batch.shapes[::4])
