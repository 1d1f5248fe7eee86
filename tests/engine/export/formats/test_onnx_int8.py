"""8-bit ONNX files of tiny networks: what is quantised, what is not, and that they answer like the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import export
from engine.export.calibration import CalibrationImages
from engine.export.formats import onnx as writer
from engine.export.formats.onnx_int8 import head_nodes, quantised_share
from engine.export.network import metadata_of
from engine.export.request import ExportRequest
from engine.export.verify import expected, photographs, verify
from models.backends import DetectMultiBackend
from models.backends.onnx import OnnxRuntime
from models.loading import load_model
from tests.engine.export.samples import PHOTOGRAPHS
from utils.errors import UserError

Make = Callable[..., Path]
SIZE = (64, 96)
CPU = torch.device("cpu")
NMS = {"max_det": 20, "conf_thres": 0.1, "iou_thres": 0.5, "agnostic": False}


def request_for(weights: Path, layout: str, *, opset: int | None = None, **values: Any) -> ExportRequest:
    model: Any = load_model(weights)
    flags = {flag: values.pop(flag, False) for flag in ("simplify", "dynamo")}
    fields: dict[str, Any] = {"imgsz": list(SIZE), "batch": 1, "dynamic": False, "half": False, "int8": True}
    fields |= NMS if layout == "nms" else {}
    metadata = metadata_of(model, layout=layout, **(fields | values))
    return ExportRequest(model, metadata, CPU, opset, calibration=CalibrationImages(PHOTOGRAPHS, SIZE), **flags)


CASES = [
    ("Detect", "decoded", {}),
    ("Detect", "decoded", {"dynamic": True}),
    pytest.param("Detect", "decoded", {"dynamo": True}, marks=pytest.mark.slow),
    ("Detect", "raw", {"batch": 2, "opset": 13}),
    ("Segment", "separate", {"simplify": True}),
    ("Segment", "raw", {}),
    ("Segment", "nms", {"dynamic": True, "simplify": True}),
]


@pytest.mark.parametrize(("head", "layout", "values"), CASES)
def test_a_file(head: str, layout: str, values: dict[str, Any], make_weights: Make, tmp_path: Path) -> None:
    request = request_for(make_weights(head=head), layout, **values)
    path = tmp_path / "best.onnx"
    writer.check(request)
    writer.write(request, path)
    graph = onnx.load(str(path)).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    words = writer.inspect(request, path)[-1]
    assert words == f"{len(convolutions) - 2} of {len(convolutions)} convolutions in 8 bits, by 2 images"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.onnx", "best.pt"]
    runtime = OnnxRuntime(path, CPU)
    assert runtime.metadata == request.metadata
    verify(runtime, request.metadata, request.model)
    if layout != "nms":
        images = photographs(SIZE)[: request.metadata.batch]
        got, want = runtime(images), expected(request.model, images, request.metadata)
        for name, value in want.items():
            assert float((got[name] - value).abs().mean()) < 0.05 * float(value.max() - value.min())


def test_weights_have_a_scale_for_each_channel_and_the_head_has_none(make_weights: Make, tmp_path: Path) -> None:
    request = request_for(make_weights(), "decoded")
    writer.write(request, tmp_path / "best.onnx")
    graph = onnx.load(str(tmp_path / "best.onnx")).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    source = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]

    eight, scale, zero = (values[name] for name in source[convolutions[0].input[1]].input)
    weight = request.model.model[0].conv.weight.numpy()
    assert (eight.dtype, scale.shape) == (np.int8, (len(weight),))
    assert not zero.any()
    assert np.abs(eight).max() <= 64  # seven bits
    steps = scale.reshape(-1, 1, 1, 1)
    assert np.abs(eight * steps - weight).max() <= scale.max() * 0.501
    np.testing.assert_allclose(scale, np.abs(weight).max((1, 2, 3)) / 64, rtol=0.02)

    own = [conv.weight.numpy() for conv in request.model.head.m]
    kept = [values[node.input[1]] for node in convolutions if node.input[1] in values]
    assert len(kept) == len(own)
    for got, want in zip(kept, own, strict=True):
        np.testing.assert_array_equal(got, want)

    behind = {name for node in convolutions if node.input[1] in values for name in node.output}
    for node in graph.node:  # they are in order
        if behind & set(node.input):
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Conv")
            behind |= set(node.output)
    assert "output0" in behind


def test_the_head_is_found_from_the_outputs() -> None:
    make = helper.make_node
    nodes = [
        make("Conv", ["images", "w"], ["a"], name="backbone"),
        make("Conv", ["a", "w"], ["map0"], name="head0"),
        make("Conv", ["a", "w"], ["map1"], name="head1"),
        make("Conv", ["a", "w"], ["prototypes"], name="masks"),
        make("Sigmoid", ["map0"], ["p"]),
        make("Reshape", ["map1", "shape"], ["q"], name="reshape"),
        make("Concat", ["p", "q", "p"], ["output0"], name="all"),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    assert head_nodes(graph, ["output0"]) == (["head0", "head1"], ["all", "node4", "reshape"])
    assert head_nodes(graph, ["map0", "map1"]) == (["head0", "head1"], [])  # the raw layout
    assert quantised_share(graph) == (0, 4)


def test_refusals(make_weights: Make, tmp_path: Path) -> None:
    request = request_for(make_weights(), "decoded", opset=12)
    with pytest.raises(UserError, match=r"--opset 12: --int8 needs 13 or more"):
        writer.check(request)
    request = replace(request, opset=None)
    plain = replace(request, metadata=replace(request.metadata, int8=False))
    writer.write(plain, tmp_path / "best.onnx")
    with pytest.raises(UserError, match="nothing in it is quantised"):
        writer.inspect(request, tmp_path / "best.onnx")
    writer.write(request, tmp_path / "best.onnx")
    with pytest.raises(UserError, match="--dnn takes float32 files"):
        DetectMultiBackend(tmp_path / "best.onnx", dnn=True)


def test_the_command_measures_what_eight_bits_cost(
    make_weights: Make, tiny_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_weights(names=("light", "dark"))
    monkeypatch.chdir(weights.parent)
    flags = {"include": ["onnx"], "weights": str(weights), "int8": True, "data": str(tiny_data), "imgsz": 64}
    assert export.run(**flags) == [weights.with_suffix(".onnx")]
    said, warned = capsys.readouterr()
    assert warned.count("this network has SiLU") == 1
    assert "convolutions in 8 bits, by 12 images, runs" in said
    assert [line.split()[0] for line in said.splitlines()[-3:]] == ["P", "best.pt", "best.onnx"]
    assert sorted(p.name for p in weights.parent.iterdir()) == ["best.onnx", "best.onnx.json", "best.pt"]

    before = weights.with_suffix(".onnx").read_bytes()
    broken = weights.parent / "broken.png"
    broken.write_bytes(b"no picture")
    monkeypatch.setattr(
        CalibrationImages, "of", lambda data, size: CalibrationImages((*PHOTOGRAPHS, str(broken)), size)
    )
    with pytest.raises(UserError, match=r"broken\.png"):
        export.run(**flags)
    broken.unlink()
    assert sorted(p.name for p in weights.parent.iterdir()) == ["best.onnx", "best.onnx.json", "best.pt"]
    assert weights.with_suffix(".onnx").read_bytes() == before
