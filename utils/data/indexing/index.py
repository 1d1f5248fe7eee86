"""The index of a split: paths, sizes and labels of all its images in a few flat arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.images.headers import most_pixels
from utils.data.indexing.cache import cache_path, fingerprint, load_arrays, save_arrays
from utils.data.indexing.image_files import MIN_SIDE, list_images
from utils.data.indexing.labels import label_path, parse_labels
from utils.data.indexing.scan import ScanReport, scan
from utils.errors import UserError
from utils.logging import LOGGER

_KINDS: dict[str, tuple[Any, ...]] = {  # of the arrays: type, and shape behind the first dimension
    "path_offsets": (np.int64,), "shapes": (np.int32, 2), "offsets": (np.int64,), "classes": (np.float32,),
    "boxes": (np.float32, 4), "polygons": (np.float32, 2), "polygon_offsets": (np.int64,),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The index of n images with m objects (and k polygon points). An image with ten boxes takes well under 1 KB.

    It consists of flat arrays. A Python object per image would be copied into every forked worker page by page, because
    reading it changes its reference count. The objects of image i are the rows ``offsets[i]`` to ``offsets[i + 1]``.
    """

    path_bytes: bytes  # all paths end to end, file system encoding
    path_offsets: np.ndarray  # (n + 1,) int64
    shapes: np.ndarray  # (n, 2) int32, (height, width) in pixels as decoded
    offsets: np.ndarray  # (n + 1,) int64
    classes: np.ndarray  # (m,) float32
    boxes: np.ndarray  # (m, 4) float32 xywhn
    polygons: np.ndarray | None = None  # (k, 2) float32 normalised
    polygon_offsets: np.ndarray | None = None  # (m + 1,) int64

    @classmethod
    def from_arrays(
        cls,
        paths: Sequence[str],
        shapes: np.ndarray,
        counts: Sequence[int] | np.ndarray,
        classes: np.ndarray,
        boxes: np.ndarray,
        polygons: np.ndarray | None = None,
        polygon_counts: Sequence[int] | np.ndarray | None = None,
    ) -> ImageIndex:
        """Make an index of arrays: `counts` (n,) objects of each image, `polygon_counts` (m,) points of each object."""
        encoded = [os.fsencode(path) for path in paths]
        return cls(
            b"".join(encoded),
            _offsets([len(path) for path in encoded]),
            np.asarray(shapes, np.int32).reshape(-1, 2),
            _offsets(counts),
            np.asarray(classes, np.float32).reshape(-1),
            np.asarray(boxes, np.float32).reshape(-1, 4),
            None if polygons is None else np.asarray(polygons, np.float32).reshape(-1, 2),
            None if polygon_counts is None else _offsets(polygon_counts),
        )

    def __post_init__(self) -> None:
        n, m = len(self.shapes), len(self.classes)
        ends = [(self.path_offsets, n, len(self.path_bytes)), (self.offsets, n, m)]
        if (self.polygons is None) != (self.polygon_offsets is None):
            raise ValueError("polygons and polygon_offsets belong together")
        if self.polygons is not None and self.polygon_offsets is not None:
            ends.append((self.polygon_offsets, m, len(self.polygons)))
        if len(self.boxes) != m or any(
            len(o) != count + 1 or o[0] != 0 or o[-1] != total or (np.diff(o) < 0).any() for o, count, total in ends
        ):
            raise ValueError(f"index arrays disagree: {n} images, {m} classes, {len(self.boxes)} boxes")

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def nbytes(self) -> int:
        """The memory of everything in the index."""
        arrays = [getattr(self, f.name) for f in fields(self)]
        return sum(len(v) if isinstance(v, bytes) else v.nbytes for v in arrays if v is not None)

    def path(self, i: int) -> str:
        """The path of image i."""
        i = range(len(self))[i]  # negative and too large indices behave as in a list
        return os.fsdecode(self.path_bytes[self.path_offsets[i] : self.path_offsets[i + 1]])

    @property
    def paths(self) -> list[str]:
        """All paths; the list is made anew at each call."""
        return [self.path(i) for i in range(len(self))]

    def label_slice(self, i: int) -> slice:
        """The rows of `classes` and `boxes` that belong to image i."""
        i = range(len(self))[i]
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def polygon(self, j: int) -> np.ndarray:
        """The normalised polygon (points, 2) of object j (a row of `classes`), as a view."""
        if self.polygons is None or self.polygon_offsets is None:
            raise ValueError("the index was built without polygons")
        return self.polygons[self.polygon_offsets[j] : self.polygon_offsets[j + 1]]

    def select(self, indices: Sequence[int] | np.ndarray) -> ImageIndex:
        """The index of the images `indices` (or of those where a boolean mask is true). An image may be there twice."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else np.arange(len(self))[chosen.astype(np.int64)]
        objects, offsets = _gather(self.offsets, chosen)
        characters, path_offsets = _gather(self.path_offsets, chosen)
        polygons = polygon_offsets = None
        if self.polygons is not None and self.polygon_offsets is not None:
            points, polygon_offsets = _gather(self.polygon_offsets, objects)
            polygons = self.polygons[points]
        return ImageIndex(
            np.frombuffer(self.path_bytes, np.uint8)[characters].tobytes(),
            path_offsets,
            self.shapes[chosen],
            offsets,
            self.classes[objects],
            self.boxes[objects],
            polygons,
            polygon_offsets,
        )

    def as_single_class(self) -> ImageIndex:
        """The index with all objects in class 0."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return ImageIndex(**{**arrays, "classes": np.zeros_like(self.classes)})

    def check(self, images: Sequence[str], polygons: bool) -> None:
        """Raise `ValueError` if this cannot be an index of (some of) `images`, made with or without `polygons`."""
        for f in fields(self)[1:]:
            value, wanted = getattr(self, f.name), _KINDS[f.name]
            if value is not None and (value.dtype != wanted[0] or value.shape[1:] != wanted[1:]):
                raise ValueError(f"{f.name} is of another kind")
        coordinates = [self.boxes] if self.polygons is None else [self.boxes, self.polygons]
        if (
            polygons != (self.polygons is not None)
            or any(not ((array >= 0) & (array <= 1)).all() for array in coordinates)
            or not ((self.classes >= 0) & (self.classes == np.floor(self.classes)) & np.isfinite(self.classes)).all()
            or (self.shapes < MIN_SIDE).any()
        ):
            raise ValueError("its values are out of range")
        if self.path_bytes != b"".join(map(os.fsencode, images)) and not set(self.paths) <= set(images):
            raise ValueError("it is of other images")

    # --- statistics ---------------------------------------------------------------------------------------------------

    @property
    def image_of(self) -> np.ndarray:
        """The image (m,) int64 of each object."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def class_counts(self, nc: int) -> np.ndarray:
        """The number (nc,) int64 of objects of each class."""
        return np.bincount(self.classes.astype(np.int64), minlength=nc)[:nc]

    def class_weights(self, nc: int) -> np.ndarray:
        """Inverse class frequencies (nc,) float64 that sum to 1. A class without objects counts as if it had one."""
        weights = 1.0 / np.maximum(self.class_counts(nc), 1)
        return weights / weights.sum()

    def image_weights(self, class_weights: np.ndarray) -> np.ndarray:
        """The sum (n,) float64 of `class_weights` (nc,) over the objects of each image."""
        per_object = np.asarray(class_weights, np.float64)[self.classes.astype(np.int64)]
        return np.bincount(self.image_of, weights=per_object, minlength=len(self))


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(np.asarray(counts, np.int64)))).astype(np.int64)


def _gather(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the groups `chosen`, in that order, and the offsets of these groups in the result."""
    counts = np.diff(offsets)[chosen]
    result = _offsets(counts)
    rows = np.arange(result[-1]) + np.repeat(offsets[:-1][chosen] - result[:-1], counts)
    return rows, result


# --- building ---------------------------------------------------------------------------------------------------------


def build_index(
    paths: Sequence[str | Path],
    nc: int | None,
    *,
    names: Mapping[int, str] | None = None,
    polygons: bool = False,
    single_cls: bool = False,
    cache: bool = True,
    prefix: str = "",
    require_labels: bool = True,
) -> ImageIndex:
    """Index the images and labels of a split.

    `paths` are its folders, ``.txt`` lists or glob patterns. Classes must lie in 0..`nc`-1 (`nc` None, or `single_cls`:
    any); `single_cls` makes them all 0. The result is kept in a cache beside the labels and used again while no file
    has changed. Broken images are named and left out. Raises `UserError` for a label row that is not an object (with
    file and line), for a split without images, and, with `require_labels`, for a split without any label file.
    """
    images = list_images(paths)
    labels = [label_path(image) for image in images]
    key = fingerprint(images, labels, polygons, most_pixels())
    file = cache_path(paths, labels[0], polygons=polygons)
    if cache and (stored := _stored(file, key, images, polygons)):
        index, report = stored
    else:
        result = scan(images, labels, polygons=polygons, prefix=prefix)
        report, table = result.report, result.table
        index = ImageIndex.from_arrays([images[i] for i in result.kept], result.shapes, *table[:5])
        if cache and len(index) > report.missing:  # whoever finds no labels is about to mend that
            arrays = {f.name: value for f in fields(index) if (value := getattr(index, f.name)) is not None}
            texts = {"path_bytes": index.path_bytes, "report": report.to_json().encode()}
            save_arrays(file, key, {**arrays, **{name: np.frombuffer(text, np.uint8) for name, text in texts.items()}})
    report.log(len(index), len(index.classes), prefix)
    if not len(index):
        image, why = report.broken[0]
        raise UserError(f"{prefix}none of the {len(images)} images can be read; the first: {image} {why}")
    if require_labels:
        _check_any_labels(index, report, prefix)
    if single_cls:
        return index.as_single_class()
    if nc is not None:
        _check_classes(index, nc, names)
    return index


def _stored(file: Path, key: bytes, images: Sequence[str], polygons: bool) -> tuple[ImageIndex, ScanReport] | None:
    """The index of `images` in the cache `file`; None if it is absent, has another key, or is damaged."""
    try:
        arrays = load_arrays(file, key)
        if arrays is None:
            return None
        report = ScanReport.from_json(arrays.pop("report").tobytes().decode())
        index = ImageIndex(arrays.pop("path_bytes").tobytes(), **arrays)
        index.check(images, polygons)
    except Exception as error:  # readers of a damaged file raise all sorts
        LOGGER.info(f"{file} is damaged ({str(error) or type(error).__name__}) and is made anew")
        return None
    return index, report


def _check_any_labels(index: ImageIndex, report: ScanReport, prefix: str) -> None:
    if report.missing == len(index):
        example = index.path(0)
        raise UserError(
            f"{prefix}no labels found for {len(index)} images: {example} would have its labels in "
            f"{label_path(example)}; in the path of an image the last /images/ becomes /labels/, the suffix .txt"
        )
    count, first = report.notes.found.get("outside", (0, ""))
    if count and not len(index.classes):
        raise UserError(
            f"{prefix}all {count} objects lie outside their images (first: {first}); coordinates must be "
            "normalised to 0..1, not in pixels"
        )


def _check_classes(index: ImageIndex, nc: int, names: Mapping[int, str] | None) -> None:
    wrong = index.classes >= nc
    if wrong.any():
        label = label_path(index.path(int(index.image_of[wrong.argmax()])))
        known = f"; names: {', '.join(names.values())}" if names and len(names) <= 10 else ""
        try:
            parse_labels([Path(label).read_bytes()], [label], nc=nc)  # reads the file once more for the line
        except UserError as error:
            raise UserError(f"{error}{known}") from None
        raise UserError(f"{label} changed while it was read; start again")
