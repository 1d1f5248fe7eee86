"""OpenVINO folders, run by OpenVINO itself, against what the networks say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from engine.export.calibration import CalibrationImages
from engine.export.formats import openvino
from engine.export.request import ExportRequest
from models.export_metadata import ExportMetadata
from tests.engine.export.samples import LAYOUTS, SIZE, answer, assert_close, fused, noise, request_for, threshold_for
from utils.errors import UserError
from utils.files import ROOT

ov = pytest.importorskip("openvino", reason="pip install -r requirements-export.txt")


def written(request: ExportRequest, folder: Path) -> Path:
    """The folder of `request`; nothing but it lies in `folder` then."""
    path = folder / "best_openvino_model"
    openvino.check(request)
    openvino.write(request, path)
    assert [p.name for p in folder.iterdir()] == [path.name]
    assert sorted(p.name for p in path.iterdir()) == ["best.bin", "best.xml"]
    return path


def answers(path: Path, images: Tensor, metadata: ExportMetadata) -> list[Tensor]:
    compiled = ov.Core().compile_model(str(path / "best.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"images": images.numpy()})
    return [torch.from_numpy(found[name].copy()) for name in metadata.outputs]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("head", "dynamic"), [("Detect", False), ("Segment", True)])
def test_layouts(tmp_path: Path, head: str, layout: str, dynamic: bool) -> None:
    model, images = fused(head), noise(2)
    chosen: dict[str, Any] = {"conf_thres": threshold_for(model, images, 40)} if layout == "nms" else {}
    request = request_for(model, layout, batch=2, dynamic=dynamic, **chosen)
    path = written(request, tmp_path)
    assert_close(answers(path, images, request.metadata), answer(model, images, request.metadata))
    if dynamic:
        images = noise(3, (32, 160))
        assert_close(answers(path, images, request.metadata), answer(model, images, request.metadata))
    (words,) = openvino.inspect(request, path)
    assert int(words.removesuffix(" operations")) > 20


def test_the_metadata_comes_back_whatever_the_names_are(tmp_path: Path) -> None:
    model = fused()
    model.names = {0: 'quo"te', 1: "<&>'", 2: "Ёлка"}
    request = request_for(model)
    network = ov.Core().read_model(str(written(request, tmp_path) / "best.xml"))
    assert ExportMetadata.from_json(network.get_rt_info(["yolov5"]).astype(str)) == request.metadata


def test_half_precision_is_that_of_the_weights_only(tmp_path: Path) -> None:
    model, images = fused(), noise(1)
    sizes = {}
    for half in (False, True):
        request = request_for(model, half=half)
        (folder := tmp_path / str(half)).mkdir()
        path = written(replace(request, model=fused().half()) if half else request, folder)
        sizes[half] = (path / "best.bin").stat().st_size
        network = ov.Core().read_model(str(path / "best.xml"))
        kinds = {value.get_element_type().get_type_name() for value in (*network.inputs, *network.outputs)}
        assert kinds == {"f32"}
    assert sizes[True] < 0.6 * sizes[False]
    (got,), (want,) = answers(path, images, request.metadata), answer(model, images, request.metadata)
    assert 1e-5 < (got[..., 4:] - want[..., 4:]).abs().max() < 1e-2
    torch.testing.assert_close(got[..., :4], want[..., :4], rtol=0.02, atol=0.1)


def pictures(folder: Path, count: int) -> CalibrationImages:
    files = []
    for i in range(count):
        files.append(str(folder / f"{i}.png"))
        cv2.imwrite(files[-1], (noise(1)[0].permute(1, 2, 0).numpy()[..., ::-1] * 255).astype(np.uint8))
    return CalibrationImages(tuple(files), SIZE)


@pytest.mark.parametrize(("head", "layout", "dynamic"), [("Detect", "decoded", False), ("Segment", "separate", True)])
def test_8_bits(tmp_path: Path, head: str, layout: str, dynamic: bool) -> None:
    pytest.importorskip("nncf", reason="pip install -r requirements-export.txt")
    model = fused(head)
    request = request_for(model, layout, batch=2, dynamic=dynamic, int8=True)
    (tmp_path / "pictures").mkdir()
    request = replace(request, calibration=pictures(tmp_path / "pictures", 12))
    (folder := tmp_path / "export").mkdir()
    path = written(request, folder)
    assert openvino.inspect(request, path)[1] == "scales from 12 images"

    network = ov.Core().read_model(str(path / "best.xml"))
    convolutions = [n for n in network.get_ops() if n.get_type_name().endswith("Convolution")]
    plain = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == len(plain)
    for node in convolutions:  # weights of 8 bits, with a scale a channel
        scaled = node.input_value(1).get_node()
        assert scaled.get_type_name() == "Multiply"
        whole, scale = (value.get_node() for value in scaled.input_values())
        assert whole.input_value(0).get_element_type().get_type_name() == "i8"
        assert scale.get_output_shape(0)[1:] == [1] * (len(scaled.get_output_shape(0)) - 1)
        assert scale.get_output_shape(0)[0] == scaled.get_output_shape(0)[0] > 1
    for result in network.get_results():  # the decoding in float
        waiting = [result]
        while waiting:
            node = waiting.pop()
            assert node.get_type_name() != "FakeQuantize"
            if not node.get_type_name().endswith("Convolution"):
                waiting += [value.get_node() for value in node.input_values()]

    images = noise(2)
    for got, want in zip(answers(path, images, request.metadata), answer(model, images, request.metadata), strict=True):
        assert 1e-9 < (got - want).pow(2).mean() / want.var() < 0.25  # random weights lose more than trained ones


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fused()
    request = request_for(model)
    path = written(request, tmp_path)
    with pytest.raises(UserError, match="^--int8 was asked for, but nothing in it is quantised$"):
        openvino.inspect(replace(request, metadata=replace(request.metadata, int8=True)), path)
    with pytest.raises(UserError, match="--opset 3"):
        openvino.check(replace(request, opset=3))
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UserError, match="^--int8 needs nncf: pip install nncf$"):
        openvino.check(replace(request, metadata=replace(request.metadata, int8=True)))


def test_its_use_is_reported_to_nobody() -> None:
    """The package that sends events is not loaded, though openvino asks for it."""
    code = (
        "import sys; from pathlib import Path; from models.backends.openvino import openvino; "
        "openvino(Path('x')).convert_model; print([m for m in sys.modules if m.startswith('openvino_tel')], "
        "sys.modules['openvino_telemetry'], 'openvino.tools.ovc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "['openvino_telemetry'] None True"
