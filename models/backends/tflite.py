"""TensorFlow Lite files, run by LiteRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.backends.runtime import Runtime, in_order, library, read_metadata, unreadable


class TfLite(Runtime):
    """Runs on the CPU, with as many threads as torch.

    Images are given as (B, 3, H, W) or (B, H, W, 3), as the file takes them. Quantised inputs and outputs are converted
    here.
    """

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        self.metadata = read_metadata(path)
        module = library("ai_edge_litert.interpreter", path, "ai-edge-litert")
        try:
            self.interpreter = module.Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise unreadable(path, "TensorFlow Lite", error) from error
        self.input = self.interpreter.get_input_details()[0]
        outputs = self.interpreter.get_output_details()
        names = _signature_outputs(self.interpreter)  # the order of the details has no meaning
        if names:
            by_index = {details["index"]: details for details in outputs}
            outputs = [by_index[names[name]] for name in (list(names)[i] for i in in_order(list(names)))]
        self.outputs = outputs

    def run(self, images: np.ndarray) -> Sequence[np.ndarray]:
        if self.input["shape"][-1] == 3:
            images = images.transpose(0, 2, 3, 1)
        self.interpreter.set_tensor(self.input["index"], quantised(images, self.input))
        self.interpreter.invoke()
        return [dequantised(self.interpreter.get_tensor(details["index"]), details) for details in self.outputs]


def _signature_outputs(interpreter: Any) -> dict[str, int]:
    """The names of the outputs, mapped to indices of tensors; empty where the file has no names."""
    signatures = interpreter.get_signature_list()
    if not signatures:
        return {}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    return {name: details["index"] for name, details in runner.get_output_details().items()}


def quantised(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """`values` in the type of the tensor that `details` describe; an integer type counts steps of its scale."""
    kind = np.dtype(details["dtype"])
    if kind.kind == "f":
        return np.ascontiguousarray(values, kind)
    scale, zero = details["quantization"]
    steps = np.round(values / scale) + zero
    return np.clip(steps, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def dequantised(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """The reverse of `quantised`, as float32."""
    scale, zero = details["quantization"]
    if values.dtype.kind == "f" or not scale:  # integers without a scale are counts
        return values
    return (values.astype(np.float32) - zero) * np.float32(scale)
