"""The random view of a sample: rotation, zoom, shear, perspective, shift and flips, as one matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from utils.data.augment.geometry import is_axis_aligned, mirroring, project, translation


class Camera(NamedTuple):
    """How a canvas is looked at. The defaults show its middle as it is."""

    degrees: float = 0.0  # anticlockwise
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)  # degrees, along x and y
    perspective: tuple[float, float] = (0.0, 0.0)  # growth of the homogeneous weight per pixel
    centre: tuple[float, float] = (0.5, 0.5)  # where the canvas's middle appears, as a fraction of (width, height)
    flip_lr: bool = False
    flip_ud: bool = False

    def matrix(
        self, canvas: tuple[int, int], output: tuple[int, int], anchor: tuple[float, float] | None = None
    ) -> np.ndarray:
        """The (3, 3) matrix from pixels of the `canvas` to those of the `output`, sizes (height, width).

        `anchor` (x, y), a point of the canvas where image edges meet, is brought to the nearest pixel corner if the
        view is upright: half a pixel of a random shift at most, and then edges need no blending and a warp is a resize.
        """
        cos, sin = (self.scale * f(math.radians(self.degrees)) for f in (math.cos, math.sin))
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        along_x, along_y = (math.tan(math.radians(angle)) for angle in self.shear)
        shear = np.array([[1.0, along_x, 0.0], [along_y, 1.0, 0.0], [0.0, 0.0, 1.0]])
        perspective = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [*self.perspective, 1.0]])
        to_middle = translation(-canvas[1] / 2, -canvas[0] / 2)
        to_place = translation(self.centre[0] * output[1], self.centre[1] * output[0])
        matrix = to_place @ shear @ turn @ perspective @ to_middle
        if anchor is not None and is_axis_aligned(matrix):
            x, y = project(np.array([anchor]), matrix)[0].tolist()
            matrix = translation(round(x) - x, round(y) - y) @ matrix
        return mirroring(output[1] if self.flip_lr else None, output[0] if self.flip_ud else None) @ matrix


def draw_camera(hyp: Mapping[str, float], rng: np.random.Generator) -> Camera:
    """A random view within the gains of `hyp` (degrees, scale, shear, perspective, translate, flipud, fliplr)."""
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
