"""Instance masks: computed from prototypes and coefficients, compared by IoU, and turned into polygons.

A mask is a linear combination of the prototypes (nm, mh, mw) of an image, with the coefficients of a detection as
weights. It is positive where the object is (YOLACT, Bolya et al. 2019). `process_mask` and its relatives return a stack
of masks of the whole image, as YOLOv5 does. `box_masks` returns each mask within its box only, in pixels of the
original image, so that a thousand objects in an image of 8 megapixels take megabytes and not gigabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from utils.ops.boxes import known_placement

CHUNK_BYTES = 64 << 20  # of float32 pixels that `process_mask` and `process_mask_native` enlarge at a time

RatioPad = tuple[tuple[float, float], tuple[float, float]]  # (ratio_h, ratio_w), (pad_w, pad_h)


class BoxMask(NamedTuple):
    """A mask that is stored within a box. Outside the box it is empty.

    Attributes:
        left: column of the box in its image.
        top: row of the box in its image.
        pixels: (h, w) bool; h or w may be 0.
    """

    left: int
    top: int
    pixels: np.ndarray


def crop_mask(masks: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """`masks` (n, h, w), set to 0 where the column or row of a pixel is outside its box (n, 4), xyxy pixels."""
    return masks * _inside(boxes, (masks.shape[1], masks.shape[2]))


def process_mask(
    protos: torch.Tensor,
    coefficients: torch.Tensor,
    boxes: torch.Tensor,
    shape: tuple[int, int],
    upsample: bool = False,
) -> torch.Tensor:
    """The masks of one image, cropped to their boxes, at the resolution of the prototypes.

    Args:
        protos: (nm, mh, mw) prototypes.
        coefficients: (n, nm).
        boxes: (n, 4) xyxy pixels of the network input.
        shape: (height, width) of the network input.
        upsample: enlarge the cropped probabilities to `shape` before the threshold.

    Returns:
        (n, mh, mw) bool, or (n, *shape) with `upsample`: true where the probability is above one half.
    """
    mh, mw = protos.shape[1:]
    scale = boxes.new_tensor((mw / shape[1], mh / shape[0])).repeat(2)
    masks = crop_mask(_probabilities(protos, coefficients), boxes[:, :4] * scale)
    return _enlarged(masks, shape) if upsample else masks > 0.5


def process_mask_native(
    protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Masks (n, *shape) bool in the original image of `shape` (height, width), for a centred letterbox.

    The border of the letterbox is cut off in whole cells of the prototypes; the rest is enlarged and cropped to `boxes`
    (n, 4), xyxy pixels of the original. This is YOLOv5's arithmetic; `box_masks` also takes fractions of a cell.
    """
    masks = _probabilities(protos, coefficients)
    mh, mw = masks.shape[1:]
    gain = min(mh / shape[0], mw / shape[1])
    border_x, border_y = (mw - shape[1] * gain) / 2, (mh - shape[0] * gain) / 2
    masks = masks[:, int(border_y) : int(mh - border_y), int(border_x) : int(mw - border_x)]
    return _enlarged(masks, shape) & _inside(boxes, shape)


def mask_iou(mask1: torch.Tensor, mask2: torch.Tensor) -> torch.Tensor:
    """(m, n) float32 IoU of two stacks of 0/1 masks, (m, h, w) and (n, h, w) or already flat; 0 for empty masks."""
    a, b = mask1.flatten(1).float(), mask2.flatten(1).float()
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1) - both
    return both / either.clamp(min=1)


def box_masks(
    protos: torch.Tensor,
    coefficients: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    input_shape: tuple[int, int],
    ratio_pad: RatioPad | None = None,
    retina: bool = False,
) -> list[BoxMask]:
    """The masks of one image, each within its box, in pixels of the original image.

    The centre of each pixel of the original is mapped through the letterbox to the prototypes, where the mask is
    interpolated (bilinear, before the threshold). A pixel belongs to a box if its centre does.

    Args:
        protos: (nm, mh, mw) prototypes of the network input.
        coefficients: (n, nm).
        boxes: (n, 4) xyxy pixels of the original.
        size: (height, width) of the original.
        input_shape: (height, width) of the network input.
        ratio_pad: the loader's ``((ratio_h, ratio_w), (pad_w, pad_h))``; None for a centred letterbox.
        retina: interpolate at the centre of each pixel of the original. Otherwise at the centre of the pixel of the
            input that contains it; then the mask has the resolution of the input, however large the original is.

    Returns:
        n masks, cut to the image.
    """
    prototypes, weights = protos.float().cpu().numpy(), coefficients.float().cpu().numpy()
    (ratio_w, ratio_h), (pad_w, pad_h) = known_placement(input_shape, size, ratio_pad)

    def along(start: float, stop: float, axis: int) -> tuple[int, np.ndarray]:
        """The first pixel of the box, and the positions of all its pixels in cells of the prototypes."""
        ratio, pad = ((ratio_h, pad_h), (ratio_w, pad_w))[axis]
        first, last = (int(np.clip(np.ceil(edge - 0.5), 0, size[axis])) for edge in (start, stop))
        at = (np.arange(first, last) + 0.5) * ratio + pad
        if not retina:
            at = np.floor(at) + 0.5
        cells = prototypes.shape[1 + axis]
        return first, np.clip(at * cells / input_shape[axis] - 0.5, 0, cells - 1)

    masks = []
    for (x1, y1, x2, y2), row in zip(boxes[:, :4].tolist(), weights, strict=True):
        (left, columns), (top, rows) = along(x1, x2, 1), along(y1, y2, 0)
        pixels = np.zeros((len(rows), len(columns)), bool)
        if pixels.size:
            pixels = _sampled(prototypes, row, rows, columns)
        masks.append(BoxMask(left, top, pixels))
    return masks


def paste_mask(mask: BoxMask, size: tuple[int, int]) -> np.ndarray:
    """The mask as (height, width) bool over its whole image of `size`."""
    image = np.zeros(size, bool)
    height, width = mask.pixels.shape
    image[mask.top : mask.top + height, mask.left : mask.left + width] = mask.pixels
    return image


def box_mask_iou(labels: Sequence[BoxMask], detections: Sequence[BoxMask]) -> np.ndarray:
    """(m, n) float32 IoU of masks of one image; 0 for empty masks. Pixels are compared only where two boxes overlap."""
    areas = [int(np.count_nonzero(detection.pixels)) for detection in detections]
    iou = np.zeros((len(labels), len(detections)), np.float32)
    for i, label in enumerate(labels):
        area = int(np.count_nonzero(label.pixels))
        for j, detection in enumerate(detections):
            if both := _common_pixels(label, detection):
                iou[i, j] = both / (area + areas[j] - both)
    return iou


def _common_pixels(a: BoxMask, b: BoxMask) -> int:
    y0, x0 = max(a.top, b.top), max(a.left, b.left)
    y1 = min(a.top + a.pixels.shape[0], b.top + b.pixels.shape[0])
    x1 = min(a.left + a.pixels.shape[1], b.left + b.pixels.shape[1])
    if y0 >= y1 or x0 >= x1:
        return 0
    parts = [p.pixels[y0 - p.top : y1 - p.top, x0 - p.left : x1 - p.left] for p in (a, b)]
    return int(np.count_nonzero(parts[0] & parts[1]))


def mask_to_polygon(mask: BoxMask) -> np.ndarray | None:
    """The outline (k, 2) float32 of a mask: x and y along the edges of the pixels of its image; None for an empty mask.

    All parts of the mask, and its holes, make one closed polygon: from the first point a line leads to each further
    part, the outline goes round that part, and back. These lines enclose nothing. Filled by the even-odd rule, the
    polygon gives the pixels of the mask again.
    """
    import cv2

    if not mask.pixels.any():
        return None
    # OpenCV's outline runs through the centres of pixels. At twice the size these are 2x and 2x + 1 for pixel x; they
    # stand for its left edge x and its right edge x + 1. The outline of a hole is treated in the same way.
    doubled = mask.pixels.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    found, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = [_corners((contour.reshape(-1, 2) + 1) // 2) for contour in found]
    start = parts[0][:1]
    points = [parts[0]] + [piece for part in parts[1:] for piece in (start, part, part[:1])]
    return np.add(np.concatenate(points), (mask.left, mask.top), dtype=np.float32)


def _inside(boxes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(n, h, w) bool: x1 ≤ column < x2 and y1 ≤ row < y2 for xyxy `boxes` (n, 4) in an image of `shape` (h, w)."""
    x1, y1, x2, y2 = boxes[:, :4, None].float().unbind(1)  # (n, 1) each
    row, column = (torch.arange(n, device=boxes.device) for n in shape)
    return ((row >= y1) & (row < y2))[:, :, None] & ((column >= x1) & (column < x2))[:, None]


def _probabilities(protos: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Probabilities (n, mh, mw) float32 of the masks."""
    return (coefficients.float() @ protos.float().flatten(1)).sigmoid().view(-1, *protos.shape[1:])


def _enlarged(masks: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(n, *shape) bool: true where `masks` (n, h, w), interpolated to `shape`, are above one half. A few at a time."""
    result = torch.empty((len(masks), *shape), dtype=torch.bool, device=masks.device)
    few = max(1, CHUNK_BYTES // (4 * shape[0] * shape[1]))
    for i in range(0, len(masks), few):
        large = torch.nn.functional.interpolate(masks[None, i : i + few], shape, mode="bilinear", align_corners=False)
        torch.gt(large[0], 0.5, out=result[i : i + few])
    return result


def _sampled(prototypes: np.ndarray, weights: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(len(rows), len(columns)) bool: the mask at ascending positions in cells, computed as two products of matrices.

    Equal positions are computed once, as neighbouring pixels of a large image share a pixel of the network input.
    """
    (rows, row_of), (columns, column_of) = (np.unique(at, return_inverse=True) for at in (rows, columns))
    (y0, y1), (x0, x1) = ((int(at[0]), int(np.ceil(at[-1])) + 1) for at in (rows, columns))
    cells = np.tensordot(weights, prototypes[:, y0:y1, x0:x1], 1)
    sampled = _bilinear(rows - y0, y1 - y0) @ cells @ _bilinear(columns - x0, x1 - x0).T > 0
    return sampled[row_of][:, column_of]


def _bilinear(at: np.ndarray, cells: int) -> np.ndarray:
    """(n, cells) float32 weights that interpolate `cells` values linearly at n positions in 0..cells − 1."""
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))).astype(np.float32)


def _corners(points: np.ndarray) -> np.ndarray:
    """The points where a closed outline (k, 2) turns. Its steps go along the axes; some of them have length 0."""
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    return points[(before * after).sum(1) <= 0]
