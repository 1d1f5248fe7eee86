"""MixUp: two images blended, the objects of both kept (Zhang et al. 2018)."""

from __future__ import annotations

import cv2
import numpy as np

from utils.data.augment.scene import View
from utils.data.instances import Instances

BETA = 32.0  # both parameters: shares stay near a half


def draw_share(rng: np.random.Generator) -> float:
    """The first image's share of the blend."""
    return float(rng.beta(BETA, BETA))


def mixup(first: View, second: View, share: float) -> View:
    """``share * first + (1 - share) * second``; writes to the first image."""
    image = cv2.addWeighted(first.image, share, second.image, 1.0 - share, 0.0, dst=first.image)
    return View(image, Instances.concatenate([first.instances, second.instances]))
