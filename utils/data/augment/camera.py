"""The random view of a sample: rotation, zoom, shear, perspective, shift and flips combined into one matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from utils.ops.geometry import is_axis_aligned, mirroring


class Camera(NamedTuple):
    """A view of a canvas. The defaults show the middle of the canvas unchanged."""

    degrees: float = 0.0  # anticlockwise
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)  # degrees, along x and y
    perspective: tuple[float, float] = (0.0, 0.0)  # growth of the homogeneous weight per pixel
    centre: tuple[float, float] = (0.5, 0.5)  # where the middle of the canvas appears, as a fraction of (width, height)
    flip_lr: bool = False
    flip_ud: bool = False

    def matrix(
        self, canvas: tuple[int, int], output: tuple[int, int], anchor: tuple[float, float] | None = None
    ) -> np.ndarray:
        """The matrix (3, 3) from pixels of the `canvas` to pixels of the `output`; both are sizes (height, width).

        `anchor` (x, y) is a point of the canvas where edges of images meet. If the view is upright, it is moved to the
        nearest corner of a pixel, which changes a random shift by half a pixel at most. Then edges need no blending,
        and a warp is a resize.
        """
        cos, sin = (self.scale * f(math.radians(self.degrees)) for f in (math.cos, math.sin))
        along_x, along_y = (math.tan(math.radians(angle)) for angle in self.shear)
        # rotation, then shear, about the middle of the canvas; in plain numbers, as numpy takes longer to start
        a, b, d, e = cos - along_x * sin, sin + along_x * cos, along_y * cos - sin, along_y * sin + cos
        x, y = canvas[1] / 2, canvas[0] / 2
        g, h = self.perspective
        place_x, place_y, weight = self.centre[0] * output[1], self.centre[1] * output[0], 1.0 - g * x - h * y
        matrix = np.array(
            [
                [a + place_x * g, b + place_x * h, place_x * weight - a * x - b * y],
                [d + place_y * g, e + place_y * h, place_y * weight - d * x - e * y],
                [g, h, weight],
            ]
        )
        if anchor is not None and is_axis_aligned(matrix):
            (scale_x, _, x), (_, scale_y, y), _ = matrix.tolist()
            x, y = scale_x * anchor[0] + x, scale_y * anchor[1] + y
            matrix[:2, 2] += round(x) - x, round(y) - y
        if self.flip_lr or self.flip_ud:
            return mirroring(output[1] if self.flip_lr else None, output[0] if self.flip_ud else None) @ matrix
        return matrix


def draw_camera(hyp: Mapping[str, float], rng: np.random.Generator) -> Camera:
    """A random camera within the gains of `hyp` (degrees, scale, shear, perspective, translate, flipud, fliplr)."""
    u = rng.uniform(-1.0, 1.0, 8).tolist()
    flips = rng.random(2).tolist()
    return Camera(
        degrees=hyp["degrees"] * u[0],
        scale=1.0 + hyp["scale"] * u[1],
        shear=(hyp["shear"] * u[2], hyp["shear"] * u[3]),
        perspective=(hyp["perspective"] * u[4], hyp["perspective"] * u[5]),
        centre=(0.5 + hyp["translate"] * u[6], 0.5 + hyp["translate"] * u[7]),
        flip_lr=flips[0] < hyp["fliplr"],
        flip_ud=flips[1] < hyp["flipud"],
    )
