"""What a format cannot do is refused before anything is computed, in one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from tests.engine.export.samples import lively, request_for
from utils.errors import UserError


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("coreml", {"dynamic": True}, "--dynamic: Core ML takes images of one size.*; leave --"),
        ("coreml", {"layout": "nms"}, "--nms: a Core ML package holds no suppression.*; leave --"),
        ("coreml", {"batch": 4}, "--batch-size 4: Core ML takes one image at a time.*; leave --"),
        ("executorch", {"dynamic": True}, "--dynamic: ExecuTorch files are of one size"),
        ("executorch", {"half": True}, "--half: ExecuTorch files are written in float32"),
        ("executorch", {"int8": True}, "--int8: in ExecuTorch files boxes must be decoded outside; add --raw-heads"),
        ("executorch", {"layout": "nms"}, "--nms: ExecuTorch files hold no suppression"),
        ("ncnn", {"int8": True}, "--int8: ncnn quantises with tools of its own.*; leave --"),
        ("ncnn", {"dynamic": True}, "--dynamic: the decoding of an ncnn file is made for one size.*; leave --"),
        ("ncnn", {"layout": "nms"}, "--nms: ncnn has no suppression.*; leave --"),
        ("ncnn", {"batch": 4}, "--batch-size 4: ncnn takes one image at a time.*; leave --"),
        ("onnx", {"opset": 3}, "--opset 3: without --dynamo it can be 12 to 20$"),
        ("onnx", {"opset": 21}, "--opset 21: without --dynamo it can be 12 to 20$"),
        ("onnx", {"opset": 12, "dynamo": True}, "--opset 12: with --dynamo it can be 17 to 23$"),
        ("onnx", {"layout": "nms", "dynamo": True}, "--dynamo cannot hold --nms; leave --dynamo out$"),
        ("tflite", {"dynamic": True}, "--dynamic: TFLite files are of one size"),
        ("tflite", {"half": True}, "--half: TFLite files are written in float32"),
        ("tflite", {"int8": True}, "--int8: in TFLite files boxes must be decoded outside; add --raw-heads"),
        ("tflite", {"layout": "separate", "int8": True}, ".*add --raw-heads"),
        ("tflite", {"layout": "nms"}, "--nms: TFLite files hold no suppression"),
        ("torchscript", {"half": True}, "--half: TorchScript of half precision is made and run on a GPU"),
        ("torchscript", {"int8": True}, "--int8: TorchScript holds no 8-bit weights"),
    ],
    ids=str,
)
def test_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}") as caught:
        import_module(f"engine.export.formats.{name}").check(request_for(lively(), **values))
    assert "\n" not in str(caught.value)
