"""Compatibility façade: what scripts written for YOLOv5 import from `utils.plots`, most of it fetched on first use.

Code of this project imports the owners (`utils.plots.annotator`, `utils.plots.mosaics`, …) instead.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_OWNERS = {
    "Annotator": "utils.plots.annotator",
    "Colors": "utils.plots.annotator",
    "colors": "utils.plots.annotator",
    "plot_confusion": "utils.plots.confusion",
    "plot_curves": "utils.plots.curves",
    "plot_images": "utils.plots.mosaics",
    "plot_labels": "utils.plots.labels",
    "plot_results": "utils.plots.results",
    "save_one_box": "utils.plots.crops",
}
__all__ = sorted(_OWNERS)


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module 'utils.plots' has no attribute '{name}'")
    return getattr(import_module(_OWNERS[name]), name)


def __dir__() -> list[str]:
    return __all__
