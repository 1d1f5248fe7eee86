"""Small ONNX files written by hand, with metadata that fits them or does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.export_metadata import KEY, PROJECT, VERSION

SIZE = 64
# 64 × 64 pixels at strides 8 and 16 with two anchors: 2 · (64 + 16) = 160 predictions
METADATA: dict[str, Any] = {
    "project": PROJECT, "version": VERSION, "task": "detect", "names": {"0": "cat", "1": "dog"}, "strides": [8, 16],
    "anchors": [[[10, 13], [16, 30]], [[30, 61], [62, 45]]], "imgsz": [SIZE, SIZE], "batch": 1, "dynamic": False,
    "half": False, "int8": False, "layout": "decoded", "activation": "SiLU",
}  # fmt: skip
SUPPRESSING = {"layout": "nms", "max_det": 5, "conf_thres": 0.25, "iou_thres": 0.45, "agnostic": False}


def write_onnx(
    path: Path,
    metadata: str | None,
    outputs: Mapping[str, Sequence[int]] | None = None,
    images: Sequence[int | str] = (1, 3, SIZE, SIZE),
    kind: int = TensorProto.FLOAT,
    external: bool = False,
) -> Path:
    """A network whose `outputs` (name → shape) are ones plus the mean of the images, described by `metadata`."""
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0)]
    weights, values = [], []
    for name, shape in (outputs or {"output0": (1, 160, 7)}).items():
        ones = np.ones(shape, np.float16 if kind == TensorProto.FLOAT16 else np.float32)
        weights.append(numpy_helper.from_array(ones, f"{name}_ones"))
        nodes.append(helper.make_node("Add", [f"{name}_ones", "mean"], [name]))
        values.append(helper.make_tensor_value_info(name, kind, list(shape)))
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("images", kind, list(images))], values, weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        helper.set_model_props(model, {KEY: metadata})
    onnx.save(model, str(path), save_as_external_data=external, size_threshold=0, location=f"{path.name}.data")
    return path
