"""Batches as one picture: images in a grid, with masks, boxes and names of their labels or of their detections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.files import atomic_write
from utils.plots.annotator import Annotator, colors

if TYPE_CHECKING:
    import torch

    from utils.ops.masks import BoxMask

MOST_IMAGES = 16  # in one picture
_LARGEST_SIDE = 1920  # pixels of the finished picture
_GAP = 2  # white pixels between tiles
_DARK = (40, 40, 40)


def plot_images(
    images: torch.Tensor | np.ndarray,
    targets: torch.Tensor | np.ndarray | Sequence[Any],
    paths: Sequence[str] | None = None,
    fname: str | Path = "images.jpg",
    names: Mapping[int, str] | Sequence[str] | None = None,
    max_subplots: int = MOST_IMAGES,
    conf_thres: float = 0.25,
    masks: Sequence[Any] | None = None,
) -> Path:
    """Draw a batch with its boxes into `fname` and return that path.

    `images (B, 3, H, W)` RGB, uint8 or 0..1. `targets` is either a table `(n, 6)` of image index, class, xywh
    (normalised, or pixels where a value is above 2) with an optional seventh column of confidences, or a list of one
    `(n, 6)` array of detections (xyxy pixels of `images`, confidence, class) per image. Boxes below `conf_thres` are
    left out. At most `max_subplots` images are shown, in a square grid of at most 1920 pixels a side. `masks` holds for
    each image those of its rows, `(n_i, h, w)` 0 and 1 over the whole image at any resolution; boxes lie above them.
    """
    pixels = _as_uint8(images, max_subplots)
    count, height, width = pixels.shape[:3]
    columns = math.ceil(math.sqrt(max(count, 1)))
    rows = max(1, math.ceil(count / columns))
    scale = min(1.0, _LARGEST_SIDE / (columns * max(height, width)))
    tile_h, tile_w = max(1, round(height * scale)), max(1, round(width * scale))

    canvas = np.full((rows * tile_h, columns * tile_w, 3), 255, dtype=np.uint8)
    for i, boxes in enumerate(_per_image(targets, count, height, width)):
        stack = () if masks is None else _numpy(masks[i])
        tile = _draw_tile(pixels[i], (tile_h, tile_w), boxes, names, conf_thres, stack)
        if paths is not None:
            _write_title(tile, Path(paths[i]).name)
        y, x = divmod(i, columns)
        canvas[y * tile_h : (y + 1) * tile_h - _GAP, x * tile_w : (x + 1) * tile_w - _GAP] = tile[:-_GAP, :-_GAP]
    return write_mosaic(fname, canvas)


def write_mosaic(path: str | Path, bgr: np.ndarray) -> Path:
    """Encode `bgr (H, W, 3)` by the suffix of `path` and write it in one step; any character is fine in the path."""
    import cv2

    path = Path(path)
    done, data = cv2.imencode(path.suffix or ".jpg", bgr)
    assert done, f"OpenCV cannot encode {path.suffix}"
    with atomic_write(path) as file:
        file.write(data.tobytes())
    return path


def _as_uint8(images: Any, limit: int) -> np.ndarray:
    """The first `limit` images as contiguous (b, H, W, 3) uint8 BGR, OpenCV's order."""
    array = _numpy(images[:limit])
    if array.dtype != np.uint8:
        array = (array.astype(np.float32) * 255).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)[..., ::-1])


def _numpy(values: Any) -> np.ndarray:
    """Convert a tensor of any device and type, or an array, to an array."""
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _per_image(targets: Any, count: int, height: int, width: int) -> list[np.ndarray]:
    """For each image its boxes as (n, 6) float32 rows xyxy (pixels), confidence (NaN for a label), class."""
    if isinstance(targets, Sequence):  # detections
        return [_numpy(t)[:, :6].astype(np.float32).reshape(-1, 6) for t in targets[:count]]
    table = _numpy(targets).astype(np.float32)
    if table.size == 0:
        return [np.zeros((0, 6), np.float32)] * count
    xywh = table[:, 2:6]
    if xywh.max() <= 2:  # normalised; a label may overhang its image a little
        xywh = xywh * np.array([width, height, width, height], np.float32)
    confidence = table[:, 6:7] if table.shape[1] > 6 else np.full((len(table), 1), np.nan, np.float32)
    half = xywh[:, 2:] / 2
    rows = np.concatenate([xywh[:, :2] - half, xywh[:, :2] + half, confidence, table[:, 1:2]], 1)
    return [rows[table[:, 0] == i] for i in range(count)]


def _draw_tile(
    image: np.ndarray,
    size: tuple[int, int],
    boxes: np.ndarray,
    names: Mapping[int, str] | Sequence[str] | None,
    conf_thres: float,
    masks: Sequence[np.ndarray] | np.ndarray,
) -> np.ndarray:
    """`image` at `size` (height, width), with its masks and boxes; the surest is drawn last, so that it lies on top."""
    import cv2

    scale = np.array([size[1] / image.shape[1], size[0] / image.shape[0]] * 2, np.float32)
    if image.shape[:2] != size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    known = names if isinstance(names, Mapping) else dict(enumerate(names or ()))
    example = "".join(str(name) for name in known.values()) or "abc"
    annotator = Annotator(image, line_width=2, example=example)
    order = [i for i in np.argsort(boxes[:, 4], kind="stable") if not boxes[i, 4] < conf_thres]  # a label's is NaN
    if len(masks):
        seen = [_box_mask(masks[i], size) for i in order]
        annotator.masks(seen, [colors(int(boxes[i, 5]), True) for i in order])
    for *xyxy, confidence, class_id in boxes[order]:
        name = str(known.get(int(class_id), int(class_id)))
        label = name if np.isnan(confidence) else f"{name} {confidence:.2f}"
        annotator.box_label((np.array(xyxy) * scale).tolist(), label, color=colors(int(class_id), True))
    return annotator.result()


def _box_mask(mask: np.ndarray, size: tuple[int, int]) -> BoxMask:
    """`mask` (h, w) over a whole image as the pixels of that image at `size` (height, width)."""
    import cv2

    from utils.ops.masks import BoxMask

    pixels = cv2.resize(np.asarray(mask, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    left, top, width, height = cv2.boundingRect(pixels.astype(np.uint8))
    return BoxMask(left, top, pixels[top : top + height, left : left + width])


def _write_title(tile: np.ndarray, title: str) -> None:
    """The file's name in the lower left corner of `tile`, white on dark."""
    annotator = Annotator(tile, line_width=1, font_size=12, example=title)
    annotator.text((0, tile.shape[0] - _GAP), title, txt_color=_DARK, anchor="bottom", box_style=True)
