"""`DetectMultiBackend`: picks the runtime by the kind of file, under the name that YOLOv5's scripts use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.backends.pytorch import PyTorchBackend
from utils.errors import UserError

# suffix → runtime; the others that YOLOv5 knows are refused by name
_RUNTIMES = {".pt": PyTorchBackend, ".pth": PyTorchBackend}
_UNSUPPORTED = (".torchscript", ".onnx", ".engine", ".mlmodel", ".mlpackage", ".xml", ".pb", ".tflite")


class DetectMultiBackend(nn.Module):
    """A network ready for inference.

    weights: a checkpoint, or a list of them for an ensemble. device: a `torch.device`, or a name such as "cpu".
    fp16: half precision, on a GPU. trust: see `load_checkpoint`. dnn (OpenCV's runtime) and data (names for files
    without them) are for kinds of file other than checkpoints.

    Attributes: `names` (class id → name), `stride` (int, pixels; image sides must be multiples of it), `task`, `fp16`,
    `device`, `pt` (True: the runtime is PyTorch and takes any size), `model` (the network itself).
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] = "yolov5s.pt",
        device: str | torch.device = "cpu",
        dnn: bool = False,
        data: str | Path | None = None,
        fp16: bool = False,
        fuse: bool = True,
        trust: bool = False,
    ) -> None:
        super().__init__()
        files = [str(weights)] if isinstance(weights, (str, Path)) else [str(w) for w in weights]
        self.device = torch.device(device)
        self.runtime = _runtime_for(files)(files, self.device, fp16=fp16, fuse=fuse, trust=trust)
        self.pt = True
        self.jit = self.onnx = self.engine = self.triton = False  # asked for by forks of detect.py
        self.fp16: bool = self.runtime.fp16
        self.names: dict[int, str] = self.runtime.names
        self.stride: int = self.runtime.stride
        self.task: str = self.runtime.task
        self.eval()

    @property
    def model(self) -> Any:
        """The network, a `DetectionModel`, a `SegmentationModel` or an `Ensemble`."""
        return self.runtime.model

    def forward(self, im: Tensor, augment: bool = False, visualize: Any = False) -> Any:
        """Images (B, 3, H, W), float, RGB 0..1, to what the model gives in evaluation mode.

        Detectors ``(decoded, raw)``, segmenters ``(decoded, prototypes, raw)``. decoded (B, N, 5 + nc [+ nm]): xywh in
        pixels of `im`, objectness, class probabilities, mask coefficients; prototypes (B, nm, h, w).
        """
        return self.runtime(im, augment=augment, visualize=visualize)

    @torch.inference_mode()
    def warmup(self, imgsz: tuple[int, int, int, int] = (1, 3, 640, 640)) -> None:
        """One pass over zeros of shape `imgsz`, where a first pass costs more than the later ones (not on the CPU)."""
        if self.device.type != "cpu":
            self.forward(torch.zeros(imgsz, device=self.device))


def _runtime_for(files: Sequence[str]) -> type[PyTorchBackend]:
    kinds = {Path(f).suffix.lower() for f in files}
    for file in files:
        suffix = Path(file).suffix.lower()
        if suffix in _UNSUPPORTED:
            raise UserError(
                f"{file}: files of kind {suffix} cannot be run yet; give the checkpoint (.pt) it was made from"
            )
        if suffix not in _RUNTIMES and not Path(file).is_dir():
            raise UserError(f"{file}: expected a checkpoint (.pt), found {suffix or 'no suffix'}")
    return _RUNTIMES.get(kinds.pop() if kinds else ".pt", PyTorchBackend)
