"""The data set of a split: it makes samples of the images and labels of an index, augmented for training or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from utils.cli import image_size
from utils.data.augment.pipeline import augmented_image
from utils.data.augment.tiles import SourceImage
from utils.data.batch import Batch, LetterboxInfo, Sample, assemble, collate, quad
from utils.data.images.cache import RamCache, cached
from utils.data.images.reader import POOL_BYTES, ImageFiles, Images, RecentImages
from utils.data.indexing.index import ImageIndex
from utils.data.instances import Instances
from utils.data.rasterize import MaskFormat
from utils.data.sampling import MOSAIC_INDICES, SampleRequest
from utils.hyp import load_hyp
from utils.ops.boxes import xywhn2xyxy
from utils.ops.letterbox import letterbox

_DIRECT = 2**32  # key of samples that are asked for by number; no epoch has such a number


class DetectionDataset(Dataset):
    """A map-style data set of the samples of `index`.

    Args:
        index: images and labels. With `rect` it is sorted by aspect ratio, and `self.index` is the sorted one.
        imgsz: (height, width) of the network's input, or one number for both.
        augment: make random views (see `augmented_image`) instead of letterboxed images.
        hyp: gains and probabilities of the augmentations (None: the defaults).
        rect: put images of similar shape next to each other, and give each batch the smallest size in multiples of
            `stride` that holds its images; `pad` strides are added before rounding up. There are no mosaics then.
        batch_size: for `rect`: a sample that is asked for by number has the size of its group of so many images.
        stride: for `rect`: the largest stride of the network.
        pad: for `rect`: YOLOv5 validates with 0.5 and trains with 0.
        cache: "ram", "disk" or "".
        shared: all processes that train together make this data set at once; those on one machine share its cache.
        seed: seeds all random choices.
        masks: the layout of the masks in the batches; None for no masks. It needs an index with polygons.
        pool_bytes: memory of each worker for recently decoded images.
        prefix: is put in front of messages.

    `indices` (n,) are the images of an epoch. If others are assigned (drawn by weight), the next epoch has those.
    """

    def __init__(
        self,
        index: ImageIndex,
        imgsz: int | tuple[int, int],
        *,
        augment: bool = False,
        hyp: Mapping[str, float] | None = None,
        rect: bool = False,
        batch_size: int = 16,
        stride: int = 32,
        pad: float = 0.0,
        cache: str = "",
        shared: bool = False,
        seed: int = 0,
        masks: MaskFormat | None = None,
        pool_bytes: int = POOL_BYTES,
        prefix: str = "",
    ) -> None:
        self.imgsz = image_size(imgsz)
        self.batch_shapes: np.ndarray | None = None  # (batches, 2) (height, width), with `rect`
        self._sizes = np.array([self.imgsz])  # (n, 2) with `rect`: the size that a batch of each image alone would have
        if rect:
            index = index.select(np.argsort(index.shapes[:, 0] / index.shapes[:, 1], kind="stable"))
            self.batch_shapes = rectangles(index.shapes, self.imgsz, batch_size, stride, pad)
            self._sizes = rectangles(index.shapes, self.imgsz, 1, stride, pad)
        if masks is not None:
            if index.polygons is None:
                raise ValueError("masks need an index that was built with polygons")
            for size in np.unique(self._sizes, axis=0).tolist():
                masks.check_size(size)
        self.masks = masks
        self.index = index
        self.augment = augment
        self.hyp = load_hyp(hyp)
        self.batch_size = batch_size
        self.seed = seed % 2**32
        self.indices = np.arange(len(index))
        self._xyxyn = xywhn2xyxy(index.boxes, w=1, h=1)
        self._files = ImageFiles(index, self.imgsz, training=augment)
        self._images: Images = cached(self._files, cache, prefix, shared)
        self._direct = 0
        if augment and not isinstance(self._images, RamCache):
            self._images = RecentImages(self._images, pool_bytes)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def mosaic(self) -> bool:
        """Whether a sample may show several images."""
        return self.augment and self.batch_shapes is None and self.hyp["mosaic"] > 0

    @property
    def largest_size(self) -> tuple[int, int]:
        """The (height, width) that no sample exceeds."""
        height, width = self._sizes.max(0).tolist()
        return height, width

    @property
    def images_at_hand(self) -> int:
        """How many images a worker surely has at hand without reading them again. It is an estimate, as sizes vary."""
        if isinstance(self._images, RecentImages):
            total = int(self._files.stored.prod(1).sum()) * 3
            if total > self._images.max_bytes:
                return max(int(0.9 * self._images.max_bytes / total * len(self)), 1)
        return len(self)

    def epoch_indices(self) -> np.ndarray:
        """The images of the next epoch."""
        return np.asarray(self.indices)

    def __getitem__(self, item: int | SampleRequest) -> Sample:
        """The sample of a request, or that of image number `item` with mosaics of the whole data set."""
        return self.sample(item if isinstance(item, SampleRequest) else self._request(range(len(self))[item]))

    def batch_shape(self, requests: Sequence[SampleRequest]) -> tuple[int, int, int, int]:
        """(B, 3, H, W) of the batch that `requests` ask for: with `rect`, the smallest that holds these images."""
        sizes = self._sizes if self.batch_shapes is None else self._sizes[[request.image for request in requests]]
        height, width = sizes.max(0).tolist()
        return len(requests), 3, height, width

    def batch(self, requests: Sequence[SampleRequest], quads: bool = False, out: torch.Tensor | None = None) -> Batch:
        """The batch that `requests` ask for. Its pixels are written once, into `out` (of `batch_shape`) if given."""
        images = torch.empty(self.batch_shape(requests), dtype=torch.uint8) if out is None else out
        samples = [self.sample(each, out) for each, out in zip(requests, images.numpy(), strict=True)]
        if quads:
            return collate(quad(samples, self._rng(requests[0].key)), self.masks)
        return assemble(images, samples, self.masks)

    def sample(self, request: SampleRequest, out: np.ndarray | None = None) -> Sample:
        """The sample that `request` asks for. If `out` (3, height, width) is given, its pixels are written there."""
        i = request.image
        if out is None:
            out = np.empty((3, *self._size(i)), np.uint8)
        size: tuple[int, int] = out.shape[1:]  # type: ignore[assignment]
        info = None
        if self.augment:
            if isinstance(self._images, RecentImages):
                self._images.refresh(i)
            rng = self._rng(request.key)
            others = request.mosaic_indices
            image, instances = augmented_image(i, others, self.source_image, size, self.hyp, rng, self.mosaic)
        else:
            image, instances, info = self._letterboxed(i, size)
        if image.shape != (*size, 3):  # OpenCV would write to new memory and leave `out` as it was
            raise ValueError(f"{self.index.path(i)}: a sample {image.shape} does not fit into {out.shape}")
        cv2.split(image, [out[2], out[1], out[0]])  # BGR, pixel by pixel → RGB, plane by plane
        return Sample(out, instances, self.index.path(i), info)

    def source_image(self, i: int) -> SourceImage:
        """Image i as it is stored, with its objects."""
        height, width = self._files.fitted[i].tolist()
        return SourceImage(self._images.read(i), (height, width), self._instances(i, (height, width)))

    def _letterboxed(self, i: int, size: tuple[int, int]) -> tuple[np.ndarray, Instances, LetterboxInfo]:
        """A validation sample as YOLOv5 makes it: resized to fit `imgsz`, then padded to `size` without enlarging."""
        stored = self._images.read(i)
        image, ratio, pad = letterbox(stored, size, auto=False, scaleup=False)
        height, width = (int(side) for side in self.index.shapes[i])
        scale = stored.shape[0] / height * ratio[1], stored.shape[1] / width * ratio[0]
        inner = stored.shape[0] * ratio[1], stored.shape[1] * ratio[0]
        instances = self._instances(i, inner)
        shift = np.array((*pad, *pad), np.float32)
        polygons = instances.polygons and [points + shift[:2] for points in instances.polygons]
        instances = Instances(instances.classes, instances.boxes + shift, polygons)
        return image, instances, LetterboxInfo((height, width), (scale, pad))

    def _instances(self, i: int, size: tuple[float, float]) -> Instances:
        rows = self.index.label_slice(i)
        polygons = None
        if self.index.polygons is not None:
            polygons = [self.index.polygon(j) for j in range(rows.start, rows.stop)]
        return Instances.from_normalized(self.index.classes[rows], self._xyxyn[rows], polygons, size)

    def _size(self, i: int) -> tuple[int, int]:
        """The (height, width) of the sample of image i where no batch decides it."""
        if self.batch_shapes is None:
            return self.imgsz
        height, width = self.batch_shapes[i // self.batch_size].tolist()
        return height, width

    def _rng(self, key: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))

    def _request(self, i: int) -> SampleRequest:
        worker = get_worker_info()
        key = (_DIRECT, worker.seed if worker else 0, self._direct)
        self._direct += 1
        if not self.mosaic:
            return SampleRequest(i, key)
        drawn = self._rng((*key, 1)).integers(0, len(self.indices), MOSAIC_INDICES)
        return SampleRequest(i, key, tuple(self.indices[drawn].tolist()))


def rectangles(
    shapes: np.ndarray, imgsz: tuple[int, int], batch_size: int, stride: int, pad: float = 0.0
) -> np.ndarray:
    """The smallest (height, width) of each batch, (batches, 2) int, in multiples of `stride`, that holds its images.

    `shapes` (n, 2) are the (height, width) of the originals in the order of the batches. The images are scaled to fit
    `imgsz`. `pad` strides are added before rounding up. The figures are YOLOv5's, which has square `imgsz` only.
    """
    aspect = shapes[:, 0] / shapes[:, 1]
    square = imgsz[0] / imgsz[1]
    # the share of the full input's sides that each image takes; the longer side (by the input's aspect) has 1
    shares = np.stack((np.minimum(aspect / square, 1.0), np.minimum(square / aspect, 1.0)), 1)
    largest = np.maximum.reduceat(shares, np.arange(0, len(shapes), batch_size))
    return np.ceil(largest * imgsz / stride + pad).astype(np.int64) * stride
