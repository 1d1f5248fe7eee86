"""Hand-made data and models for the tests of validation: no file, no training, every answer known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from engine.task import DetectionTask
from tests.engine.training import step
from utils.data.batch import Batch, LetterboxInfo
from utils.data.indexing.index import ImageIndex
from utils.ops.boxes import xyxy2xywh

SIZE = (96, 128)  # (height, width) of every picture, and of the network's input


def make_index(objects: Sequence[Sequence[tuple[float, ...]]], stem: str = "{:03d}") -> ImageIndex:
    """An index of images whose objects are given as (class, x, y, w, h), normalised."""
    rows = np.array([row for image in objects for row in image], np.float32).reshape(-1, 5)
    return ImageIndex.from_arrays(
        [f"images/{stem.format(i)}.jpg" for i in range(len(objects))], [SIZE] * len(objects),
        [len(image) for image in objects], rows[:, 0], rows[:, 1:],
    )  # fmt: skip


def make_batches(index: ImageIndex, batch_size: int = 2, original: tuple[int, int] = SIZE) -> list[Batch]:
    """The images of `index` in batches. Each image is grey; its first pixel holds its number, for `Oracle`."""
    batches = []
    ratio = SIZE[0] / original[0], SIZE[1] / original[1]
    for start in range(0, len(index), batch_size):
        numbers = range(start, min(start + batch_size, len(index)))
        images = torch.full((len(numbers), 3, *SIZE), 114, dtype=torch.uint8)
        targets = []
        for i, number in enumerate(numbers):
            images[i, 0, 0, 0] = number
            rows = index.label_slice(number)
            table = np.concatenate([index.classes[rows, None], index.boxes[rows]], 1)
            targets.append(torch.from_numpy(np.insert(table, 0, i, 1).astype(np.float32)))
        placement = LetterboxInfo(original, (ratio, (0.0, 0.0)))
        batches.append(Batch(images, torch.cat(targets), [index.path(n) for n in numbers], [placement] * len(numbers)))
    return batches


class Oracle(nn.Module):
    """A "network" that answers, for each image, the predictions it was given: rows x, y, w, h (pixels), conf, class."""

    def __init__(self, predictions: Sequence[Sequence[Sequence[float]]], nc: int) -> None:
        super().__init__()
        self.predictions = predictions
        self.nc = nc

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        assert not self.training
        most = max(len(p) for p in self.predictions)
        decoded = torch.zeros(len(images), most, 5 + self.nc, device=images.device)
        for i, number in enumerate((images[:, 0, 0, 0].float() * 255).round().int().tolist()):
            for j, (*xywh, confidence, class_id) in enumerate(self.predictions[number]):
                decoded[i, j, :4] = torch.tensor(xywh)
                decoded[i, j, 4] = confidence
                decoded[i, j, 5 + int(class_id)] = 1.0
        return decoded, [decoded]


def perfect(index: ImageIndex) -> list[list[tuple[float, ...]]]:
    """Predictions that repeat the labels, with falling confidences below 1."""
    height, width = SIZE
    return [
        [
            (x * width, y * height, w * width, h * height, 0.99 - 0.01 * j, c)
            for j, (c, (x, y, w, h)) in enumerate(zip(index.classes[s].tolist(), index.boxes[s].tolist(), strict=True))
        ]
        for s in map(index.label_slice, range(len(index)))
    ]


def unsure_network(task: DetectionTask) -> nn.Module:
    """A small real network whose predictions all have a confidence of about a quarter."""
    net = step.make_network(task)
    for convolution in net.model[-1].m:
        nn.init.zeros_(convolution.bias)
        nn.init.normal_(convolution.weight, std=0.3)
    return net


def labelled_batches(task: DetectionTask, net: nn.Module, count: int = 2) -> list[Batch]:
    """Batches of two pictures of noise; labelled are two of `net`'s own detections in each, so some will be right."""
    batches = []
    for seed in range(count):
        batch = step.make_batch(task, seed)
        with torch.inference_mode():
            found = task.postprocess(net.eval()(batch.images / 255), conf_thres=0.2, iou_thres=0.1, max_det=2)
        boxes = torch.cat([rows[:, :4] for rows in found]).clamp(0, step.SIZE)
        classes, images = torch.cat([rows[:, 5] for rows in found]), torch.tensor([0.0, 0.0, 1.0, 1.0])
        targets = torch.cat((images[:, None], classes[:, None], xyxy2xywh(boxes) / step.SIZE), 1)
        polygons = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) for x1, y1, x2, y2 in boxes.numpy()]
        batches.append(replace(batch, targets=targets, polygons=polygons))
    return batches
