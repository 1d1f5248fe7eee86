"""`DetectMultiBackend`: picks the runtime by the kind of file, under the name that YOLOv5's scripts use."""

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
from models.backends.pytorch import PyTorchBackend
from models.backends.runtime import Runtime
from models.backends.tflite import TfLite
from models.backends.torchscript import TorchScript
from models.weights import find_weights
from utils.errors import UserError

_CHECKPOINTS = (".pt", ".pth")
_RUNTIMES: dict[str, type[Runtime]] = {
    ".torchscript": TorchScript, ".onnx": OnnxRuntime, ".xml": OpenVino, ".param": Ncnn, ".tflite": TfLite,
    ".pte": ExecuTorch, ".mlpackage": CoreMl,
}  # fmt: skip
_FOLDERS = (".xml", ".param")  # the files by which OpenVINO's and ncnn's folders are known
_REFUSED = (".engine", ".mlmodel", ".pb")  # those that YOLOv5 knows and we do not


class DetectMultiBackend(nn.Module):
    """A network ready for inference.

    weights: a checkpoint, a list of them for an ensemble, or an exported file or folder. device: a `torch.device`, or a
    name such as "cpu". fp16: half precision, where device and file can do it. trust: see `load_checkpoint`; of an
    exported file that is a program (TorchScript), that it may be run at all. dnn: OpenCV's runtime for .onnx. data is
    YOLOv5's: names for files without them; ours say them, others are refused, because names alone do not tell how to
    read their outputs.

    Attributes: `names` (class id → name), `stride` (int, pixels; image sides must be multiples of it), `task`, `fp16`,
    `device`, `pt` (True: the runtime is PyTorch), `dynamic` and `any_size` (it takes images of any size and batches of
    any number; `any_size` is True for checkpoints too), `model` (the network itself, or the `Runtime`).
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
        self.jit, self.onnx = kind is TorchScript, kind in (OnnxRuntime, OpenCvDnn)  # asked for by forks of detect.py
        self.engine = self.triton = False
        self.fp16: bool = self.runtime.fp16
        self.names: dict[int, str] = self.runtime.names
        self.stride: int = self.runtime.stride
        self.task: str = self.runtime.task
        self.eval()

    @property
    def model(self) -> Any:
        """The network: a `DetectionModel`, a `SegmentationModel` or an `Ensemble`; of exported files the `Runtime`."""
        return self.runtime.model

    def check(self, size: Sequence[int], augment: bool = False, visualize: Any = False) -> None:
        """Raise the `UserError` that `forward` would for images of `size` (height, width) and these wishes."""
        if not self.pt:
            self.runtime.check(size, augment, visualize)

    def forward(self, im: Tensor, augment: bool = False, visualize: Any = False) -> Any:
        """Images (B, 3, H, W), float, RGB 0..1, to what the model gives in evaluation mode.

        Detectors ``(decoded, raw)``, segmenters ``(decoded, prototypes, raw)``. decoded (B, N, 5 + nc [+ nm]): xywh in
        pixels of `im`, objectness, class probabilities, mask coefficients; prototypes (B, nm, h, w). Exported files
        have None as raw.
        """
        return self.runtime(im, augment=augment, visualize=visualize)

    @torch.inference_mode()
    def warmup(self, imgsz: tuple[int, int, int, int] = (1, 3, 640, 640)) -> None:
        """One pass over zeros of shape `imgsz`, where a first pass costs more than the later ones (not on the CPU)."""
        if self.device.type != "cpu":
            self.forward(torch.zeros(imgsz, device=self.device))


def runtime_for(path: str | Path) -> type[Runtime] | None:
    """What runs the exported file or folder `path`, by its suffix; None for every other kind of file."""
    return _RUNTIMES.get(_kind_of(Path(path)))


def _one_runtime(files: Sequence[str], dnn: bool) -> type[Runtime] | None:
    """What runs `files`; None for PyTorch, which runs checkpoints. Only those can be several."""
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
            raise UserError(f"{file}: several weights make an ensemble, which needs checkpoints (.pt); give this alone")
    if dnn and kinds != [".onnx"]:
        raise UserError(f"--dnn is for one .onnx file, not {', '.join(files)}")
    if dnn:
        return OpenCvDnn
    return _RUNTIMES.get(kinds[0]) if kinds else None


def _kind_of(path: Path) -> str:
    """The suffix that says what `path` is; of a folder, that of the file by which it is known."""
    suffix = path.suffix.lower()
    if suffix not in _RUNTIMES and path.is_dir():
        return next((kind for kind in _FOLDERS if any(path.glob(f"*{kind}"))), "a folder with none of these")
    return suffix
