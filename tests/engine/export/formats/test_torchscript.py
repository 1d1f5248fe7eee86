"""TorchScript files, loaded by PyTorch alone, against the model itself."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.export.formats import torchscript
from engine.export.request import ExportRequest
from models.backends.torchscript import TorchScript
from models.export_metadata import KEY, ExportMetadata
from tests.engine.export.samples import LAYOUTS, SIZE, answer, assert_close, fused, noise, request_for, threshold_for


def written(request: ExportRequest, folder: Path) -> Path:
    path = folder / "m.torchscript"
    torchscript.check(request)
    torchscript.write(request, path)
    assert torchscript.inspect(request, path) == ["to be run with --trust, because it is a program"]
    return path


def load(path: Path, **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path), **more)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_layouts(model: Any, layout: str, dynamic: bool, tmp_path: Path) -> None:
    images = noise(3)
    chosen = {"conf_thres": threshold_for(model, images, 60)} if layout == "nms" else {}
    request = request_for(model, layout, batch=1 if dynamic else 3, dynamic=dynamic, **chosen)
    module = load(written(request, tmp_path))
    assert_close(module(images), answer(model, images, request.metadata))
    for batch, size in ((1, (320, 320)), (3, (256, 416)), (1, (640, 640)), (2, (32, 32))) if dynamic else ():
        images = noise(batch, size)
        assert_close(module(images), answer(model, images, request.metadata))


def nodes(module: Any) -> Iterator[Any]:
    """The operations of all methods of all modules of a file, those of its functions and inner blocks too."""

    def within(block: Any) -> Iterator[Any]:
        for node in block.nodes():
            yield node
            for inner in node.blocks():
                yield from within(inner)

    for part in module.modules():
        for name in part._c._method_names():
            graph = part._c._get_method(name).graph.copy()
            torch._C._jit_pass_inline(graph)
            yield from within(graph)


FACTORIES = {f"aten::{name}" for name in ("arange", "ones", "zeros", "full", "empty", "tensor", "linspace", "eye")}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
def test_a_file_knows_no_device(model: Any, layout: str, dynamic: bool, agnostic: bool, tmp_path: Path) -> None:
    """So it runs on a GPU if it was made on a CPU, and the other way round: what it makes follows the input."""
    if agnostic and layout != "nms":
        pytest.skip("only suppression asks whether classes matter")
    chosen = {"agnostic": agnostic} if layout == "nms" else {}
    module = load(written(request_for(model, layout, dynamic=dynamic, **chosen), tmp_path))
    found = list(nodes(module))
    assert not [node for node in found if "Device = prim::Constant" in str(node)]
    for node in found:
        if node.kind() in FACTORIES:
            (device,) = (value for value in node.inputs() if value.type().kind() == "DeviceObjType")
            assert device.node().kind() == "prim::device", node
    made_on_the_way = any(node.kind() in FACTORIES for node in found)
    assert made_on_the_way == (layout == "nms" or (dynamic and layout != "raw"))


def test_it_is_the_same_through_our_runtime(model: Any, tmp_path: Path) -> None:
    """With growing batches of any size."""
    request = request_for(model, "nms", dynamic=True, conf_thres=threshold_for(model, noise(3), 60))
    runtime = TorchScript(written(request, tmp_path), torch.device("cpu"))
    for batch, size in ((1, SIZE), (3, (256, 416))):
        images = noise(batch, size)
        assert_close(list(runtime(images).values()), answer(model, images, request.metadata))


@pytest.mark.parametrize("agnostic", [False, True])
def test_suppression(agnostic: bool, tmp_path: Path) -> None:
    model = fused()
    images = noise(3)
    counts = []
    for max_det, iou, conf in ((300, 0.45, threshold_for(model, images, 60)), (7, 0.2, 0.001), (300, 0.45, 0.9999)):
        chosen = {"max_det": max_det, "iou_thres": iou, "conf_thres": conf, "agnostic": agnostic}
        request = request_for(model, "nms", batch=3, **chosen)
        expected = answer(model, images, request.metadata)
        assert_close(load(written(request, tmp_path))(images), expected)
        counts.append(expected[1].tolist())
    assert all(1 < n < 60 for n in counts[0])
    assert counts[1:] == [[7, 7, 7], [0, 0, 0]]


def test_the_file_says_what_it_is(model: Any, tmp_path: Path) -> None:
    request = request_for(model, batch=2)
    extra = {f"{KEY}.json": "", "config.txt": ""}
    load(written(request, tmp_path), _extra_files=extra)
    assert ExportMetadata.from_json(extra[f"{KEY}.json"]) == request.metadata
    assert json.loads(extra["config.txt"]) == {"shape": [2, 3, *SIZE], "stride": 8, "names": ["0", "1", "2"]}
