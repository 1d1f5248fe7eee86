"""Stand-ins for a network that really find something: the box, or the mask, of what is red, and of what is blue."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NAMES = {0: 'red, "bright"', 1: "blue"}
BGR = {0: (0, 0, 255), 1: (255, 0, 0)}
CONFIDENCE = {0: 0.9, 1: 0.6}


class Spotter:
    """Answers like `DetectMultiBackend`: (B, 2, 7) decoded, a candidate a class, confidence 0 where there is none."""

    names = NAMES
    stride = 32
    pt = any_size = True
    fp16 = False
    device = torch.device("cpu")
    task = "detect"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.features: list[object] = []

    def __call__(self, im: Tensor, augment: bool = False, visualize: object = False) -> tuple[Tensor, None]:
        assert im.dtype == torch.float32
        assert 0 <= im.min() <= im.max() <= 1
        self.shapes.append(tuple(im.shape))
        self.features.append(visualize)
        return torch.stack([self._look(image) for image in im]), None

    @staticmethod
    def _look(image: Tensor) -> Tensor:
        out = torch.zeros(2, 7)
        for cls, seen in enumerate(coloured(image)):
            rows, columns = seen.nonzero(as_tuple=True)
            if len(rows):
                x1, x2, y1, y2 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
                out[cls, :4] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
                out[cls, 4], out[cls, 5 + cls] = 1.0, CONFIDENCE[cls]
        return out


class MaskSpotter(Spotter):
    """The same with masks: a prototype is what is red, the other what is blue, in cells of 4×4 pixels."""

    task = "segment"

    def __call__(self, im: Tensor, augment: bool = False, visualize: object = False) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        boxes = super().__call__(im, augment, visualize)[0]
        decoded = torch.cat((boxes, torch.eye(2).expand(len(im), 2, 2)), 2)
        shares = torch.nn.functional.avg_pool2d(torch.stack([coloured(image) for image in im]).float(), 4)
        return decoded, 20 * shares - 10, None


def coloured(image: Tensor) -> Tensor:
    """(2, h, w) bool: where `image` (3, h, w), RGB 0..1, is red, and where it is blue."""
    red, green, blue = image
    return torch.stack(((red > 0.7) & (blue < 0.3), (blue > 0.7) & (red < 0.3))) & (green < 0.3)


def scene(height: int, width: int, **boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(H, W, 3) uint8 BGR, grey, with filled boxes (x1, y1, x2, y2; ends exclusive) ``red=`` and ``blue=``."""
    image = np.full((height, width, 3), 60, np.uint8)
    for name, (x1, y1, x2, y2) in boxes.items():
        image[y1:y2, x1:x2] = BGR[0 if name == "red" else 1]
    return image
