"""ncnn folders (.param and .bin), run by ncnn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.backends.openvino import only_file
from models.backends.runtime import Runtime, in_order, library, read_metadata, unreadable


class Ncnn(Runtime):
    """Runs images one by one on the CPU, with as many threads as torch. `path` is the folder or the .param in it."""

    def __init__(self, path: Path, device: torch.device, fp16: bool = False) -> None:
        super().__init__(path, device, fp16)
        self.ncnn = library("ncnn", path)
        folder = path if path.is_dir() else path.parent
        param = only_file(folder, "*.param") if path.is_dir() else path
        weights = param.with_suffix(".bin")
        self.metadata = read_metadata(param, beside=[folder])
        self.fp16 = fp16 or self.metadata.half
        self.net = self.ncnn.Net()
        options = self.net.opt
        options.num_threads = torch.get_num_threads()
        options.use_vulkan_compute = False
        # ncnn would choose half precision by itself where the processor can, which moves boxes by parts of a pixel
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = self.fp16
        options.use_bf16_storage = False
        for file, load in ((param, self.net.load_param), (weights, self.net.load_model)):
            if not file.is_file() or load(str(file)) != 0:
                raise unreadable(file, "ncnn", "ncnn cannot read it")
        self.inputs, outputs = self.net.input_names(), self.net.output_names()
        self.outputs = [outputs[i] for i in in_order(outputs)]

    def run(self, images: np.ndarray) -> Sequence[np.ndarray]:
        answers = [self._run_one(image) for image in images]
        return [np.stack(parts) for parts in zip(*answers, strict=True)]

    def _run_one(self, image: np.ndarray) -> list[np.ndarray]:
        with self.net.create_extractor() as extractor:
            extractor.input(self.inputs[0], self.ncnn.Mat(image).clone())
            return [np.array(extractor.extract(name)[1]) for name in self.outputs]
