"""`DetectMultiBackend` runs any kind of model file. It has the name that YOLOv5's scripts use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.backends.coreml import CoreMl
from models.backends.executorch import ExecuTorch
from models.backends.exported import ExportedBackend
from models.backends.ncnn import Ncnn
from models.backends.onnx import OnnxRuntime, OpenCvDnn
from models.backends.openvino import OpenVino
from models.backends.runtime import Runtime
from models.backends.tflite import TfLite
from models.backends.torchscript import TorchScript
from models.loading import load_model
from models.weights import find_weights
from utils.errors import UserError
from utils.logging import LOGGER

_CHECKPOINTS = (".pt", ".pth")
_RUNTIMES: dict[str, type[Runtime]] = {
    ".torchscript": TorchScript, ".onnx": OnnxRuntime, ".xml": OpenVino, ".param": Ncnn, ".tflite": TfLite,
    ".pte": ExecuTorch, ".mlpackage": CoreMl,
}  # fmt: skip
_FOLDERS = (".xml", ".param")  # the files that identify the folders of OpenVINO and ncnn
_REFUSED = (".engine", ".mlmodel", ".pb")  # the kinds that YOLOv5 runs and this project does not


class DetectMultiBackend(nn.Module):
    """A network that is ready for inference.

    Args:
        weights: a checkpoint, a list of checkpoints for an ensemble, or an exported file or folder.
        device: a `torch.device`, or a name such as "cpu".
        dnn: run an .onnx file by OpenCV.
        data: accepted for callers of YOLOv5's class, and ignored. It named the classes for files without names; those
            are refused here, because names alone do not tell how to read their outputs.
        fp16: compute in half precision, where the device and the file can.
        fuse: fold batch norms into convolutions.
        trust: as for `load_checkpoint`; also, run an exported file that is a program (TorchScript).

    Attributes:
        names: class id → name.
        stride: pixels; image sides must be multiples of it.
        task, fp16, device: of the network.
        pt: True where PyTorch runs a checkpoint.
        dynamic: True for an exported file that takes images of any size in batches of any size.
        any_size: True where `pt` or `dynamic` is.
        model: the network itself, or the `Runtime` of an exported file.
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
        kind = _one_runtime(files, dnn)
        self.runtime: Any = (
            PyTorchBackend(files, self.device, fp16=fp16, fuse=fuse, trust=trust)
            if kind is None
            else ExportedBackend(kind, find_weights(files[0]), self.device, fp16=fp16, trust=trust)
        )
        self.pt = kind is None
        self.dynamic: bool = getattr(self.runtime, "dynamic", False)
        self.any_size = self.pt or self.dynamic
        self.jit, self.onnx = kind is TorchScript, kind in (OnnxRuntime, OpenCvDnn)  # for forks of detect.py
        self.engine = self.triton = False
        self.fp16: bool = self.runtime.fp16
        self.names: dict[int, str] = self.runtime.names
        self.stride: int = self.runtime.stride
        self.task: str = self.runtime.task
        self.eval()

    @property
    def model(self) -> Any:
        """The `DetectionModel`, the `SegmentationModel` or the `Ensemble`; for an exported file, its `Runtime`."""
        return self.runtime.model

    def check(self, size: Sequence[int], augment: bool = False, visualize: Any = False) -> None:
        """Raise the `UserError` that `forward` would raise for images of `size` (height, width) and these options."""
        if not self.pt:
            self.runtime.check(size, augment, visualize)

    def forward(self, im: Tensor, augment: bool = False, visualize: Any = False) -> Any:
        """The output of the model in evaluation mode for images (B, 3, H, W), float, RGB 0..1.

        It is ``(decoded, raw)`` from a detector and ``(decoded, prototypes, raw)`` from a segmenter. decoded is
        (B, N, 5 + nc [+ nm]): xywh in pixels of `im`, objectness, class probabilities and mask coefficients; prototypes
        are (B, nm, h, w); raw is None for exported files.
        """
        return self.runtime(im, augment=augment, visualize=visualize)

    @torch.inference_mode()
    def warmup(self, imgsz: tuple[int, int, int, int] = (1, 3, 640, 640)) -> None:
        """Run once on zeros of shape `imgsz`, because on a GPU the first pass takes longer than the later ones."""
        if self.device.type != "cpu":
            self.forward(torch.zeros(imgsz, device=self.device))


def runtime_for(path: str | Path) -> type[Runtime] | None:
    """The runtime for the exported file or folder `path`, by its suffix; None for every other kind of file."""
    return _RUNTIMES.get(_kind_of(Path(path)))


def _one_runtime(files: Sequence[str], dnn: bool) -> type[Runtime] | None:
    """The runtime for an exported file, or None for checkpoints, of which there may be several."""
    kinds = [_kind_of(Path(file)) for file in files]
    for file, kind in zip(files, kinds, strict=True):
        if kind in _REFUSED:
            raise UserError(f"{file}: files of kind {kind} cannot be run here; give an .onnx or the checkpoint (.pt)")
        if kind not in _RUNTIMES and kind not in _CHECKPOINTS:
            raise UserError(
                f"{file}: expected a checkpoint (.pt) or an exported file ({', '.join(_RUNTIMES)}), found "
                f"{kind or 'no suffix'}"
            )
        if kind in _RUNTIMES and len(files) > 1:
            raise UserError(
                f"{file}: an exported file cannot be part of an ensemble; give this file alone, or checkpoints (.pt)"
            )
    if dnn and kinds != [".onnx"]:
        raise UserError(f"--dnn is for one .onnx file, not {', '.join(files)}")
    if dnn:
        return OpenCvDnn
    return _RUNTIMES.get(kinds[0]) if kinds else None


def _kind_of(path: Path) -> str:
    """The suffix of `path`; for a folder, the suffix of the file in it that identifies the folder."""
    suffix = path.suffix.lower()
    if suffix not in _RUNTIMES and path.is_dir():
        return next((kind for kind in _FOLDERS if any(path.glob(f"*{kind}"))), "a folder with none of these")
    return suffix


class PyTorchBackend(nn.Module):
    """Runs one checkpoint, or several as an ensemble.

    `fp16` is True where half precision was asked for and the device is a GPU. On the CPU there is a warning instead,
    and the model computes in float32.
    """

    def __init__(
        self, weights: Sequence[str], device: torch.device, fp16: bool = False, fuse: bool = True, trust: bool = False
    ) -> None:
        super().__init__()
        self.fp16 = fp16 and device.type != "cpu"
        if fp16 and not self.fp16:
            LOGGER.warning("half precision needs a GPU; continuing in float32")
        self.model: Any = load_model(list(weights), device, fuse=fuse, half=self.fp16, trust=trust)
        self.names: dict[int, str] = self.model.names
        self.stride = max(int(self.model.stride.max()), 32)
        self.task: str = self.model.task

    def forward(self, im: Tensor, augment: bool = False, visualize: Any = False) -> Any:
        """The output of the model in evaluation mode for images (B, 3, H, W); see `models.yolo.Detect`."""
        return self.model(im.half() if self.fp16 else im.float(), augment=augment, visualize=visualize)
