"""What the two formats for phones and boards, TensorFlow Lite and ExecuTorch, have in common."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from engine.export.request import ExportRequest
from utils.errors import UserError


def check_mobile(request: ExportRequest, kind: str) -> None:
    """Raises `UserError` for what files of `kind` cannot do."""
    metadata = request.metadata
    refusals = {
        f"--nms: {kind} files hold no suppression; leave it out, or use --include onnx": metadata.layout == "nms",
        f"--dynamic: {kind} files are of one size; give --imgsz and --batch-size instead": metadata.dynamic,
        f"--half: {kind} files are written in float32; leave it out, or give --int8 with --raw-heads": metadata.half,
        # one scale for pixels and probabilities together leaves nothing of the latter
        f"--int8: in {kind} files boxes must be decoded outside; add --raw-heads": metadata.int8 and metadata.layout != "raw",
        f"--device: {kind} files are made on the CPU; leave it out": request.device.type != "cpu",
    }
    for reason, applies in refusals.items():
        if applies:
            raise UserError(reason)


def calibration_batches(request: ExportRequest) -> Iterator[Tensor]:
    """The calibration pictures one by one, each as a whole batch of itself, since the size of batches is fixed."""
    assert request.calibration is not None  # with --int8
    for image in request.calibration:
        yield image.expand_as(request.example())
