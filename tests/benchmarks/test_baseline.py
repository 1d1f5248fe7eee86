"""The baseline computes what ours does, each beside the other on the same random input.

The losses are compared in tests/utils/losses/.
"""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.baseline import (
    BaselineDataset,
    baseline_average,
    baseline_average_precision,
    baseline_color,
    baseline_match,
    baseline_suppression,
)
from benchmarks.validate import NMS
from utils.data.augment.pipeline import change_color
from utils.data.dataset import DetectionDataset
from utils.data.indexing.index import ImageIndex, build_index
from utils.data.sampling import BatchPlan
from utils.hyp import load_hyp
from utils.metrics.average_precision import ap_per_class
from utils.metrics.matching import match_detections
from utils.ops.nms import non_max_suppression
from utils.training.ema import ModelEMA

THRESHOLDS = torch.linspace(0.5, 0.95, 10)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ImageIndex:
    """Eight smooth pictures of other sizes than the network's, three objects each."""
    folder = tmp_path_factory.mktemp("smooth")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        size = (96, 200 + 8 * i) if i % 2 else (160 + 8 * i, 96)
        colours = rng.integers(0, 255, (3, 3, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), cv2.resize(colours, size, interpolation=cv2.INTER_CUBIC))
        boxes = np.concatenate((rng.uniform(0.3, 0.7, (3, 2)), rng.uniform(0.1, 0.6, (3, 2))), 1)
        rows = [f"{c} {' '.join(f'{x:.6f}' for x in box)}\n" for c, box in enumerate(boxes)]
        (folder / "labels" / f"{i}.txt").write_text("".join(rows))
    return build_index([folder / "images"], 3, cache=False)


@pytest.mark.parametrize("cache", ["", "ram"])
@pytest.mark.parametrize("turned", [False, True])
def test_mosaics(index: ImageIndex, cache: str, turned: bool) -> None:
    """Same requests, same choices: boxes agree to a hundredth of a pixel, pixels but for one resampling and seams."""
    hyp = load_hyp({"mosaic": 1.0, "degrees": 20.0, "shear": 5.0} if turned else {"mosaic": 1.0})
    ours = DetectionDataset(index, 128, augment=True, hyp=hyp, cache=cache, seed=3)
    plain = BaselineDataset(index, 128, augment=True, hyp=hyp, cache=cache, seed=3)
    for requests in BatchPlan(ours.epoch_indices, 4, shuffle=True, mosaic_pool=8):
        a, b = ours.batch(requests), plain.batch(requests)
        assert a.images.shape == b.images.shape
        assert len(a.targets) > 4
        np.testing.assert_array_equal(a.targets[:, :2], b.targets[:, :2])
        np.testing.assert_allclose(a.targets[:, 2:] * 128, b.targets[:, 2:] * 128, atol=0.01)
        difference = (a.images.float() - b.images.float()).abs()
        assert float(difference.mean()) < 2
        assert float((difference > 12).float().mean()) < 0.03  # the seams between pictures


def test_the_baseline_is_not_ours(index: ImageIndex) -> None:
    """The comparison above could fail: another random choice gives another picture."""
    hyp = load_hyp({"mosaic": 1.0})
    ours = DetectionDataset(index, 128, augment=True, hyp=hyp, seed=3)
    plain = BaselineDataset(index, 128, augment=True, hyp=hyp, seed=4)
    requests = next(iter(BatchPlan(ours.epoch_indices, 4, shuffle=True, mosaic_pool=8)))
    assert float((ours.batch(requests).images.float() - plain.batch(requests).images.float()).abs().mean()) > 10


def test_colours() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    difference = np.abs(baseline_color(image, (1.01, 0.6, 1.3)).astype(int) - change_color(image, (1.01, 0.6, 1.3)))
    assert difference.mean() < 1.5


def test_average() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ema = ModelEMA(model)
    plain = copy.deepcopy(ema.ema)
    for value in model.state_dict().values():
        value += 1
    ema.update(model)
    baseline_average(plain, model, ema.decay_at(1))
    for a, b in zip(ema.ema.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def crowd(objects: int = 60, copies: int = 60, candidates: int = 25200, nc: int = 80, seed: int = 0) -> torch.Tensor:
    """(candidates, 5 + nc) predictions for 640 pixels: faint noise, and `copies` jittered boxes round each object."""
    torch.manual_seed(seed)
    rows = torch.cat((torch.rand(candidates, 2) * 640, torch.rand(candidates, 2) * 100 + 10), 1)
    rows = torch.cat((rows, torch.rand(candidates, 1) ** 12 * 0.02, torch.rand(candidates, nc) ** 8 * 0.3), 1)
    where = torch.randperm(candidates)[: objects * copies]
    centre, size = torch.rand(objects, 2) * 640, torch.rand(objects, 2) * 150 + 20
    rows[where, :2] = centre.repeat_interleave(copies, 0) + torch.randn(len(where), 2) * 6
    rows[where, 2:4] = size.repeat_interleave(copies, 0) * (1 + 0.1 * torch.randn(len(where), 2)).clamp(0.5)
    rows[where, 4] = torch.rand(len(where))
    rows[where, 5 + torch.randint(nc, (objects,)).repeat_interleave(copies)] = torch.rand(len(where))
    return rows


@pytest.mark.parametrize("case", NMS)
def test_suppression(case: str) -> None:
    decoded = torch.stack([crowd(20, 20, candidates=1500, nc=8, seed=seed) for seed in range(2)])
    ours = non_max_suppression(decoded, **NMS[case])
    plain = baseline_suppression(decoded, **NMS[case])
    assert min(len(found) for found in ours) > 15
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Twelve objects of two classes, and detections: each object several times, a little beside it, and some noise."""
    corner = rng.uniform(0, 200, (12, 2))
    labels = np.concatenate((rng.integers(0, 2, (12, 1)), corner, corner + rng.uniform(20, 60, (12, 2))), 1)
    of = rng.integers(0, 12, 60)
    boxes = labels[of, 1:] + rng.normal(0, 3, (60, 4))
    conf = np.sort(rng.random(60))[::-1, None]
    classes = np.where(rng.random((60, 1)) < 0.9, labels[of, :1], 1 - labels[of, :1])
    return np.concatenate((boxes, conf, classes), 1).astype(np.float32), labels.astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_matching(seed: int) -> None:
    detections, labels = scene(np.random.default_rng(seed))
    ours = match_detections(detections, labels, THRESHOLDS)
    assert 5 < int(ours[:, 0].sum()) <= 12
    assert torch.equal(ours, baseline_match(detections, labels, THRESHOLDS))
    assert baseline_match(detections[:0], labels, THRESHOLDS).shape == (0, 10)
    assert not baseline_match(detections, labels[:0], THRESHOLDS).any()


def test_average_precision() -> None:
    """Over scenes, with a class that is never detected and one that is in no label."""
    rows, known = [], [np.full(3, 7.0)]
    for seed in range(4):
        detections, labels = scene(np.random.default_rng(seed))
        rows.append((match_detections(detections, labels, THRESHOLDS).numpy(), detections[:, 4], detections[:, 5]))
        known.append(labels[:, 0])
    correct, conf, classes = (np.concatenate(column) for column in zip(*rows, strict=True))
    classes[::20] = 5
    ours = ap_per_class(correct, conf, classes, np.concatenate(known)).ap
    plain = baseline_average_precision(correct, conf, classes, np.concatenate(known))
    assert ours.shape == plain.shape == (3, 10)
    assert float(ours[0, 0]) > 0.5
    np.testing.assert_allclose(ours, plain, atol=1e-9)
