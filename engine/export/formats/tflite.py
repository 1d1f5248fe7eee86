"""TensorFlow Lite: for phones and boards; LiteRT converts it from PyTorch, without TensorFlow."""

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
    """Raise `UserError` where the request asks for something that this format cannot do."""
    check_mobile(request, "TFLite")


def write(request: ExportRequest, path: Path) -> None:
    """Write the file `path`. It takes images (B, H, W, 3), as usual in TensorFlow; its outputs are as elsewhere."""
    with silenced(), torch.no_grad():
        import litert_torch

        network = litert_torch.to_channel_last_io(request.network(), args=[0]).eval()
        litert_torch.convert(network, (request.example().permute(0, 2, 3, 1).contiguous(),)).export(str(path))
        if request.metadata.int8:
            path.write_bytes(_quantised(request, path))


def _quantised(request: ExportRequest, path: Path) -> bytes:
    """The file in 8 bits: a scale per channel of the weights, and one per map, from the calibration images."""
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    samples, ranges = _calibration(request, path), None
    while some := list(islice(samples, 16)):  # the tool keeps all samples of a call in memory
        ranges = tool.calibrate({_SIGNATURE: some}, ranges, num_threads=torch.get_num_threads())
    return bytes(tool.quantize(ranges, enable_progress_report=False).quantized_model)


def _calibration(request: ExportRequest, path: Path) -> Iterator[dict[str, np.ndarray]]:
    """The calibration images in the form that the file takes."""
    (name,) = _interpreter(path).get_signature_runner(_SIGNATURE).get_input_details()
    for images in calibration_batches(request):
        yield {name: np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())}


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """Words about the file for the report. Raises `UserError` where it is not as requested."""
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
