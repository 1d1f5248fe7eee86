"""What a validation keeps of each batch: enough for all figures, and small enough to be sent to another process."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class ImageStatistics(NamedTuple):
    """One image: its detections by falling confidence, right or wrong, and its labels."""

    correct: tuple[np.ndarray, ...]  # for each metric group (n, T) bool, T IoU thresholds
    confidences: np.ndarray  # (n,)
    classes: np.ndarray  # (n,)
    labels: np.ndarray  # (m,) the class of each label


class BatchStatistics(NamedTuple):
    """One batch: its losses (k,) float32, zeros where none are computed, and its images in order."""

    losses: np.ndarray
    images: list[ImageStatistics]


@dataclass
class ValidationStatistics:
    """What one process has found, batch by batch; `seconds` of pre-processing, inference and suppression.

    `confusion (nc + 1, nc + 1)` is there where plots are drawn.
    """

    batches: list[BatchStatistics] = field(default_factory=list)
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(3))
    confusion: np.ndarray | None = None

    @property
    def images(self) -> list[ImageStatistics]:
        """All images, in the order of the batches."""
        return [image for batch in self.batches for image in batch.images]

    @property
    def mean_losses(self) -> tuple[float, ...]:
        """The mean over the batches, summed in their order: the same digits, whoever computed which batch."""
        total = np.zeros_like(self.batches[0].losses) if self.batches else np.zeros(0, np.float32)
        for batch in self.batches:
            total = total + batch.losses
        return tuple((total / np.float32(max(len(self.batches), 1))).tolist())


def merge_statistics(shares: Sequence[ValidationStatistics]) -> ValidationStatistics:
    """The `shares` of several processes, which were dealt the batches in turn, as one.

    The order of the batches is restored: among detections of equal confidence it decides which comes first.
    """
    turns = itertools.zip_longest(*(share.batches for share in shares))
    confusions = [share.confusion for share in shares if share.confusion is not None]
    return ValidationStatistics(
        [batch for turn in turns for batch in turn if batch is not None],
        np.sum([share.seconds for share in shares], 0),
        np.sum(confusions, 0) if confusions else None,
    )
