"""Anchors that fit a data set: best possible recall, k-means, genetic refinement.

Everything here is in pixels at the training size, and follows from its inputs: the same labels give the same anchors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from utils.errors import UserError
from utils.logging import LOGGER

GOOD_RECALL = 0.98  # anchors that reach this are left alone
_SAMPLE = 10_000  # labels that k-means and the genetic search look at: more change the second decimal of an anchor
_SMALLEST = 2.0  # pixels: smaller labels are noise to k-means, and no anchor gets smaller


class Fit(NamedTuple):
    """How well anchors fit labels: the share of labels with a matching anchor, and the mean number per label."""

    recall: float
    anchors_per_label: float


def shape_ratio(wh: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(n, k) how alike labels (n, 2) and anchors (k, 2) are: the worse of the width's and height's ratio, at most 1."""
    width, height = (wh[:, axis, None] / anchors[:, axis] for axis in (0, 1))  # by axis: (n, k, 2) is thrice as slow
    return np.minimum(np.minimum(width, 1 / width), np.minimum(height, 1 / height))


def fit(wh: np.ndarray, anchors: np.ndarray, thr: float = 4.0) -> Fit:
    """Measure how anchors (k, 2) fit labels (n, 2): one matches if neither side differs by more than a factor `thr`.

    The recall is an upper bound ("best possible"): the loss gives no prediction to a label without an anchor.
    """
    fits = shape_ratio(wh, anchors) > 1 / thr
    return Fit(float(fits.any(1).mean()), float(fits.sum(1).mean()))


def check_anchors(
    wh: np.ndarray, head: Any, thr: float = 4.0, imgsz: int | tuple[int, int] = 640, seed: int = 0
) -> Fit:
    """Replace the head's anchors, in place, where others fit the labels better.

    Args:
        wh: (n, 2) widths and heights of all labels in pixels at `imgsz`.
        head: detection head; `anchors` (nl, na, 2) in grid units are overwritten, `stride` (nl,) is read.
        thr: the loss's ``anchor_t``.
        imgsz: for the message.
        seed: of the search.

    Returns:
        How the anchors that the head now has fit.

    Raises:
        UserError: the anchors do not fit, and there are too few labels to find others from.
    """
    wh = np.asarray(wh, dtype=np.float64).reshape(-1, 2)
    wh = wh[(wh > 0).all(1)]
    stride = head.stride.detach().cpu().double().numpy()
    current = head.anchors.detach().cpu().double().numpy() * stride[:, None, None]  # (nl, na, 2) pixels
    nl, na = current.shape[:2]
    if len(wh) == 0:
        raise UserError("auto-anchor found no labels in the training set; check the label files, or use --noautoanchor")
    before = fit(wh, current.reshape(-1, 2), thr)
    says = f"AutoAnchor: {before.anchors_per_label:.2f} anchors per label, best possible recall {before.recall:.4f}"
    if before.recall > GOOD_RECALL:
        LOGGER.info(f"{says}: the anchors fit the data set at {_shown(imgsz)}")
        return before

    LOGGER.info(f"{says}: looking for anchors that fit the data set better at {_shown(imgsz)}")
    found = kmean_anchors(wh, nl * na, thr, seed=seed)
    after = fit(wh, found, thr)
    if after.recall <= before.recall:
        LOGGER.info(f"AutoAnchor: none found (recall {after.recall:.4f}); the anchors stay as they are")
        return before
    new = order_by_stride(found.reshape(nl, na, 2), stride)
    with torch.no_grad():
        head.anchors.copy_(torch.from_numpy(new / stride[:, None, None]))
    LOGGER.info(
        f"AutoAnchor: new anchors, best possible recall {after.recall:.4f}: "
        + "  ".join(",".join(f"{w:.0f}x{h:.0f}" for w, h in level) for level in new)
    )
    return after


def order_by_stride(anchors: np.ndarray, stride: np.ndarray) -> np.ndarray:
    """`anchors` (nl, na, 2) in pixels with the levels turned round where small strides would get large anchors."""
    area = anchors.prod(-1).mean(-1)
    opposite = (area[-1] - area[0]) * (stride[-1] - stride[0]) < 0
    return anchors[::-1].copy() if opposite else anchors


def kmean_anchors(
    wh: np.ndarray, n: int = 9, thr: float = 4.0, generations: int = 1000, seed: int = 0
) -> np.ndarray:  # fmt: skip
    """`n` anchors (n, 2) by rising area for labels (m, 2): k-means, then `generations` of small mutations that help.

    Raises:
        UserError: fewer labels than anchors.
    """
    rng = np.random.default_rng(seed)
    tiny = (wh < _SMALLEST).any(1)
    usable = wh[~tiny]
    if len(usable) < n:
        raise UserError(
            f"auto-anchor needs {n} labels of at least {_SMALLEST:g} pixels to find {n} anchors, and found "
            f"{len(usable)} ({tiny.sum()} smaller ones); use --noautoanchor, or a larger --imgsz"
        )
    if len(usable) > _SAMPLE:
        usable = usable[rng.choice(len(usable), _SAMPLE, replace=False)]
    spread = usable.std(0)
    spread[spread == 0] = 1.0
    anchors = k_means(usable / spread, n, rng) * spread
    anchors = _refine(usable, anchors.clip(_SMALLEST), thr, generations, rng)
    return anchors[anchors.prod(1).argsort(kind="stable")]


def k_means(points: np.ndarray, k: int, rng: np.random.Generator, runs: int = 10, rounds: int = 30) -> np.ndarray:
    """`k` centres (k, d) of `points` (n, d), n ≥ k: the best of several runs of Lloyd's rounds."""
    best, least = points[:k], np.inf
    for _ in range(runs):
        centres = _spread_starts(points, k, rng)
        for _ in range(rounds):
            nearest = _squared_distances(points, centres).argmin(1)
            count = np.bincount(nearest, minlength=k)
            total = np.stack([np.bincount(nearest, weights=axis, minlength=k) for axis in points.T], 1)
            moved = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centres)
            if np.allclose(moved, centres, rtol=1e-5):
                break
            centres = moved
        error = float(_squared_distances(points, centres).min(1).mean())
        if error < least:
            best, least = centres, error
    return best


def _spread_starts(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii 2007): each start is drawn with the squared distance to those before it."""
    starts = points[rng.integers(len(points), size=1)]
    while len(starts) < k:
        distance = _squared_distances(points, starts).min(1)
        total = distance.sum()
        weights = distance / total if total > 0 else None  # all points are alike: any will do
        starts = np.concatenate((starts, points[rng.choice(len(points), size=1, p=weights)]))
    return starts


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return sum(np.square(x[:, None] - c) for x, c in zip(points.T, centres.T, strict=True))  # type: ignore[return-value]


def _refine(
    wh: np.ndarray, anchors: np.ndarray, thr: float, generations: int, rng: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """Mutate all numbers at once by about a tenth, most of the time, and keep what improves the mean fitting ratio."""

    def fitness(candidate: np.ndarray) -> float:
        best = shape_ratio(wh, candidate).max(1)
        return float((best * (best > 1 / thr)).mean())

    score = fitness(anchors)
    for _ in range(generations):
        chosen = rng.random(anchors.shape) < 0.9
        factor = 1 + chosen * rng.normal(0, 0.1, anchors.shape) * rng.random()
        candidate = (anchors * factor.clip(0.3, 3.0)).clip(_SMALLEST)
        if (candidate_score := fitness(candidate)) > score:
            anchors, score = candidate, candidate_score
    return anchors


def _shown(imgsz: int | tuple[int, int]) -> str:
    return "×".join(str(side) for side in np.atleast_1d(imgsz))
