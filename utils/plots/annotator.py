"""Drawing masks, boxes and their labels into an image, and the colour of each class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.plots.fonts import find_font, text_mask

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from utils.ops.masks import BoxMask


Color = tuple[int, int, int]

_TURN = 0.618034  # golden section: each hue lands in the largest gap that its predecessors left
_SHADES = ((0.85, 0.98), (0.60, 0.80), (0.95, 0.70))  # saturation, value; neighbours in hue differ in shade


class Colors:
    """``Colors()(i)`` is the colour of class `i` as (red, green, blue) 0..255, or the reverse with `bgr`."""

    def __call__(self, i: int, bgr: bool = False) -> Color:
        return _color(int(i), bgr)


colors = Colors()


@lru_cache(maxsize=1024)
def _color(i: int, bgr: bool) -> Color:
    saturation, value = _SHADES[i % len(_SHADES)]
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb((0.02 + i * _TURN) % 1.0, saturation, value))
    return (blue, green, red) if bgr else (red, green, blue)


def contrasting(color: Color) -> Color:
    """Black or white, whichever can be read on `color` (BGR); relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


class Annotator:
    """Draws into `im`, (H, W, 3) uint8 BGR (a PIL image is copied); `result()` gives the picture.

    Args:
        im: the picture; drawn into in place where it is a contiguous array.
        line_width: pixels; None or 0 takes 0.3 % of the mean side, at least 2.
        font_size: em of the text in pixels; None follows the line width and the picture's size.
        font: path of a font file for all text; None draws ASCII with OpenCV and the rest with a font of the system
            that has the letters.
        pil: draw ASCII with a font of the system as well.
        example: the letters to come (the class names, say): if some are not ASCII, all text gets the one font that has
            them, so that labels look alike.
    """

    def __init__(
        self,
        im: np.ndarray | PILImage,
        line_width: int | None = None,
        font_size: float | None = None,
        font: str | None = None,
        pil: bool = False,
        example: str = "abc",
    ) -> None:
        self.im = im if isinstance(im, np.ndarray) else np.asarray(im.convert("RGB"))[..., ::-1]
        if not self.im.flags.c_contiguous or not self.im.flags.writeable:
            self.im = self.im.copy(order="C")
        side = sum(self.im.shape[:2]) / 2
        self.lw = int(line_width or max(round(side * 0.003), 2))
        self.font_size = round(font_size or max(12, 8 * self.lw, side * 0.008))
        self.font = font or (find_font(str(example) + "a") if pil or not str(example).isascii() else None)

    def box_label(
        self,
        box: Sequence[float] | np.ndarray,
        label: str = "",
        color: Color = (128, 128, 128),
        txt_color: Color | None = None,
    ) -> None:
        """Draw a rectangle around `box` (xyxy pixels), and `label` on a plate of the same colour (BGR).

        The label sits above the box, inside it where there is no room above, and always within the picture. Without
        `txt_color` it is black or white, whichever is readable on the plate.
        """
        x1, y1, x2, y2 = (round(float(v)) for v in box[:4])
        cv2.rectangle(self.im, (x1, y1), (x2, y2), color, self.lw)
        if not label:
            return
        mask = text_mask(label, self.font_size, self.font)
        margin = max(1, self.font_size // 6)
        width, height = mask.shape[1] + 2 * margin, mask.shape[0] + margin
        edge = self.lw // 2  # the line lies half outside the box; the plate is flush with it
        top = y1 - edge - height
        left = self._clamp(x1 - edge, width, self.im.shape[1])
        top = self._clamp(top if top >= 0 else y1 - edge, height, self.im.shape[0])
        self._fill(left, top, width, height, color)
        self._blend(mask, left + margin, top + margin // 2, txt_color or contrasting(color))

    def masks(self, masks: Sequence[BoxMask], colors: Sequence[Color], alpha: float = 0.5) -> None:
        """Draw the `masks`, each in its colour (BGR), `alpha` opaque with an opaque rim; to be called before boxes.

        What lies outside the picture is cut off; only the pixels within the boxes of the masks are touched.
        """
        height, width = self.im.shape[:2]
        thickness = 2 * max(1, self.lw // 2) - 1  # of a line along the rim's pixels, whose outer half is not copied
        for (left, top, pixels), color in zip(masks, colors, strict=True):
            x, y = max(0, left), max(0, top)
            seen = pixels[y - top : max(0, height - top), x - left : max(0, width - left)]
            if not seen.size:
                continue
            mask = np.ascontiguousarray(seen, np.uint8)
            region = self.im[y : y + mask.shape[0], x : x + mask.shape[1]]
            mixture = np.column_stack((np.eye(3) * (1 - alpha), np.multiply(color, alpha)))
            blended = cv2.transform(region, mixture)
            rims, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(blended, rims, -1, color, thickness)
            cv2.copyTo(blended, mask, region)

    def rectangle(
        self,
        xy: Sequence[float],
        fill: Color | None = None,
        outline: Color | None = (128, 128, 128),
        width: int = 1,
    ) -> None:
        """Draw a rectangle (xyxy pixels), filled, outlined or both; colours are BGR."""
        corners = [round(float(v)) for v in xy]
        if fill is not None:
            cv2.rectangle(self.im, corners[:2], corners[2:], fill, -1)
        if outline is not None:
            cv2.rectangle(self.im, corners[:2], corners[2:], outline, max(1, width))

    def text(
        self,
        xy: Sequence[float],
        text: str,
        txt_color: Color = (255, 255, 255),
        anchor: str = "top",
        box_style: bool = False,
    ) -> None:
        """`text` with its upper left corner at `xy` (lower left with ``anchor='bottom'``); lines by line breaks.

        With `box_style` it stands on a plate of `txt_color`, and is black or white itself.
        """
        lines = [text_mask(line, self.font_size, self.font) for line in text.split("\n")]
        left, top = round(float(xy[0])), round(float(xy[1]))
        if anchor == "bottom":
            top -= sum(line.shape[0] for line in lines)
        for line in lines:
            if box_style:
                self._fill(left, top, line.shape[1], line.shape[0], txt_color)
            self._blend(line, left, top, contrasting(txt_color) if box_style else txt_color)
            top += line.shape[0]

    def result(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8 BGR."""
        return self.im

    def _fill(self, left: int, top: int, width: int, height: int, color: Color) -> None:
        self.im[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = color

    def _blend(self, mask: np.ndarray, left: int, top: int, color: Color) -> None:
        """Put `color` where `mask` (h, w) is opaque; what lies outside the picture is cut off."""
        region = self.im[max(0, top) : max(0, top + mask.shape[0]), max(0, left) : max(0, left + mask.shape[1])]
        rows, columns = max(0, -top), max(0, -left)
        part = mask[rows : rows + region.shape[0], columns : columns + region.shape[1]]
        opacity = part[..., None].astype(np.float32) / 255
        region[:] = region + (np.array(color, np.float32) - region) * opacity + 0.5

    @staticmethod
    def _clamp(start: int, length: int, limit: int) -> int:
        """`start` moved so that `length` pixels fit below `limit`; what is too long begins at 0."""
        return max(0, min(start, limit - length))
