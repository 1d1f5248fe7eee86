"""OpenVINO folders (.xml and .bin), run by OpenVINO."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.backends.runtime import Runtime, library, read_metadata, unreadable
from models.export_metadata import KEY
from utils.errors import UserError


class OpenVino(Runtime):
    """Runs on the CPU, with as many threads as torch. `path` is the folder or the .xml in it."""

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        core = openvino(path).Core()
        folder = path if path.is_dir() else path.parent
        xml = only_file(folder, "*.xml") if path.is_dir() else path
        try:
            network = core.read_model(str(xml))
            info = network.get_rt_info([KEY]).astype(str) if network.has_rt_info([KEY]) else None
            self.metadata = read_metadata(xml, info, beside=[folder])
            exact = {"INFERENCE_PRECISION_HINT": "f32"}  # on some processors the default is bfloat16
            if fp16 and "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                exact, self.fp16 = {"INFERENCE_PRECISION_HINT": "f16"}, True
            threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
            self.network = core.compile_model(network, "CPU", exact | threads)
        except RuntimeError as error:
            raise unreadable(xml, "OpenVINO", error) from error
        self.fp16 |= self.metadata.half

    def run(self, images: np.ndarray) -> Sequence[np.ndarray]:
        answer = self.network([images])
        return [answer[i] for i in range(len(self.network.outputs))]


def openvino(path: Path) -> Any:
    """The module `openvino`, to read or write `path`, without the package that reports its use to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it fails from now on
    return library("openvino", path)


def only_file(folder: Path, pattern: str) -> Path:
    """The one file of `folder` that matches `pattern`. Raises `UserError` where there is none, or several."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(f"{folder}: expected one {pattern} in this folder, found {len(found)}")
    return found[0]
