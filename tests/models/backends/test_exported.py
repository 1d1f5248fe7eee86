"""Exported files of tiny networks, run by their own libraries, against the network itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import load as load_proto
from onnx import save as save_proto

import detect
import val
from engine.export.formats import onnx, torchscript
from engine.export.network import metadata_of
from engine.export.request import ExportRequest
from models.backends import DetectMultiBackend
from models.backends.tflite import dequantised, quantised
from models.export_metadata import ExportMetadata
from models.loading import load_model
from utils.errors import UserError

Make = Callable[..., Path]
SIZE = (64, 96)


def metadata_for(model: Any, **values: Any) -> ExportMetadata:
    fields: dict[str, Any] = {
        "imgsz": list(SIZE), "batch": 2, "dynamic": False, "half": False, "int8": False, "layout": "decoded",
    }  # fmt: skip
    return metadata_of(model, **(fields | values))


def write(path: Path, model: Any, metadata: ExportMetadata) -> Path:
    """`model` as .torchscript or .onnx, with `metadata` inside."""
    kind = {".torchscript": torchscript, ".onnx": onnx}[path.suffix]
    kind.write(ExportRequest(model, metadata, torch.device("cpu")), path)
    return path


def without_metadata(path: Path) -> Path:
    """The .onnx as another project would write it."""
    proto = load_proto(str(path))
    del proto.metadata_props[:]
    save_proto(proto, str(path))
    return path


def close(got: Any, expected: Any) -> None:
    for a, b in zip(got, expected[: len(got) - 1], strict=False):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    assert got[-1] is None


@pytest.fixture(params=["Detect", "Segment"])
def model(request: pytest.FixtureRequest, make_weights: Make) -> Any:
    return load_model(make_weights(head=request.param))


@pytest.mark.parametrize("suffix", ["torchscript", "onnx"])
def test_a_file_of_fixed_size_and_batch(model: Any, tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"best.{suffix}", model, metadata_for(model))
    backend = DetectMultiBackend(path, trust=suffix == "torchscript")
    assert (backend.pt, backend.dynamic, backend.any_size, backend.fp16) == (False, False, False, False)
    assert (backend.names, backend.stride, backend.task) == (model.names, 32, model.task)
    for batch in (1, 2, 5):  # of two at a time: filled up, whole, and split
        images = torch.rand(batch, 3, *SIZE)
        with torch.inference_mode():
            close(backend(images), model(images))
    message = r"best\.\w+ takes images of 64×96 only, not 96×96: give --imgsz 64 96, or export .* --imgsz 96 or --dyn"
    with pytest.raises(UserError, match=message):
        backend(torch.rand(1, 3, 96, 96))
    with pytest.raises(UserError, match="--augment needs the checkpoint"):
        backend(torch.rand(1, 3, *SIZE), augment=True)


def test_a_dynamic_onnx_takes_any_size_and_batch(model: Any, tmp_path: Path) -> None:
    backend = DetectMultiBackend(write(tmp_path / "best.onnx", model, metadata_for(model, dynamic=True)))
    assert backend.any_size
    for batch, size in ((1, (32, 32)), (3, (64, 128))):
        images = torch.rand(batch, 3, *size)
        with torch.inference_mode():
            close(backend(images), model(images))


def test_opencv_runs_onnx(model: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "best.onnx", model, metadata_for(model))
    images = torch.rand(3, 3, *SIZE)
    with torch.inference_mode():
        close(DetectMultiBackend(path, dnn=True)(images), model(images))
    with pytest.raises(UserError, match=r"--dnn is for one \.onnx file, not .*best\.pt"):
        DetectMultiBackend(tmp_path / "best.pt", dnn=True)
    suppressing = replace(metadata_for(model), layout="nms", max_det=5, conf_thres=0.2, iou_thres=0.5, agnostic=False)
    Path(f"{path}.json").write_text(suppressing.to_json())
    with pytest.raises(UserError, match="--dnn cannot run suppression"):
        DetectMultiBackend(path, dnn=True)


def test_openvino_folder(model: Any, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino", reason="pip install -r requirements-export.txt")
    path = write(tmp_path / "best.onnx", model, metadata_for(model, batch=1))
    folder = tmp_path / "best_openvino_model"
    ov.save_model(ov.convert_model(str(path)), str(folder / "best.xml"), compress_to_fp16=False)
    with pytest.raises(UserError, match="best.xml does not say how it was exported"):
        DetectMultiBackend(folder)
    Path(f"{folder}.json").write_text(metadata_for(model, batch=1).to_json())
    images = torch.rand(2, 3, *SIZE)
    with torch.inference_mode():
        for weights in (folder, folder / "best.xml"):
            close(DetectMultiBackend(weights)(images), model(images))
    (folder / "best.xml").write_text("<net")
    with pytest.raises(UserError, match="is no OpenVINO file, or a broken one"):
        DetectMultiBackend(folder)


def test_ncnn_folder(tmp_path: Path, make_weights: Make) -> None:
    """A network written by hand in ncnn's own text format: a head's map is the image itself."""
    pytest.importorskip("ncnn", reason="pip install -r requirements-export.txt")
    model = load_model(make_weights())
    folder = tmp_path / "best_ncnn_model"
    folder.mkdir()
    lines = ["7767517", "3 4", "Input in 0 1 in0", "Split two 1 2 in0 a out1", "ReLU twice 1 1 a out0 0=0.5"]
    (folder / "best.param").write_text("\n".join([*lines, ""]))
    (folder / "best.bin").write_bytes(b"")
    Path(f"{folder}.json").write_text(replace(metadata_for(model, batch=1), layout="raw").to_json())
    images = torch.rand(2, 3, *SIZE) - 0.5
    answer = DetectMultiBackend(folder).model(images)
    torch.testing.assert_close(answer["raw0"], torch.nn.functional.leaky_relu(images, 0.5))
    assert torch.equal(answer["raw1"], images)
    (folder / "best.param").write_text("no network")
    with pytest.raises(UserError, match=r"best\.param is no ncnn file, or a broken one"):
        DetectMultiBackend(folder)


def test_half_precision_is_declined_by_files_of_float32(
    tmp_path: Path, make_weights: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(make_weights())
    path = write(tmp_path / "best.torchscript", model, metadata_for(model))
    assert not DetectMultiBackend(path, fp16=True, trust=True).fp16
    assert "computes in float32; for half precision export the checkpoint with --half" in capsys.readouterr().err


def test_files_that_are_broken_or_not_ours(tmp_path: Path, make_weights: Make) -> None:
    model = load_model(make_weights())
    good = write(tmp_path / "best.onnx", model, metadata_for(model)).read_bytes()
    for name, content, message in (
        ("cut.onnx", good[: len(good) // 2], r"cut\.onnx is no ONNX file, or a broken one: "),
        ("text.onnx", b"hello", r"text\.onnx is no ONNX file, or a broken one: "),
        ("cut.torchscript", b"PK\x03\x04cut", r"cut\.torchscript is no TorchScript file, or a broken one: "),
        ("x.tflite", b"TFL3", r"x\.tflite does not say how it was exported .* there is no .*x\.tflite\.json"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            DetectMultiBackend(tmp_path / name, trust=True)
        assert "\n" not in str(caught.value)
    foreign = without_metadata(write(tmp_path / "foreign.onnx", model, metadata_for(model)))
    with pytest.raises(UserError, match=r"foreign\.onnx does not say .* no metadata 'yolov5'"):
        DetectMultiBackend(foreign)
    Path(f"{foreign}.json").write_text(json.dumps({"stride": 32, "names": ["a"]}))
    with pytest.raises(UserError, match=r"foreign\.onnx\.json: not exported by this project"):
        DetectMultiBackend(foreign)
    with pytest.raises(UserError, match="an exported file cannot be part of an ensemble; give this file alone"):
        DetectMultiBackend([tmp_path / "best.onnx", tmp_path / "best.onnx"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found a folder with none of these"):
        DetectMultiBackend(tmp_path / "empty")


def test_a_missing_library_is_one_line_that_names_it(
    tmp_path: Path, make_weights: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(make_weights())
    for name, module, package in (
        ("a.onnx", "onnxruntime", "onnxruntime"),
        ("a.xml", "openvino", "openvino"),
        ("a.param", "ncnn", "ncnn"),
        ("a.tflite", "ai_edge_litert.interpreter", "ai-edge-litert"),
        ("a.pte", "executorch.runtime", "executorch"),
    ):
        (tmp_path / name).write_bytes(b"")
        Path(tmp_path / f"{name}.json").write_text(metadata_for(model).to_json())
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(UserError, match=rf"needs {package}, which cannot be imported .*: pip install {package}$"):
            DetectMultiBackend(tmp_path / name)
    (tmp_path / "a.mlpackage").mkdir()
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(UserError, match=r"a\.mlpackage runs only on macOS"):
        DetectMultiBackend(tmp_path / "a.mlpackage")


def test_whole_numbers_of_a_quantised_tensor() -> None:
    details = {"dtype": np.int8, "quantization": (0.5, -3)}
    values = np.array([0.0, 0.74, -10.0, 1000.0], np.float32)
    steps = quantised(values, details)
    assert steps.tolist() == [-3, -2, -23, 127]  # 0.74 / 0.5 = 1.48 → 1; the last is more than a byte holds
    assert dequantised(steps, details).tolist() == [0.0, 0.5, -10.0, 65.0]


def test_commands_run_exported_files(
    tmp_path: Path, make_weights: Make, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """detect.py and val.py give for an .onnx what they give for its checkpoint, at the one size that fits both."""
    weights = make_weights(names=("light", "dark"))
    model = load_model(weights)
    static = write(tmp_path / "static.onnx", model, metadata_for(model, imgsz=[96, 96], batch=4))
    dynamic = write(tmp_path / "dynamic.onnx", model, metadata_for(model, dynamic=True))
    common = {"imgsz": 96, "device": "cpu", "project": str(tmp_path / "runs")}
    found = {}
    for path in (weights, static, dynamic):
        validated = val.run(weights=str(path), data=str(tiny_data), workers=0, batch_size=3, no_plots=True, **common)
        pictures = tiny_data.parent / "images" / "val"
        # no rounding decides: the confidences nearest to the threshold are 0.0009 away, and no box suppresses another
        summary = detect.run(
            weights=str(path), source=str(pictures), nosave=True, conf_thres=0.5978, iou_thres=1.0, **common
        )
        found[path] = validated.metrics[:4], summary.detections
    assert sum(found[weights][1].values()) > 0
    assert found[static][1] == found[dynamic][1] == found[weights][1]
    assert found[dynamic][0] == pytest.approx(found[weights][0], abs=0.002)
    for command, flags in (
        (val, {"data": str(tiny_data), "workers": 0}),
        (detect, {"source": str(tiny_data.parent / "images" / "val")}),
    ):
        with pytest.raises(UserError, match=r"static\.onnx takes images of 96×96 only, not 64×64: give --imgsz 96, or"):
            command.run(**{**common, **flags, "imgsz": 64, "name": "never"}, weights=str(static))
    assert not (tmp_path / "runs" / "never").exists()
