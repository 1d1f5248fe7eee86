"""The feature maps that a network's layers compute from an image, drawn as images (``--visualize``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.files import atomic_write, make_folder
from utils.logging import LOGGER

if TYPE_CHECKING:
    import torch

_COLUMNS = 8
_TILE = 160  # pixels of the longer side of one map in the picture


class FeaturePlotter:
    """Called with each row of a network, writes its maps into `folder`; a watcher for the network's forward.

    Files are ``stage<i>_<Module>_features.png``, the first channels of the first image in a grid, each on its own
    scale from dark (lowest) to bright, and all of its channels as numbers in an ``.npy`` of the same name. Rows that
    give no maps (the head) leave none.
    """

    def __init__(self, folder: Path, channels: int = 32) -> None:
        self.folder = make_folder(folder)
        self.channels = channels

    def __call__(self, module: Any, inputs: Any, value: Any) -> None:
        shape = tuple(getattr(value, "shape", ()))
        if len(shape) != 4 or min(shape[2:]) < 2:
            return
        maps = _first_image(value)
        stem = self.folder / f"stage{module.i}_{str(module.type).rsplit('.', 1)[-1]}_features"
        with atomic_write(f"{stem}.npy") as file:
            np.save(file, maps)
        write_grid(maps[: self.channels], Path(f"{stem}.png"))
        LOGGER.info(f"{stem}.png: {min(self.channels, len(maps))} of {len(maps)} channels, {shape[2]}×{shape[3]}")


def _first_image(value: torch.Tensor) -> np.ndarray:
    return value[0].detach().float().cpu().numpy()


def write_grid(maps: np.ndarray, path: Path) -> None:
    """Write the maps `(c, h, w)` side by side, eight a line, as a picture."""
    import cv2

    count, height, width = maps.shape
    scale = _TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    columns = min(_COLUMNS, count)
    canvas = np.zeros((math.ceil(count / columns) * (size[1] + 2), columns * (size[0] + 2)), np.uint8)
    for i, values in enumerate(maps):
        low, high = float(values.min()), float(values.max())
        grey = ((values - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8)
        tile = cv2.resize(grey, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)
        y, x = i // columns * (size[1] + 2), i % columns * (size[0] + 2)
        canvas[y : y + size[1], x : x + size[0]] = tile
    _, data = cv2.imencode(path.suffix, cv2.applyColorMap(canvas, cv2.COLORMAP_VIRIDIS))
    with atomic_write(path) as file:
        file.write(data.tobytes())
