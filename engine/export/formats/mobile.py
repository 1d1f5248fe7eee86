"""The checks and the calibration that TensorFlow Lite and ExecuTorch, for phones and boards, have in common."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from engine.export.request import ExportRequest
from utils.errors import UserError


def check_mobile(request: ExportRequest, kind: str) -> None:
    """Raise `UserError` where the request asks for something that files of `kind` cannot do."""
    metadata = request.metadata
    refusals = {
        f"--nms: {kind} files hold no suppression; leave it out, or use --include onnx": metadata.layout == "nms",
        f"--dynamic: {kind} files are of one size; give --imgsz and --batch-size instead": metadata.dynamic,
        f"--half: {kind} files are written in float32; leave it out, or give --int8 with --raw-heads": metadata.half,
        # with one scale for pixels and probabilities, all probabilities would round to zero
        f"--int8: in {kind} files boxes must be decoded outside; add --raw-heads": metadata.int8
        and metadata.layout != "raw",
        f"--device: {kind} files are made on the CPU; leave it out": request.device.type != "cpu",
    }
    for reason, applies in refusals.items():
        if applies:
            raise UserError(reason)


def calibration_batches(request: ExportRequest) -> Iterator[Tensor]:
    """The calibration images one by one, each repeated to fill a batch, because the batch size is fixed."""
    assert request.calibration is not None  # with --int8
    for image in request.calibration:
        yield image.expand_as(request.example())
