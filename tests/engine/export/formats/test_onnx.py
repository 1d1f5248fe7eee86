"""ONNX files, run by plain ONNX Runtime, against the model itself."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import onnx as onnx_package
import onnxruntime
import pytest
import torch
from torch import Tensor

from engine.export.formats import onnx
from engine.export.request import ExportRequest
from engine.export.verify import verify
from models.backends.multi import runtime_for
from models.export_metadata import KEY, ExportMetadata
from models.registry import BLOCKS
from models.yolo import model_of
from tests.engine.export.samples import (
    LAYOUTS,
    SIZE,
    answer,
    assert_close,
    fused,
    lively,
    noise,
    request_for,
    threshold_for,
)
from tests.models.test_fusion import CASES
from utils.errors import UserError


def written(request: ExportRequest, folder: Path) -> Path:
    """The file of `request`, after every check that an export makes of it."""
    path = folder / "m.onnx"
    onnx.check(request)
    onnx.write(request, path)
    onnx.inspect(request, path)
    return path


def run(path: Path, images: Tensor) -> list[Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})


def kinds(path: Path) -> Counter[str]:
    """How many nodes of each kind the file has."""
    return Counter(node.op_type for node in onnx_package.load(str(path)).graph.node)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fixed_size_and_batch(model: Any, layout: str, tmp_path: Path) -> None:
    images = noise(3)
    chosen = {"conf_thres": threshold_for(model, images, 60)} if layout == "nms" else {}
    request = request_for(model, layout, batch=3, **chosen)
    path = written(request, tmp_path)
    assert_close(run(path, images), answer(model, images, request.metadata))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_size_and_batch(model: Any, layout: str, tmp_path: Path) -> None:
    images = noise(3)
    chosen = {"conf_thres": threshold_for(model, images, 60)} if layout == "nms" else {}
    request = request_for(model, layout, dynamic=True, **chosen)
    path = written(request, tmp_path)
    for batch, size in ((3, SIZE), (1, (320, 320)), (3, (256, 416)), (1, (640, 640)), (2, (32, 32))):
        images = noise(batch, size)
        expected = answer(model, images, request.metadata)
        assert_close(run(path, images), expected)
        if layout == "nms" and size == (640, 640):
            assert expected[1].tolist() == [20], "as many as there may be"


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_suppression(dynamic: bool, agnostic: bool, tmp_path: Path) -> None:
    """Boxes of different classes suppress each other or not; `max_det` reached or not; no detection at all."""
    model = fused()
    images = noise(3)
    counts = []
    for max_det, iou, conf in ((300, 0.45, threshold_for(model, images, 60)), (7, 0.2, 0.001), (300, 0.45, 0.9999)):
        chosen = {"max_det": max_det, "iou_thres": iou, "conf_thres": conf, "agnostic": agnostic}
        request = request_for(model, "nms", batch=3, dynamic=dynamic, **chosen)
        expected = answer(model, images, request.metadata)
        assert_close(run(written(request, tmp_path), images), expected)
        counts.append(expected[1].tolist())
    assert all(1 < n < 60 for n in counts[0])
    assert counts[1:] == [[7, 7, 7], [0, 0, 0]]


def test_the_file_says_what_goes_in_and_out(model: Any, tmp_path: Path) -> None:
    masked = model.task == "segment"
    request = request_for(model, "nms", dynamic=True)
    path = written(request, tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    assert (entry.name, entry.type, entry.shape) == ("images", "tensor(float)", ["batch", 3, "height", "width"])
    shapes = {y.name: y.shape for y in session.get_outputs()}
    expected: dict[str, Any] = {"detections": ["batch", 20, 6 + 4 * masked], "count": ["batch"]}
    if masked:
        expected["prototypes"] = ["batch", 4, "mask_height", "mask_width"]
    assert shapes == expected
    properties = session.get_modelmeta().custom_metadata_map
    assert ExportMetadata.from_json(properties[KEY]) == request.metadata
    assert (properties["stride"], properties["names"]) == ("8", "{0: '0', 1: '1', 2: '2'}")


def test_fixed_sizes_are_numbers(model: Any, tmp_path: Path) -> None:
    path = written(request_for(model, "separate", batch=2), tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [2, 3, *SIZE]
    assert all(isinstance(n, int) for y in session.get_outputs() for n in y.shape)


@pytest.mark.parametrize("opset", onnx.OPSETS[False])
def test_every_opset(opset: int, tmp_path: Path) -> None:
    model = fused()
    images = noise(1)
    request = request_for(model, "nms", opset=opset, dynamic=True, conf_thres=threshold_for(model, images, 20))
    path = written(request, tmp_path)
    proto = onnx_package.load(str(path))
    onnx_package.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    assert_close(run(path, images), answer(model, images, request.metadata))


def test_another_opset_than_asked_for_is_an_error(tmp_path: Path) -> None:
    model = lively().fuse()
    path = written(request_for(model, opset=13), tmp_path)
    with pytest.raises(UserError, match="--opset 17 was asked for, but the exporter wrote 13; give --opset 13"):
        onnx.inspect(request_for(model, opset=17), path)


@pytest.mark.parametrize("cfg", ["yolov5n_RepVGG.yaml", "yolov5n_MobileNetv2.yaml"])
def test_norms_are_fused_and_relu6_is_clip(cfg: str, tmp_path: Path) -> None:
    model = model_of(cfg).eval().fuse().requires_grad_(False)
    found = kinds(written(request_for(model, imgsz=[64, 64]), tmp_path))
    assert found["BatchNormalization"] == 0
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    assert found["Conv"] == convolutions
    sixes = sum(isinstance(m, torch.nn.ReLU6) for _, m in model.named_modules(remove_duplicate=False))
    assert found["Clip"] == sixes
    assert (sixes > 20) == ("MobileNetv2" in cfg)


def test_simplified_files_are_smaller_and_answer_the_same(model: Any, tmp_path: Path) -> None:
    images = noise(2)
    layout = "decoded" if model.task == "detect" else "nms"
    chosen = {"conf_thres": threshold_for(model, images, 30)} if layout == "nms" else {}
    plain = sum(kinds(written(request_for(model, layout, dynamic=True, **chosen), tmp_path)).values())
    request = request_for(model, layout, dynamic=True, simplify=True, **chosen)
    path = written(request, tmp_path)
    assert_close(run(path, images), answer(model, images, request.metadata))
    assert sum(kinds(path).values()) < 0.7 * plain


def test_half_precision_runs_on_the_cpu(model: Any, tmp_path: Path) -> None:
    """Confidences to a hundredth; boxes to a part of a pixel where there may be something."""
    images = noise(1)
    for layout in ("decoded", "raw", "nms"):
        request = request_for(model, layout, half=True)
        request = ExportRequest(copy.deepcopy(model).half(), request.metadata, request.device)
        path = written(request, tmp_path)
        graph = onnx_package.load(str(path)).graph
        weights = {node.input[1] for node in graph.node if node.op_type == "Conv"}
        stored = [t.data_type for t in graph.initializer if t.name in weights]
        assert stored == [onnx_package.TensorProto.FLOAT16] * len(weights) != []
        runtime = runtime_for(path)
        assert runtime is not None
        verify(runtime(path, torch.device("cpu")), request.metadata, model)
        if layout == "decoded":
            got = torch.from_numpy(run(path, images.half())[0])
            assert got.dtype == torch.float32  # decoded there
            expected = answer(model, images, request.metadata)[0]
            sure = expected[..., 4] > 0.1
            assert sure.sum() > 5
            assert (got - expected)[..., :4][sure].abs().max() < 0.5
            assert 0 < (got - expected)[..., 4:8].abs().max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["decoded", "separate", "raw"])
@pytest.mark.parametrize(("dynamic", "opset"), [(False, 17), (True, 18), (True, 20)])
def test_the_newer_exporter(model: Any, layout: str, dynamic: bool, opset: int, tmp_path: Path) -> None:
    request = request_for(model, layout, dynamic=dynamic, opset=opset, dynamo=True, simplify=opset == 20)
    path = written(request, tmp_path)
    for batch, size in ((1, SIZE), (3, (64, 64)), (2, (320, 256)))[: 3 if dynamic else 1]:
        images = noise(batch, size)
        assert_close(run(path, images), answer(model, images, request.metadata))


@pytest.mark.slow
def test_the_newer_exporter_writes_relu6_as_clip(tmp_path: Path) -> None:
    found = kinds(written(request_for(fused(), dynamo=True), tmp_path))
    assert (found["BatchNormalization"], found["Clip"]) == (0, 2)


def test_an_opset_that_lacks_an_operation_is_one_line(tmp_path: Path) -> None:
    cfg = lively().yaml
    cfg = {**cfg, "backbone": [*cfg["backbone"][:2], [-1, 1, "C3TR", [16]]]}
    model = model_of(cfg).eval().fuse().requires_grad_(False)
    told = r"^--opset 12 is too old for this network: .*attention.* added in version 14.*$"
    with pytest.raises(UserError, match=told):
        written(request_for(model, opset=12), tmp_path)
    request = request_for(model, opset=14, dynamic=True)
    images = noise(2, (32, 32))
    assert_close(run(written(request, tmp_path), images), answer(model, images, request.metadata))


@pytest.mark.filterwarnings("ignore")  # the exporter about itself
@pytest.mark.parametrize("name", CASES)
def test_every_block(name: str, tmp_path: Path) -> None:
    """In every form, with batch, height and width that vary, at the oldest opset that can hold it."""
    for arguments in CASES[name]:
        block = BLOCKS[name].cls(*arguments).eval().requires_grad_(False)
        path = tmp_path / "block.onnx"
        torch.onnx.export(
            block, (torch.rand(1, 16, 8, 8),), str(path), dynamo=False, opset_version=14 if name == "C3TR" else 12,
            input_names=["images"], dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}},
        )  # fmt: skip
        images = torch.rand(3, 16, 16, 24)
        torch.testing.assert_close(torch.from_numpy(run(path, images)[0]), block(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("flag", "package"), [("dynamo", "onnxscript"), ("simplify", "onnxslim")])
def test_a_missing_package_is_named(flag: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=f"^--{flag} needs {package}: pip install {package}$"):
        onnx.check(request_for(lively().fuse(), **{flag: True}))
