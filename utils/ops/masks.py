"""Masks: from prototypes and coefficients to pixels, their IoU, and their outlines.

A mask is a linear combination of an image's prototypes (nm, mh, mw), its coefficients the weights, and positive where
the object is (YOLACT, Bolya et al. 2019). `process_mask` and its kin give a stack of whole pictures, as YOLOv5 does.
`mask_patches` gives each mask within its box only, in pixels of the original picture: a thousand objects in a picture
of 8 megapixels are then megabytes and not gigabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from utils.ops.boxes import known_placement

CHUNK_BYTES = 64 << 20  # of float32 pixels that `process_mask` and `process_mask_native` enlarge at a time

ImagePlacement = tuple[tuple[float, float], tuple[float, float]]


class MaskPatch(NamedTuple):
    """A mask within its box; outside it is empty.

    Attributes:
        left: column of the patch's first pixel in its picture.
        top: row of it.
        pixels: (h, w) bool; h or w may be 0.
    """

    left: int
    top: int
    pixels: np.ndarray


def crop_mask(masks: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """`masks` (n, h, w), 0 where a pixel's column or row number is outside its box (n, 4), xyxy in the same pixels."""
    return masks * _inside(boxes, (masks.shape[1], masks.shape[2]))


def process_mask(
    protos: torch.Tensor,
    coefficients: torch.Tensor,
    boxes: torch.Tensor,
    shape: tuple[int, int],
    upsample: bool = False,
) -> torch.Tensor:
    """Masks of one image, cropped to their boxes at the prototypes' resolution.

    Args:
        protos: (nm, mh, mw) prototypes.
        coefficients: (n, nm).
        boxes: (n, 4) xyxy pixels of the network input.
        shape: (height, width) of the network input.
        upsample: enlarge the cropped probabilities to `shape` before the threshold.

    Returns:
        (n, mh, mw) bool, with `upsample` (n, *shape): where the probability is above one half.
    """
    mh, mw = protos.shape[1:]
    scale = boxes.new_tensor((mw / shape[1], mh / shape[0])).repeat(2)
    masks = crop_mask(_probabilities(protos, coefficients), boxes[:, :4] * scale)
    return _enlarged(masks, shape) if upsample else masks > 0.5


def process_mask_native(
    protos: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Masks (n, *shape) bool in the original picture of `shape` (height, width), for a centred letterbox.

    The letterbox's border is cut off in whole cells of the prototypes, what is left is enlarged, and cropped to `boxes`
    (n, 4), xyxy pixels of the original. `mask_patches` knows fractions of a cell; this is YOLOv5's arithmetic.
    """
    masks = _probabilities(protos, coefficients)
    mh, mw = masks.shape[1:]
    gain = min(mh / shape[0], mw / shape[1])
    border_x, border_y = (mw - shape[1] * gain) / 2, (mh - shape[0] * gain) / 2
    masks = masks[:, int(border_y) : int(mh - border_y), int(border_x) : int(mw - border_x)]
    return _enlarged(masks, shape) & _inside(boxes, shape)


def mask_iou(mask1: torch.Tensor, mask2: torch.Tensor) -> torch.Tensor:
    """(m, n) float32 IoU of two stacks of 0/1 masks, (m, h, w) and (n, h, w) or already flat; 0 for empty ones."""
    a, b = mask1.flatten(1).float(), mask2.flatten(1).float()
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1) - both
    return both / either.clamp(min=1)


def mask_patches(
    protos: torch.Tensor,
    coefficients: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    input_shape: tuple[int, int],
    placement: ImagePlacement | None = None,
    retina: bool = False,
) -> list[MaskPatch]:
    """Masks of one image within their boxes, in pixels of the original picture.

    The centre of an original's pixel is followed through the letterbox to the prototypes, where the mask is
    interpolated (bilinear, before the threshold). A pixel belongs to a box if its centre does.

    Args:
        protos: (nm, mh, mw) prototypes of the network input.
        coefficients: (n, nm).
        boxes: (n, 4) xyxy pixels of the original.
        size: (height, width) of the original.
        input_shape: (height, width) of the network input.
        placement: the loader's ``((ratio_h, ratio_w), (pad_w, pad_h))``; a centred letterbox if None.
        retina: interpolate at the centre of each pixel of the original. Else at the centre of the network input's pixel
            that it falls into: the mask has the input's resolution, however large the original is.

    Returns:
        n patches, cut to the picture.
    """
    prototypes, weights = protos.float().cpu().numpy(), coefficients.float().cpu().numpy()
    (ratio_w, ratio_h), (pad_w, pad_h) = known_placement(input_shape, size, placement)

    def along(start: float, stop: float, axis: int) -> tuple[int, np.ndarray]:
        """First pixel of the box, and of all its pixels the positions in units of the prototypes' cells."""
        ratio, pad = ((ratio_h, pad_h), (ratio_w, pad_w))[axis]
        first, last = (int(np.clip(np.ceil(edge - 0.5), 0, size[axis])) for edge in (start, stop))
        at = (np.arange(first, last) + 0.5) * ratio + pad
        if not retina:
            at = np.floor(at) + 0.5
        cells = prototypes.shape[1 + axis]
        return first, np.clip(at * cells / input_shape[axis] - 0.5, 0, cells - 1)

    patches = []
    for (x1, y1, x2, y2), row in zip(boxes[:, :4].tolist(), weights, strict=True):
        (left, columns), (top, rows) = along(x1, x2, 1), along(y1, y2, 0)
        pixels = np.zeros((len(rows), len(columns)), bool)
        if pixels.size:
            pixels = _sampled(prototypes, row, rows, columns)
        patches.append(MaskPatch(left, top, pixels))
    return patches


def paste(patch: MaskPatch, size: tuple[int, int]) -> np.ndarray:
    """The patch's whole picture, (height, width) bool of `size`."""
    picture = np.zeros(size, bool)
    height, width = patch.pixels.shape
    picture[patch.top : patch.top + height, patch.left : patch.left + width] = patch.pixels
    return picture


def patch_iou(truth: Sequence[MaskPatch], patches: Sequence[MaskPatch]) -> np.ndarray:
    """(m, n) float32 IoU of masks of one picture; 0 for empty ones. Only where two patches meet are pixels compared."""
    areas = [int(np.count_nonzero(patch.pixels)) for patch in patches]
    iou = np.zeros((len(truth), len(patches)), np.float32)
    for i, own in enumerate(truth):
        area = int(np.count_nonzero(own.pixels))
        for j, other in enumerate(patches):
            if both := _common_pixels(own, other):
                iou[i, j] = both / (area + areas[j] - both)
    return iou


def _common_pixels(a: MaskPatch, b: MaskPatch) -> int:
    y0, x0 = max(a.top, b.top), max(a.left, b.left)
    y1 = min(a.top + a.pixels.shape[0], b.top + b.pixels.shape[0])
    x1 = min(a.left + a.pixels.shape[1], b.left + b.pixels.shape[1])
    if y0 >= y1 or x0 >= x1:
        return 0
    parts = [p.pixels[y0 - p.top : y1 - p.top, x0 - p.left : x1 - p.left] for p in (a, b)]
    return int(np.count_nonzero(parts[0] & parts[1]))


def patch_polygon(patch: MaskPatch) -> np.ndarray | None:
    """The outline (k, 2) float32 of a mask, x and y along the edges of the picture's pixels; None of an empty mask.

    All its parts, holes too, are one closed polygon: from the first point a line goes to each further part, round it,
    and back, which encloses nothing. Filled by the even-odd rule it gives the mask's pixels again.
    """
    import cv2

    if not patch.pixels.any():
        return None
    # The outline runs through centres of pixels. At twice the size those are 2x and 2x + 1 of pixel x, which stand for
    # its left edge, x, and its right one, x + 1; an outline round a hole likewise.
    doubled = patch.pixels.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    found, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = [_corners((contour.reshape(-1, 2) + 1) // 2) for contour in found]
    start = parts[0][:1]
    points = [parts[0]] + [piece for part in parts[1:] for piece in (start, part, part[:1])]
    return np.add(np.concatenate(points), (patch.left, patch.top), dtype=np.float32)


def _inside(boxes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(n, h, w) bool: x1 ≤ column < x2 and y1 ≤ row < y2 of xyxy `boxes` (n, 4) in a picture of `shape` (h, w)."""
    x1, y1, x2, y2 = boxes[:, :4, None].float().unbind(1)  # (n, 1) each
    row, column = (torch.arange(n, device=boxes.device) for n in shape)
    return ((row >= y1) & (row < y2))[:, :, None] & ((column >= x1) & (column < x2))[:, None]


def _probabilities(protos: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """(n, mh, mw) float32."""
    return (coefficients.float() @ protos.float().flatten(1)).sigmoid().view(-1, *protos.shape[1:])


def _enlarged(masks: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(n, *shape) bool: where `masks` (n, h, w) float, interpolated, are above one half; few at a time."""
    result = torch.empty((len(masks), *shape), dtype=torch.bool, device=masks.device)
    few = max(1, CHUNK_BYTES // (4 * shape[0] * shape[1]))
    for i in range(0, len(masks), few):
        large = torch.nn.functional.interpolate(masks[None, i : i + few], shape, mode="bilinear", align_corners=False)
        torch.gt(large[0], 0.5, out=result[i : i + few])
    return result


def _sampled(prototypes: np.ndarray, weights: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(len(rows), len(columns)) bool: the mask at ascending positions in units of cells, as two products of matrices.

    Equal positions are computed once: neighbouring pixels of a large picture share one of the network input's.
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
    """Of a closed outline (k, 2) of steps along the axes, some of length 0, the points where it turns."""
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    return points[(before * after).sum(1) <= 0]
