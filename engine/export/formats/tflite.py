"""TensorFlow Lite: for phones and boards, converted from PyTorch by LiteRT, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.export.formats.mobile import calibration_batches, check_mobile
from engine.export.request import ExportRequest
from utils.errors import UserError
from utils.logging import silenced

_SIGNATURE = "serving_default"  # the one way to call the file


def check(request: ExportRequest) -> None:
    """Raises `UserError` for what this format cannot do."""
    check_mobile(request, "TFLite")


def write(request: ExportRequest, path: Path) -> None:
    """Write `path`: images go in as (B, H, W, 3), as TensorFlow's users have them; outputs are as in every format."""
    with silenced(), torch.no_grad():
        import litert_torch

        network = litert_torch.to_channel_last_io(request.network(), args=[0]).eval()
        litert_torch.convert(network, (request.example().permute(0, 2, 3, 1).contiguous(),)).export(str(path))
        if request.metadata.int8:
            path.write_bytes(_quantised(request, path))


def _quantised(request: ExportRequest, path: Path) -> bytes:
    """The file in 8-bit numbers: scales per channel of the weights, and per map as the calibration pictures need."""
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    samples, ranges = _calibration(request, path), None
    while some := list(islice(samples, 16)):  # all at once, which it keeps, would fill the memory
        ranges = tool.calibrate({_SIGNATURE: some}, ranges, num_threads=torch.get_num_threads())
    return bytes(tool.quantize(ranges, enable_progress_report=False).quantized_model)


def _calibration(request: ExportRequest, path: Path) -> Iterator[dict[str, np.ndarray]]:
    """Each picture as the file takes it."""
    (name,) = _interpreter(path).get_signature_runner(_SIGNATURE).get_input_details()
    for images in calibration_batches(request):
        yield {name: np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())}


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """What the report tells of the file. Raises `UserError` for one that is not as asked for."""
    interpreter = _interpreter(path)
    (image,) = interpreter.get_input_details()
    size, want = tuple(image["shape"].tolist()), tuple(request.example().permute(0, 2, 3, 1).shape)
    if size != want:
        raise UserError(f"its input is {size}, and should be {want}")
    if not request.metadata.int8:
        return ["float32"]
    tensors = interpreter.get_tensor_details()
    scaled = sum(t["dtype"] == np.int8 and len(t["quantization_parameters"]["scales"]) > 1 for t in tensors)
    if not scaled:
        raise UserError("--int8 was asked for, but it has no 8-bit weights with a scale per channel")
    return [f"{scaled} 8-bit weights with a scale per channel"]


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path))
