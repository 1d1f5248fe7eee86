"""TorchScript: a traced network, which LibTorch can run without Python."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from engine.export.request import ExportRequest
from engine.export.suppression import select_by_loop
from models.export_metadata import KEY, ExportMetadata
from utils.errors import UserError


def check(request: ExportRequest) -> None:
    """Raise `UserError` where the request asks for something that this format cannot do."""
    if request.metadata.int8:
        raise UserError("--int8: TorchScript holds no 8-bit weights; use --include onnx or openvino")
    if request.metadata.half and request.device.type == "cpu":
        raise UserError(
            "--half: TorchScript of half precision is made and run on a GPU; give --device 0, or leave --half out"
        )


@torch.no_grad()
def write(request: ExportRequest, path: Path) -> None:
    """Write the file `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript's deprecation, and of every size that is traced
        select = torch.jit.script(select_by_loop) if request.metadata.layout == "nms" else None
        traced = torch.jit.trace(request.network(select), (request.example(),), strict=False, check_trace=False)
        _compute_where_the_images_are(traced.graph)
        extra = {f"{KEY}.json": request.metadata.to_json(), "config.txt": _for_yolov5(request.metadata)}
        torch.jit.save(traced, str(path), _extra_files=extra)


def _compute_where_the_images_are(graph: Any) -> None:
    """Replace the device that tracing recorded by the device of the input, so that the file runs on any device."""
    images = list(graph.inputs())[1]  # the first is the module itself
    for node in list(graph.nodes()):
        if node.kind() == "prim::Constant" and node.output().type().kind() == "DeviceObjType":
            device = graph.create("prim::device", [images], 1)
            device.insertBefore(node)
            device.output().setType(node.output().type())
            node.output().replaceAllUsesWith(device.output())
            node.destroy()


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """Words about the file for the report."""
    return ["to be run with --trust, because it is a program"]


def _for_yolov5(metadata: ExportMetadata) -> str:
    """The description that YOLOv5's own scripts look for, as JSON."""
    return json.dumps(
        {
            "shape": [metadata.batch, 3, *metadata.imgsz],
            "stride": max(metadata.strides),
            "names": list(metadata.names.values()),
        }
    )
