"""`AutoShape`: a detector that takes images of any kind and size and returns `Detections`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from models.hub.detections import Detections
from models.hub.image_inputs import read_images
from utils.devices import Profile
from utils.errors import UserError
from utils.ops.boxes import scale_boxes
from utils.ops.letterbox import letterbox, make_divisible
from utils.ops.nms import non_max_suppression

if TYPE_CHECKING:
    from models.hub.image_inputs import ImageLike

_LARGEST_BATCH = 32  # images in one pass through the network


class AutoShape(nn.Module):
    """Runs letterboxing, a detector and non-maximum suppression in one call.

    `model` is a `DetectionModel`, an `Ensemble` or a `DetectMultiBackend`; a segmenter is a `UserError`. The attributes
    below may be set at any time; ``.to(device)`` and ``.half()`` (GPU) work as for any module. `verbose` is accepted
    for callers of YOLOv5's class and changes nothing.
    """

    conf = 0.25  # detections must have a confidence above this
    iou = 0.45  # of two boxes of one class whose IoU is above this, the more confident one stays
    agnostic = False  # let boxes of different classes suppress each other
    multi_label = False  # report one detection for each class above `conf`, not only for the best class
    classes: Sequence[int] | None = None  # report only these classes
    max_det = 1000  # the most detections per image
    amp = False  # automatic mixed precision (GPU)

    def __init__(self, model: Any, verbose: bool = True) -> None:
        super().__init__()
        if model.task != "detect":
            raise UserError(
                f"this network is for the task '{model.task}', but AutoShape is for detectors; "
                "run segment/predict.py, or load the network with autoshape=False"
            )
        self.model = model.eval()
        self.names: dict[int, str] = model.names
        self.stride = max(int(torch.as_tensor(model.stride).max()), 32)  # pixels; image sides are multiples of it
        self.pt: bool = getattr(model, "pt", True)
        self._any_size = self.pt or bool(getattr(model, "dynamic", False))
        self._channels: int = getattr(model, "yaml", {}).get("ch", 3)

    @torch.no_grad()  # not inference_mode, whose tensors a user could not change in place
    def forward(
        self, ims: ImageLike | Sequence[ImageLike], size: int | Sequence[int] = 640, augment: bool = False
    ) -> Any:
        """Detect objects in one image or a list of images of any sizes, and return `Detections`.

        `models.hub.image_inputs.read_images` lists what may be given. Images are letterboxed to `size`, one number for
        the longer side or (height, width), rounded up to multiples of the stride. Each image is padded as `detect.py`
        would pad it, so its boxes do not depend on the other images in the list.

        A tensor (B, C, H, W), 0..1, goes to the network as it is, and the result is what the network returns in
        evaluation mode, ``(decoded, raw)``.
        """
        if isinstance(ims, Tensor):
            return self._network(ims, augment)
        timers = Profile(), Profile(), Profile()
        with timers[0]:
            images = read_images(ims)
            if self._channels != 3:
                raise UserError(f"images have 3 channels, this network takes {self._channels}; give it a tensor")
            inputs = [self._input(image.pixels, _pair(size)) for image in images]
        rows = [torch.zeros(0, 6)] * len(images)
        for group in _groups(inputs):
            found = self._detect([inputs[i] for i in group], augment, timers)
            for i, boxes in zip(group, found, strict=True):
                scale_boxes(inputs[i].shape[1:], boxes, images[i].pixels.shape)
                rows[i] = boxes
        shape = len(inputs), self._channels, *np.max([x.shape[1:] for x in inputs] or [(0, 0)], 0).tolist()
        pixels, files = [image.pixels for image in images], [image.file for image in images]
        return Detections(pixels, rows, files, timers, self.names, shape)

    def _detect(
        self, inputs: Sequence[np.ndarray], augment: bool, timers: tuple[Profile, Profile, Profile]
    ) -> list[Tensor]:
        """Detections (n, 6) for each of the `inputs`, which have one shape, in pixels of the input."""
        with timers[0]:
            images = torch.from_numpy(np.stack(inputs)).to(self._where()[0]).float().div_(255)
        with timers[1]:
            output = self._network(images, augment)
        with timers[2]:
            found = non_max_suppression(
                output, self.conf, self.iou, self.classes, self.agnostic, self.multi_label, max_det=self.max_det
            )
        return [rows.float() for rows in found]

    def _network(self, images: Tensor, augment: bool) -> Any:
        device, dtype = self._where()
        with torch.autocast(device.type, enabled=self.amp and device.type != "cpu"):
            return self.model(images.to(device, dtype), augment=augment)

    def _where(self) -> tuple[torch.device, torch.dtype]:
        """The device and the precision of the network. Exported files have no parameters, but a `device`."""
        for parameter in self.model.parameters():
            return parameter.device, parameter.dtype
        return getattr(self.model, "device", torch.device("cpu")), torch.float32

    def _input(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Letterbox `pixels` (H, W, 3) to (3, h, w). Where the network takes any size, the border is the smallest."""
        shape = make_divisible(size[0], self.stride), make_divisible(size[1], self.stride)
        boxed = letterbox(pixels, shape, auto=self._any_size, stride=self.stride).image
        return np.ascontiguousarray(boxed.transpose(2, 0, 1))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"size is {size}; give the longer side in pixels, or (height, width)")
    return sides[0], sides[1]


def _groups(inputs: Sequence[np.ndarray]) -> list[list[int]]:
    """Indices of the inputs that go through the network together: of one shape, at most `_LARGEST_BATCH` of them."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(inputs):
        by_shape.setdefault(x.shape, []).append(i)
    return [g[k : k + _LARGEST_BATCH] for g in by_shape.values() for k in range(0, len(g), _LARGEST_BATCH)]
