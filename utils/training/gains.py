"""Loss gains scaled to the network and the data."""

from __future__ import annotations

from typing import Any


def scale_gains(hyp: dict[str, Any], nl: int, nc: int, imgsz: tuple[int, int]) -> dict[str, Any]:
    """A copy of `hyp` whose gains, given for 3 levels, 80 classes and 640×640, fit this network.

    box · 3/nl, cls · nc/80 · 3/nl, obj · (area / 640²) · 3/nl.
    """
    levels = 3 / nl
    area = imgsz[0] * imgsz[1] / 640**2
    return {
        **hyp,
        "box": hyp["box"] * levels,
        "cls": hyp["cls"] * nc / 80 * levels,
        "obj": hyp["obj"] * area * levels,
    }
