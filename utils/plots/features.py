"""Pictures of what a network sees on the way: the feature maps of its rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.files import make_folder

_SHOWN = 32  # channels a picture


class FeaturePlotter:
    """Writes ``stage{i}_{Block}_features.png`` and ``.npy`` into `folder` for each row it is called with.

    The picture shows the first 32 channels of the first image, each scaled to its own range; the array holds all of them,
    (c, H, W). Rows without a map (heads, single pixels) are left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)

    def __call__(self, row: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            block = str(row.type).rpartition(".")[2]
            plot_features(output[0], self.folder / f"stage{row.i}_{block}_features")


def plot_features(features: Tensor, path: Path) -> None:
    """Draw `features` (c, H, W) to ``path.png`` and save them to ``path.npy``."""
    import numpy as np
    from matplotlib.figure import Figure

    maps = features.detach().float().cpu().numpy()
    np.save(path.with_name(path.name + ".npy"), maps)
    shown = maps[:_SHOWN]
    columns = min(8, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(columns * 1.5, rows * 1.5))
    for i, image in enumerate(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(image)
        axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0.05, 0.05)
    figure.savefig(path.with_name(path.name + ".png"), dpi=200)
