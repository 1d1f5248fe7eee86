"""export.py: deliberate mistakes give one clear line and write nothing; its files give what their checkpoints give."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx as onnx_package
import onnxruntime
import pytest
import torch

import detect
import export
import val
from engine.export.formats import FORMATS
from engine.task import DetectionTask
from engine.validation.evaluation import Evaluation
from engine.validation.options import ValOptions
from models.loading import load_model
from tests.engine.export.samples import lively, save
from utils.cli import options_of, run_command
from utils.ops.letterbox import letterbox
from utils.ops.nms import non_max_suppression


def stop_of(words: list[str]) -> Any:
    """The exit code of the command ``python export.py`` with `words`."""
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: export.main(export.parse_opt(words)))
    return stop.value.code


MISTAKES = {
    "--include onnx --opset 3": "--opset 3: without --dynamo it can be 12 to 20",
    "--include onnx --dynamo --opset 12": "--opset 12: with --dynamo it can be 17 to 23",
    "--include onnx --dynamo --nms": "--dynamo cannot hold --nms; leave --dynamo out",
    "--include onx": "--include onx: unknown format (did you mean 'onnx'?); there are torchscript, onnx, openvino",
    "--include onnx tensorflow": "--include tensorflow: unknown format; there are torchscript, onnx",
    "--include engine": "--include engine is not written here: TensorRT builds an engine from our ONNX file",
    "--include saved_model": "--include saved_model is not written here: onnx2tf makes a TensorFlow model from our",
    "--include edgetpu": "--include edgetpu is not written here",
    "--include tfjs": "--include tfjs is not written here: a browser runs our ONNX file with onnxruntime-web",
    "--include paddle": "--include paddle is not written here",
    "--include ,": "--include names no format; there are torchscript",
    "--include torchscript --half": "--half: TorchScript of half precision is made and run on a GPU",
    "--include onnx --int8": "--int8 needs images for calibration; give --data with your data set's YAML",
    "--include onnx --int8 --data nowhere.yaml": "nowhere.yaml",
    "--include onnx --int8 --half --data x.yaml": "--int8 and --half are different precisions; give one of them",
    "--include onnx --imgsz 100": "--imgsz 100 100 is no multiple of the stride 8; give --imgsz 104 104",
    "--include onnx --imgsz 64 90": "--imgsz 64 90 is no multiple of the stride 8; give --imgsz 64 96",
    "--include onnx --imgsz 0": "--imgsz: must be 1 or more, not 0",
    "--include onnx --imgsz -64": "--imgsz: must be 1 or more, not -64",
    "--include onnx --imgsz 64 64 64": "--imgsz takes one size or height and width, both positive, not [64, 64, 64]",
    "--include onnx --imgsz big": "--imgsz: must be a whole number, not 'big'",
    "--include onnx --nms --raw-heads": "--raw-heads and --nms are different layouts of the outputs; give one of them",
    "--include onnx --nms --raw-heads --separate-heads": "--separate-heads and --raw-heads and --nms are different",
    "--include onnx --weights absent.pt": "weights 'absent.pt' not found; tried absent.pt",
    "--include onnx --weights best.onnx": "best.onnx: expected a checkpoint (.pt), found .onnx",
    "--include onnx --weights best.pt best.pt": "--weights names 2 files, but an ensemble cannot be exported",
    "--include onnx --weights cut.pt": "cut.pt",
    "--include onnx --conf-thres 1.5 --nms": "--conf-thres: must lie between 0 and 1, not 1.5",
    "--include onnx --iou-thres -0.1 --nms": "--iou-thres: must lie between 0 and 1, not -0.1",
    "--include onnx --topk-all 0 --nms": "--topk-all: must be 1 or more, not 0",
    "--include onnx --batch-size 0": "--batch-size: must be 1 or more, not 0",
    "--include onnx --device 77": "--device 77",
    "--include onnx --simplfy": "unknown argument '--simplfy' (did you mean '--simplify'?)",
    "--include onnx --keras": "--keras is not supported: this project writes TFLite from PyTorch, without TensorFlow",
    "--include onnx --workspace 4": "--workspace is not supported: TensorRT builds its engines itself",
    "--include onnx --topk-per-class 10": "--topk-per-class is not supported",
    "--include onnx --verify --no-verify": "not allowed with argument",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good checkpoint, a truncated one, and a file that was exported elsewhere."""
    monkeypatch.chdir(tmp_path)
    whole = save(lively(), tmp_path / "best.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "best.onnx").write_bytes(b"of another project")
    return tmp_path


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_one_line(words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(folder)
    capsys.readouterr()
    assert stop_of(words) in (1, 2)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1, err
    assert told in err
    assert everything_in(folder) == before
    assert not list(folder.glob(".export-*"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_clear_line(mistake: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = [] if "--weights" in mistake else ["--weights", "best.pt"]
    size = [] if "--imgsz" in mistake else ["--imgsz", "64"]
    check_one_line([*mistake.split(" "), *weights, *size], MISTAKES[mistake], folder, capsys)


@pytest.mark.parametrize(
    ("name", "lacking", "told"),
    [
        ("onnx", ("onnxruntime",), "--include onnx needs onnxruntime: pip install onnxruntime"),
        ("onnx", ("onnx", "onnxruntime"), "--include onnx needs onnx and onnxruntime: pip install onnx onnxruntime"),
        ("openvino", ("openvino",), "--include openvino needs openvino: pip install openvino"),
        ("coreml", ("coremltools",), "--include coreml needs coremltools: pip install coremltools"),
    ],
)
def test_a_missing_package(
    name: str, lacking: tuple[str, ...], told: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in lacking else find(n, *a))
    check_one_line(["--weights", "best.pt", "--include", name], told, folder, capsys)


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def refuse(*args: Any, dir: Path, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    words = ["--weights", str(folder / "best.pt"), "--include", "onnx", "--imgsz", "64"]
    check_one_line(words, f"Permission denied: '{folder}'", folder, capsys)


def test_the_table_of_formats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(folder)
    assert stop_of(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["--include", "file", "pip", "install", "here"]
    assert [line.split()[0] for line in lines[1:]] == list(FORMATS)
    for line, form in zip(lines[1:], FORMATS.values(), strict=True):
        assert line.split()[1] == form.file.format("best")
        assert all(package in line for package in form.packages)
    assert everything_in(folder) == before


def test_an_unknown_option_from_python() -> None:
    with pytest.raises(Exception, match="unknown option 'weight'"):
        export.run(weight="best.pt")


@pytest.mark.parametrize("command", ["val", "detect"])
@pytest.mark.parametrize("wrong", ["truncated", "foreign", "no runtime", "another task"])
def test_commands_given_a_wrong_file(
    command: str, wrong: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tiny_data: Path
) -> None:
    told = {
        "truncated": "best.onnx is no ONNX file, or a broken one: ",
        "foreign": "best.onnx does not say how it was exported (classes, anchors, layout): it has no metadata 'yolov5'",
        "no runtime": "best.onnx needs onnxruntime, which cannot be imported",
        "another task": "segment/",
    }[wrong]
    weights = save(lively("Segment" if wrong == "another task" else "Detect", nc=2), folder / "best.pt")
    (file,) = export.run(weights=str(weights), include=["onnx"], imgsz=64, verify=False)
    if wrong == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if wrong == "foreign":
        proto = onnx_package.load(str(file))
        del proto.metadata_props[:]
        onnx_package.save(proto, str(file))
        Path(f"{file}.json").unlink()
    if wrong == "no runtime":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    words = ["--weights", str(file), "--imgsz", "64", "--device", "cpu", "--project", str(folder / "runs")]
    data = ["--data", str(tiny_data)] if command == "val" else ["--source", str(tiny_data.parent / "images" / "val")]
    module = {"val": val, "detect": detect}[command]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: module.main(module.parse_opt([*words, *data])))
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert stop.value.code == 1
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    assert not (folder / "runs").exists()


@pytest.fixture(scope="module")
def published(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports yolov5n.pt with some flags, in a folder of their own, and returns the file; with none, the checkpoint."""

    def make(**flags: Any) -> Path:
        folder = tmp_path_factory.mktemp("published")
        weights = folder / "yolov5n.pt"
        weights.symlink_to(shared_data / "weights" / "yolov5n.pt")
        return export.run(weights=str(weights), include=["onnx"], imgsz=320, **flags)[0] if flags else weights

    return make


@pytest.mark.slow
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_suppression_in_the_file_equals_ours_on_ten_pictures(
    published: Callable[..., Path], shared_data: Path, dynamic: bool, agnostic: bool
) -> None:
    """Plain ONNX Runtime on one side; PyTorch and `utils.ops.nms` on the other."""
    pictures = sorted((shared_data / "data" / "coco128" / "images" / "train2017").glob("*.jpg"))[:10]
    images = np.stack([letterbox(cv2.imread(str(p)), (320, 320), auto=False).image for p in pictures])
    images = np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2), np.float32) / 255
    path = published(nms=True, dynamic=dynamic, batch_size=1 if dynamic else 5, agnostic_nms=agnostic)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batches = [images] if dynamic else np.split(images, 2)
    found, counts = (np.concatenate(y) for y in zip(*(session.run(None, {"images": b}) for b in batches), strict=True))
    with torch.inference_mode():
        decoded = load_model(path.with_name("yolov5n.pt"))(torch.from_numpy(images))[0]
    truth = non_max_suppression(decoded, 0.25, 0.45, agnostic=agnostic, max_det=100)
    assert counts.tolist() == [len(rows) for rows in truth]
    assert counts.sum() > 20
    for rows, count, expected in zip(found, counts, truth, strict=True):
        torch.testing.assert_close(torch.from_numpy(rows[:count]), expected, rtol=0, atol=5e-3)
        assert not rows[count:].any()


@pytest.mark.slow
def test_coco128_scores_as_the_checkpoint_does(
    published: Callable[..., Path], shared_data: Path, tmp_path: Path
) -> None:
    """P, R, mAP within 0.002: of a file of fixed size without rectangular batches, of a dynamic one with them."""
    data = str(shared_data / "data" / "coco128.yaml")

    def score(weights: Path, rectangular: bool) -> tuple[float, ...]:
        words = ["--weights", str(weights), "--data", data, "--imgsz", "320", "--batch-size", "8", "--workers", "0"]
        options = val.parse_opt([*words, "--project", str(tmp_path), "--device", "cpu", "--no-plots"])
        evaluation = Evaluation.prepare(options_of(ValOptions, options), DetectionTask())
        if evaluation.model.pt:
            evaluation.model.any_size = rectangular  # a checkpoint would always take rectangular batches
        assert evaluation.model.any_size == rectangular
        return evaluation.run().metrics[:4]

    checkpoint, fixed, dynamic = published(), published(batch_size=8), published(dynamic=True)
    square, rectangular = score(checkpoint, False), score(checkpoint, True)
    assert square != rectangular
    assert score(fixed, False) == pytest.approx(square, abs=0.002)
    assert score(dynamic, True) == pytest.approx(rectangular, abs=0.002)
