"""ONNX files, run by ONNX Runtime or by OpenCV."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.backends.runtime import Runtime, check_outputs_named, library, read_metadata, shape_text, unreadable
from models.export_metadata import KEY
from utils.errors import UserError
from utils.logging import LOGGER

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxRuntime(Runtime):
    """Runs on the GPU if `device` is one and ONNX Runtime can use it, else on the CPU with as many threads as torch."""

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        ort = library("onnxruntime", path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # waiting threads would spin and take processor time from torch's: twice the time on two cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # its warnings are about nodes of the graph and do not help a user
        providers: list[Any] = [_CPU]
        if device.type == "cuda" and _CUDA in ort.get_available_providers():
            providers = [(_CUDA, {"device_id": device.index or 0}), _CPU]
        try:
            self.session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # its exceptions have no common class
            raise unreadable(path, "ONNX", error) from error
        if device.type == "cuda" and _CUDA not in self.session.get_providers():
            LOGGER.warning(f"ONNX Runtime cannot use the GPU, so {path} runs on the CPU; pip install onnxruntime-gpu")
        self.metadata = read_metadata(path, self.session.get_modelmeta().custom_metadata_map.get(KEY))
        self.fp16 = self.metadata.half
        check_outputs_named(path, self.metadata, [output.name for output in self.session.get_outputs()])
        entry = self.session.get_inputs()[0]
        self.input, self.dtype = entry.name, np.float16 if self.metadata.half else np.float32
        self._check_input(entry.type, list(entry.shape))

    def _check_input(self, kind: str, shape: list[int | str | None]) -> None:
        """Raise `UserError` where the network takes other images than its metadata say."""
        metadata = self.metadata
        wanted = [None, 3, None, None] if metadata.dynamic else [metadata.batch, 3, *metadata.imgsz]
        own = [size if isinstance(size, int) else None for size in shape]
        if kind != ("tensor(float16)" if metadata.half else "tensor(float)") or own != wanted:
            said = f"{'half' if metadata.half else 'float'} {shape_text(wanted)}"
            raise UserError(
                f"{self.path}: its metadata say that it takes images of {said}, but the network takes {kind} "
                f"{shape_text(own)}: they belong to different networks; export the checkpoint again"
            )

    def run(self, images: np.ndarray) -> Sequence[np.ndarray]:
        return self.session.run(list(self.metadata.outputs), {self.input: images})


class OpenCvDnn(Runtime):
    """Runs ONNX files by OpenCV's own inference engine, in float32."""

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        import cv2

        self.metadata = read_metadata(path, _embedded(path))
        if self.metadata.half or self.metadata.int8:
            raise UserError(f"{path}: --dnn takes float32 files; leave --dnn out, or export without --half and --int8")
        if self.metadata.layout == "nms":
            raise UserError(
                f"{path}: --dnn cannot run suppression inside the file; leave --dnn out, or export without --nms"
            )
        try:
            self.net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise unreadable(path, "ONNX", f"OpenCV: {error.err or error}") from error
        check_outputs_named(path, self.metadata, self.net.getUnconnectedOutLayersNames())
        if device.type == "cuda":
            self.net.setPreferableBackend(cv2.dnn.DNN_BACKEND_CUDA)
            self.net.setPreferableTarget(cv2.dnn.DNN_TARGET_CUDA)

    def run(self, images: np.ndarray) -> Sequence[np.ndarray]:
        self.net.setInput(images)
        names = self.net.getUnconnectedOutLayersNames()
        answers = dict(zip(names, self.net.forward(names), strict=True))
        return [answers[name] for name in self.metadata.outputs]


def _embedded(path: Path) -> str | None:
    """The metadata inside the file, which OpenCV does not show; None where a JSON file beside it serves instead."""
    beside = Path(f"{path}.json").is_file()
    if beside and importlib.util.find_spec("onnx") is None:
        return None
    onnx = library("onnx", path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # of protobuf, which this project does not depend on
        raise unreadable(path, "ONNX", error) from error
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer):
        raise UserError(f"{path} has its weights in another file, which OpenCV does not read; leave --dnn out")
    return None if beside else next((p.value for p in model.metadata_props if p.key == KEY), None)
