"""A sample and a batch of samples: what a data set makes and a network receives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.data.instances import Instances
from utils.data.rasterize import MaskFormat
from utils.ops.geometry import scaling, translation


class LetterboxInfo(NamedTuple):
    """How the original image lies in the network's input: original × ratio + pad. `scale_boxes` takes it back."""

    shape: tuple[int, int]  # (height, width) of the original
    ratio_pad: tuple[tuple[float, float], tuple[float, float]]  # (ratio_h, ratio_w), (pad_w, pad_h)


class Sample(NamedTuple):
    """One image ready for the network, with its objects in that image's pixels."""

    image: np.ndarray  # (3, height, width) uint8 RGB
    instances: Instances
    path: str
    shapes: LetterboxInfo | None  # None for augmented samples


@dataclass(eq=False)
class Batch:
    """Images and targets. It unpacks into ``images, targets, paths, shapes``, and ``masks`` if there are any."""

    images: torch.Tensor  # (B, 3, H, W) uint8 RGB
    targets: torch.Tensor  # (n, 6) float32: image in the batch, class, xywhn; image after image
    paths: Sequence[str]
    shapes: Sequence[LetterboxInfo | None] | None
    masks: torch.Tensor | None = None  # (B, h, w) 1 + rank of the object among its image's rows, or (n, h, w) 0 and 1
    polygons: list[np.ndarray] | None = None  # n × (k, 2) float32 pixels of `images`; only where nothing is augmented

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

    def outlines(self, image: int) -> list[np.ndarray]:
        """The polygons (k, 2) of the objects of one image, in pixels of `images`. The data must have polygons."""
        assert self.polygons is not None, "a loader with polygons=True is needed"
        rows = (self.targets[:, 0] == image).nonzero()[:, 0]
        return [self.polygons[i] for i in rows.tolist()]

    def mask_stacks(self, overlap: bool) -> list[torch.Tensor]:
        """For each image the masks (n_i, h, w) uint8 of its objects, 0 and 1, in the order of their targets.

        `overlap` says which layout `masks` has: index maps, which hold only what is seen of each object, or one mask
        per object. Raises `ValueError` for a batch without masks.
        """
        if self.masks is None:
            raise ValueError("the batch has no masks; the loader needs a MaskFormat")
        counts = torch.bincount(self.targets[:, 0].long(), minlength=len(self)).tolist()
        if not overlap:
            return list(self.masks.split(counts))
        return [
            (index == torch.arange(1, n + 1, device=index.device)[:, None, None]).to(torch.uint8)
            for index, n in zip(self.masks, counts, strict=True)
        ]

    def _each(self, function: Any) -> Batch:
        masks = None if self.masks is None else function(self.masks)
        return replace(self, images=function(self.images), targets=function(self.targets), masks=masks)


def assemble(images: torch.Tensor, samples: Sequence[Sample], masks: MaskFormat | None = None) -> Batch:
    """The batch of `samples` whose pixels are already in `images` (B, 3, H, W); `masks` are drawn of their polygons."""
    size: tuple[int, int] = tuple(images.shape[2:])  # type: ignore[assignment]
    found = [sample.instances for sample in samples]
    classes = np.concatenate([each.classes for each in found])
    boxes = np.concatenate([each.boxes for each in found])
    targets = np.empty((len(classes), 6), np.float32)
    targets[:, 0] = np.repeat(np.arange(len(found)), [len(each) for each in found])
    targets[:, 1] = classes
    targets[:, 2:] = Instances(classes, boxes).to_xywhn(size)
    outlines = [each.polygons or [] for each in found]
    unaugmented = all(s.instances.polygons is not None and s.shapes is not None for s in samples)
    return Batch(
        images,
        torch.from_numpy(targets),
        tuple(sample.path for sample in samples),
        tuple(sample.shapes for sample in samples),
        None if masks is None else torch.from_numpy(masks.draw(outlines, size)),
        [points for image in outlines for points in image] if unaugmented else None,
    )


def collate(samples: Sequence[Sample], masks: MaskFormat | None = None) -> Batch:
    """The batch of `samples`, which must have one size; their pixels are copied."""
    sizes = {sample.image.shape[1:] for sample in samples}
    if len(sizes) != 1:
        raise ValueError(f"samples of different sizes cannot make a batch: {sorted(sizes)}")
    images = torch.empty((len(samples), 3, *sizes.pop()), dtype=torch.uint8)
    for target, sample in zip(images.numpy(), samples, strict=True):
        target[...] = sample.image
    return assemble(images, samples, masks)


def quad(samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """Make one sample of twice the side out of four: the first of them enlarged, or all four as a 2×2 square.

    The batch shrinks to a quarter and has as many pixels as before. (YOLOv5's ``--quad`` gives some of the benefit of
    1280 pixels at the price of 640.) A last group of fewer than four is represented by its first sample, enlarged.
    """
    result = []
    for start in range(0, len(samples), 4):
        group = samples[start : start + 4]
        first = group[0]
        _, height, width = first.image.shape
        if len(group) < 4 or rng.random() < 0.5:
            pixels = torch.from_numpy(first.image)[None].float()
            large = torch.nn.functional.interpolate(pixels, scale_factor=2.0, mode="bilinear", align_corners=False)
            result.append(first._replace(image=large[0].byte().numpy(), instances=first.instances.warp(scaling(2, 2))))
            continue
        image = np.empty((3, 2 * height, 2 * width), np.uint8)
        parts = []
        for j, sample in enumerate(group):  # the second below the first, the third and the fourth to the right of these
            x, y = j // 2 * width, j % 2 * height
            image[:, y : y + height, x : x + width] = sample.image
            parts.append(sample.instances.warp(translation(x, y)))
        result.append(first._replace(image=image, instances=Instances.concatenate(parts)))
    return result
