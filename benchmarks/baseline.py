"""The baseline, a yardstick for speed: the loss level by level with dense targets, mosaics resampled twice, loops over
images, classes and thresholds. Tests say that each part computes what ours does.

    python -m benchmarks.baseline train.py --cfg yolov5_MobileNetv2.yaml --img 320 --epochs 1
    python -m benchmarks.baseline val.py --weights yolov5n.pt --data coco128.yaml

run these commands with the baseline's parts in the place of ours: mosaics, of images from the whole data set; the
loss; the average of the weights and the optimiser tensor by tensor; all threads on each layer of a whole batch, and the
memory format that torch starts with; torchvision's NMS over all candidates; matching threshold by threshold. The rest
(start-up, index, workers and their shared memory, pictures, reports) stays ours, so that a ratio to it is rather too
low than too high.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from benchmarks.measuring import ROOT
from utils.data.augment.camera import draw_camera
from utils.data.augment.pipeline import draw_color_gains
from utils.data.augment.tiles import draw_centre
from utils.data.batch import Batch, Sample, collate
from utils.data.dataset import DetectionDataset
from utils.data.instances import Instances
from utils.data.sampling import SampleRequest
from utils.ops.boxes import xywh2xyxy
from utils.ops.iou import bbox_iou, box_iou

_CELLS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))  # own, left, above, right, below


def baseline_loss(
    predictions: Sequence[torch.Tensor], targets: torch.Tensor, head: Any, hyp: Mapping[str, float]
) -> torch.Tensor:
    """The loss (1,) that `DetectionLoss` gives (no focal loss, no label smoothing, three levels)."""
    weights = {name: torch.tensor([hyp[name]], device=targets.device) for name in ("cls_pw", "obj_pw")}
    total = torch.zeros(1, device=targets.device)
    for prediction, anchors, balance in zip(predictions, head.anchors, (4.0, 1.0, 0.4), strict=True):
        objectness = torch.zeros_like(prediction[..., 0])
        matched, anchor, column, row = matched_pairs(prediction.shape, targets, anchors, hyp["anchor_t"])
        if len(matched):
            image = matched[:, 0].long()
            predicted = prediction[image, anchor, row, column]
            scaled = predicted[:, :4].sigmoid() * 2
            box = torch.cat((scaled[:, :2] - 0.5, scaled[:, 2:] ** 2 * anchors[anchor]), 1)
            cell = torch.stack((column, row), 1)
            iou = bbox_iou(box, torch.cat((matched[:, 2:4] - cell, matched[:, 4:6]), 1), CIoU=True).squeeze(1)
            total = total + hyp["box"] * (1 - iou).mean()
            objectness[image, anchor, row, column] = iou.detach().clamp(0)
            if head.nc > 1:
                true = torch.zeros_like(predicted[:, 5:])
                true[range(len(matched)), matched[:, 1].long()] = 1.0
                total = total + hyp["cls"] * bce(predicted[:, 5:], true, pos_weight=weights["cls_pw"])
        total = total + hyp["obj"] * balance * bce(prediction[..., 4], objectness, pos_weight=weights["obj_pw"])
    return total * len(predictions[0])


def matched_pairs(
    shape: Sequence[int], targets: torch.Tensor, anchors: torch.Tensor, anchor_t: float
) -> tuple[torch.Tensor, ...]:
    """Of each pair: the object (image, class, xywh in grid units), and the prediction's anchor, column and row."""
    size = torch.tensor([shape[3], shape[2]], device=targets.device)
    scaled = targets.clone()
    scaled[:, 2:6] *= size.repeat(2)
    ratio = scaled[None, :, 4:6] / anchors[:, None]
    anchor, which = (torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t).nonzero(as_tuple=True)
    centre = scaled[which, 2:4]
    found = []
    for dx, dy in _CELLS:
        move = torch.tensor([dx, dy], device=targets.device)
        side = centre if dx + dy >= 0 else size - centre  # distance to the edge that the move goes to
        near = (((side % 1 < 0.5) & (side > 1)) | (move == 0)).all(1)
        cell = (centre[near] - move).long()
        found.append((which[near], anchor[near], cell[:, 0].clamp(0, shape[3] - 1), cell[:, 1].clamp(0, shape[2] - 1)))
    which, anchor, column, row = (torch.cat(parts) for parts in zip(*found, strict=True))
    return scaled[which], anchor, column, row


@torch.no_grad()
def baseline_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average = decay · average + (1 - decay) · model``, tensor by tensor of the state."""
    current = model.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value *= decay
            value += (1 - decay) * current[name].detach()


def baseline_suppression(
    decoded: torch.Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    multi_label: bool = False,
    max_det: int = 300,
    max_nms: int = 30000,
) -> list[torch.Tensor]:
    """Per image of `decoded` (B, N, 5 + nc) (n, 6) xyxy, confidence, class, by torchvision's NMS of all candidates."""
    from torchvision.ops import nms

    found = []
    for rows in decoded:
        rows = rows[rows[:, 4] > conf_thres]
        scores = rows[:, 5:] * rows[:, 4:5]
        if not multi_label:  # the best label of each box
            scores = torch.where(torch.arange(scores.shape[1]) == scores.argmax(1, keepdim=True), scores, 0.0)
        box, label = (scores > conf_thres).nonzero(as_tuple=True)
        candidates = torch.cat((xywh2xyxy(rows[:, :4])[box], scores[box, label, None], label[:, None].float()), 1)
        candidates = candidates[candidates[:, 4].argsort(descending=True, stable=True)[:max_nms]]
        apart = candidates[:, :4] + candidates[:, 5:] * 7680  # boxes of different classes do not meet
        found.append(candidates[nms(apart, candidates[:, 4], iou_thres)[:max_det]])
    return found


def baseline_match(detections: Any, labels: Any, iou_thresholds: Any) -> torch.Tensor:
    """What `match_detections` gives: threshold by threshold, detection by detection."""
    correct = torch.zeros((len(detections), len(iou_thresholds)), dtype=torch.bool)
    if len(detections) == 0 or len(labels) == 0:
        return correct
    detections, labels = torch.as_tensor(detections), torch.as_tensor(labels)
    iou = box_iou(labels[:, 1:5], detections[:, :4])
    iou = torch.where(labels[:, :1] == detections[None, :, 5], iou, -1.0)
    for t, threshold in enumerate(iou_thresholds):
        taken: set[int] = set()
        overlaps, nearest = iou.max(0)
        for d, (overlap, label) in enumerate(zip(overlaps.tolist(), nearest.tolist(), strict=True)):
            if overlap >= float(threshold) and label not in taken:
                taken.add(label)
                correct[d, t] = True
    return correct


def baseline_average_precision(correct: np.ndarray, conf: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> Any:
    """(k, T) average precision of the k classes that occur in `labels` (m,): class by class, threshold by threshold."""
    result = []
    for label in np.unique(labels):
        own = correct[classes == label][np.argsort(-conf[classes == label], kind="stable")]
        result.append([_area(own[:, t], int((labels == label).sum())) for t in range(correct.shape[1])])
    return np.array(result).reshape(-1, correct.shape[1])


def _area(right: np.ndarray, objects: int) -> float:
    """Below the precision-recall curve of detections by falling confidence, by trapezoids between 101 points."""
    if not len(right):
        return 0.0
    hits = right.cumsum()
    recall = np.concatenate(([0.0], hits / objects, [1.0]))
    precision = np.concatenate(([1.0], hits / np.arange(1, len(right) + 1), [0.0]))
    points = np.interp(np.linspace(0, 1, 101), recall, np.maximum.accumulate(precision[::-1])[::-1])
    return float((points[1:] + points[:-1]).sum() / 200)


class BaselineDataset(DetectionDataset):
    """Mosaics of four images decoded and resized, pasted on a canvas of twice the side, which is
    warped down, colours changed, samples stacked. The random choices are those of `DetectionDataset`.

    ``cache="ram"`` keeps the resized images. Samples that are no mosaics are made as ours are.
    """

    def __init__(self, *args: Any, cache: str = "", **options: Any) -> None:
        super().__init__(*args, pool_bytes=0, **options)
        self.kept = [self.resized(i) for i in range(len(self))] if cache == "ram" and self.mosaic else None

    @property
    def images_at_hand(self) -> int:
        return len(self)  # the others of a mosaic come from the whole data set

    def batch(self, requests: Sequence[SampleRequest], quads: bool = False, out: torch.Tensor | None = None) -> Batch:
        return collate([self.sample(request) for request in requests])

    def sample(self, request: SampleRequest, out: np.ndarray | None = None) -> Sample:
        rng = self._rng(request.key)
        if not self.mosaic or self.hyp["mosaic"] < 1:
            return super().sample(request, out)
        camera, gains = draw_camera(self.hyp, rng), draw_color_gains(self.hyp, rng)
        rng.random()  # ours asks whether to make a mosaic
        size, centre = self.imgsz, draw_centre(self.imgsz, rng)
        members = [(request.image, *request.mosaic_indices[:3])[i] for i in rng.permutation(4)]
        canvas, classes, boxes = self.pasted(members, centre)
        matrix = camera.matrix(canvas.shape[:2], size, centre)
        half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])  # OpenCV counts from centres of pixels
        warp = np.linalg.inv(half) @ matrix @ half
        if matrix[2, 0] == matrix[2, 1] == 0:
            image = cv2.warpAffine(canvas, warp[:2], size[::-1], borderValue=(114, 114, 114))
        else:
            image = cv2.warpPerspective(canvas, warp, size[::-1], borderValue=(114, 114, 114))
        kept, moved = self.moved(boxes, matrix, camera.scale)
        image = np.ascontiguousarray(baseline_color(image, gains)[:, :, ::-1].transpose(2, 0, 1))
        return Sample(image, Instances(classes[kept], moved[kept]), self.index.path(request.image), None)

    def resized(self, i: int) -> np.ndarray:
        """Image i at the size that fits the network's input."""
        height, width = self._files.fitted[i].tolist()
        return cv2.resize(cv2.imread(self.index.path(i)), (width, height))  # type: ignore[arg-type]

    def pasted(self, members: Sequence[int], centre: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The canvas with four pictures around `centre` (x, y), and classes (n,) and boxes (n, 4) xyxy on it."""
        height, width = 2 * self.imgsz[0], 2 * self.imgsz[1]
        canvas, classes, boxes = np.full((height, width, 3), 114, np.uint8), [], []
        for place, i in enumerate(members):
            picture = self.resized(i) if self.kept is None else self.kept[i]
            h, w = picture.shape[:2]
            x, y = centre[0] - (0 if place % 2 else w), centre[1] - (0 if place // 2 else h)
            left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            canvas[top:bottom, left:right] = picture[top - y : bottom - y, left - x : right - x]
            rows = self.index.label_slice(i)
            classes.append(self.index.classes[rows])
            boxes.append(self._xyxyn[rows] * (w, h, w, h) + (x, y, x, y))
        return canvas, np.concatenate(classes), np.concatenate(boxes).clip(0, (width, height, width, height))

    def moved(self, boxes: np.ndarray, matrix: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """`boxes` through `matrix`, cut by the picture, and which of them are still worth learning."""
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        points = np.concatenate((corners, np.ones((len(corners), 1))), 1) @ matrix.T
        points = (points[:, :2] / points[:, 2:]).reshape(-1, 4, 2)
        moved = np.concatenate((points.min(1), points.max(1)), 1).clip(0, (*self.imgsz[::-1], *self.imgsz[::-1]))
        before, after = (boxes[:, 2:] - boxes[:, :2]) * scale, moved[:, 2:] - moved[:, :2]
        share = after.prod(1) / (before.prod(1) + 1e-16)
        thin = np.maximum(after[:, 0] / (after[:, 1] + 1e-16), after[:, 1] / (after[:, 0] + 1e-16))
        return (after > 2).all(1) & (share > 0.1) & (thin < 100), moved.astype(np.float32)


def baseline_color(image: np.ndarray, gains: Sequence[float]) -> np.ndarray:
    """A BGR `image` with hue, saturation and value multiplied by `gains`, one channel after another."""
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    levels = np.arange(256)
    hue = cv2.LUT(hue, (levels * gains[0] % 180).astype(np.uint8))
    saturation = cv2.LUT(saturation, (levels * gains[1]).clip(0, 255).astype(np.uint8))
    value = cv2.LUT(value, (levels * gains[2]).clip(0, 255).astype(np.uint8))
    return cv2.cvtColor(cv2.merge((hue, saturation, value)), cv2.COLOR_HSV2BGR)


def exchange() -> None:
    """Put the baseline's parts in the place of ours, in this process."""
    import engine.training.setup
    import engine.validation.validator
    import utils.losses.detection
    import utils.metrics.matching
    from utils.data import loader
    from utils.ops import nms
    from utils.training.ema import ModelEMA
    from utils.training.optimizer import smart_optimizer

    class BaselineLoss(utils.losses.detection.DetectionLoss):
        def __call__(self, predictions: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            loss = baseline_loss(predictions, targets, self.head, self.hyp)
            return loss, loss.detach().expand(3) / (3 * len(predictions[0]))  # nobody reads the parts here

    class BaselineInference(engine.validation.validator.ThreadedInference):
        def __call__(self, images: torch.Tensor, **arguments: Any) -> Any:
            return self._one(images, arguments)

    def average(self: ModelEMA, model: nn.Module) -> None:
        self.updates += 1
        baseline_average(self.ema, model, self.decay_at(self.updates))

    def optimizer(*words: Any, **options: Any) -> torch.optim.Optimizer:
        made = smart_optimizer(*words, **options)
        for group in made.param_groups:
            group.update(foreach=False, fused=False)
        return made

    def suppression(output: Any, **options: Any) -> list[torch.Tensor]:
        decoded = output if isinstance(output, torch.Tensor) else output[0]
        wanted = ("conf_thres", "iou_thres", "multi_label", "max_det")
        return baseline_suppression(decoded, **{name: options[name] for name in wanted if name in options})

    torch.channels_last = torch.contiguous_format
    for module, name, part in (
        (loader, "DetectionDataset", BaselineDataset),
        (utils.losses.detection, "DetectionLoss", BaselineLoss),
        (utils.metrics.matching, "match_detections", baseline_match),
        (nms, "non_max_suppression", suppression),
        (engine.training.setup, "smart_optimizer", optimizer),
        (engine.validation.validator, "ThreadedInference", BaselineInference),
        (ModelEMA, "update", average),
    ):
        assert hasattr(module, name), f"{module} has no {name} to exchange"
        setattr(module, name, part)


if __name__ == "__main__":
    if sys.argv[1:2] not in (["train.py"], ["val.py"]):
        raise SystemExit("error: name the command to run, train.py or val.py, and then its flags")
    exchange()
    sys.argv[:2] = [str(ROOT / sys.argv[1])]
    runpy.run_path(sys.argv[0], run_name="__main__")
