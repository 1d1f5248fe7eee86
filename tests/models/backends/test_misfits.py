"""Exported files whose metadata are damaged, hostile, or those of another network: each gives one clear line."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import TensorProto

import detect
from models.backends import DetectMultiBackend
from tests.models.backends.misfits import METADATA, SIZE, SUPPRESSING, write_onnx
from utils.cli import run_command
from utils.errors import UserError

NAMES = {"0": "cat", "1": "dog"}
DAMAGED: dict[str, dict[str, Any]] = {
    "task is 'pose', not detect or segment": {"task": "pose"},
    "task is 3": {"task": 3},
    "task is segment and nm 0": {"task": "segment"},
    "task is detect and nm 32": {"nm": 32},
    "task is segment and nm -1": {"task": "segment", "nm": -1},
    "task is segment and nm 1000000000": {"task": "segment", "nm": 10**9},
    "strides is [8, 0]": {"strides": [8, 0]},
    "strides is [8, -16]": {"strides": [8, -16]},
    "strides is ['8', 16]": {"strides": ["8", 16]},
    "strides is [8, 16.0]": {"strides": [8, 16.0]},
    "strides is [8, True]": {"strides": [8, True]},
    "strides is [8, 1000000000]": {"strides": [8, 10**9]},
    "strides is []": {"strides": [], "anchors": []},
    "strides is [8, 8, 8, 8, 8, 8, ...]": {"strides": [8] * 1000, "anchors": METADATA["anchors"][:1] * 1000},
    "strides is [8, 16, 32] and anchors": {"strides": [8, 16, 32]},
    "strides is [8, 16] and anchors [[[10, nan]": {"anchors": [[[10, float("nan")]], [[1, 1]]]},
    "strides is [8, 16] and anchors [[[10, inf]": {"anchors": [[[10, float("inf")]], [[1, 1]]]},
    "strides is [8, 16] and anchors [[10, 13]": {"anchors": [[10, 13], [16, 30]]},
    "strides is [8, 16] and anchors ['1', '2']": {"anchors": ["1", "2"]},
    "levels of different lengths": {"anchors": [[[10, 13]], [[30, 61], [62, 45]]]},
    "names has the ids [0, 2]": {"names": {"0": "cat", "2": "dog"}},
    "names has the ids []": {"names": {}},
    "invalid literal for int()": {"names": {"zero": "cat", "1": "dog"}},
    "'list' object has no attribute": {"names": ["cat", "dog"]},
    "the name of class 1, 'do\\ng', has a character": {"names": NAMES | {"1": "do\ng"}},
    "the name of class 1, '\\x1b[2Jdog', has a": {"names": NAMES | {"1": "\x1b[2Jdog"}},
    "the name of class 1, '\\u202egod', has a": {"names": NAMES | {"1": "\u202egod"}},
    "the name of class 1, '\\ud800', has a": {"names": NAMES | {"1": "\ud800"}},
    "the name of class 1 has 5000 characters": {"names": NAMES | {"1": "d" * 5000}},
    "imgsz is [64]": {"imgsz": [64]},
    "imgsz is [64, '64']": {"imgsz": [64, "64"]},
    "imgsz is [64, 1000000000]": {"imgsz": [64, 10**9]},
    "batch is 0": {"batch": 0},
    "batch is 1000000000000": {"batch": 10**12},
    "batch is 60000": {"batch": 60000, "imgsz": [4096, 4096]},
    "batch is True": {"batch": True},
    "layout is 'boxes'": {"layout": "boxes"},
    "input is 'BGR 0..255'": {"input": "BGR 0..255"},
    "dynamic is 1": {"dynamic": 1},
    "half is 'no'": {"half": "no"},
    "unexpected keyword argument 'evil'": {"evil": 1},
    "conf_thres is nan": SUPPRESSING | {"conf_thres": float("nan")},
    "conf_thres is None": SUPPRESSING | {"conf_thres": None},
    "iou_thres is 7": SUPPRESSING | {"iou_thres": 7},
    "max_det is 0": SUPPRESSING | {"max_det": 0},
    "max_det is None": SUPPRESSING | {"max_det": None},
    "max_det is 1000000000000": SUPPRESSING | {"max_det": 10**12},
}


def refused(path: Path, told: str, **flags: Any) -> None:
    """Reading the file and asking it about one image ends in one line that names it and holds `told`."""
    with pytest.raises(UserError) as caught:
        DetectMultiBackend(path, **flags)(torch.zeros(1, 3, SIZE, SIZE))
    message = str(caught.value)
    assert told in message
    assert str(path) in message
    assert message.isprintable()
    assert len(message) < 800


@pytest.mark.parametrize("told", DAMAGED)
def test_a_metadata_that_no_export_writes(told: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", json.dumps(METADATA | DAMAGED[told]))
    refused(path, told)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ("[" * 100_000, "are not JSON"),
        ('{"a":' * 100_000, "are not JSON"),
        ("1" * 10_000, "are not JSON"),
        ("", "does not say how it was exported"),
        ("null", "not exported by this project"),
        ("[1]", "not exported by this project"),
        ('{"project": "yolov5-mobilenetv2"}', "do not fit version"),
        (json.dumps({**METADATA, "version": "9" * 5000, "task": "pose"}), "task is 'pose'"),
        (" " * 17_000_000, "larger than any export writes"),
    ],
    ids=["deep list", "deep mapping", "number", "empty", "null", "list", "bare", "version", "large"],
)
def test_no_metadata_at_all(metadata: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    refused(write_onnx(path, metadata), told)
    if len(metadata) > 100:
        write_onnx(path, None)
        Path(f"{path}.json").write_text(metadata)
        refused(path, told)


FIT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what is told: metadata, network
    "promise output0 of 1×160×6, but the network gives 1×160×7": ({"names": {"0": "cat"}}, {}),
    "promise output0 of 1×160×8, but the network gives 1×160×7": ({"names": NAMES | {"2": "cow"}}, {}),
    "promise output0 of 1×160×7, but the network gives 1×3×64×64": ({}, {"outputs": {"output0": (1, 3, 64, 64)}}),
    "promise output0 of 1×160×7, but the network gives 160×7": ({}, {"outputs": {"output0": (160, 7)}}),
    "promise output0 of 1×40×7, but the network": ({"strides": [16, 32]}, {}),
    "lacks the outputs raw0, raw1 of layout 'raw'": ({"layout": "raw"}, {}),
    "lacks the outputs boxes, scores": ({"layout": "separate"}, {}),
    "lacks the outputs count": (SUPPRESSING, {"outputs": {"detections": (1, 5, 6)}}),
    "promise raw0 of 1×14×8×8, but the network gives 1×15×8×8": (
        {"layout": "raw"}, {"outputs": {"raw0": (1, 15, 8, 8), "raw1": (1, 14, 4, 4)}},
    ),
    "promise scores of 1×160×2, but the network gives 1×160×3": (
        {"layout": "separate"}, {"outputs": {"boxes": (1, 160, 4), "scores": (1, 160, 3)}},
    ),
    "promise output1 of 1×4×any×any, but the network gives 1×3×16×16": (
        {"task": "segment", "nm": 4}, {"outputs": {"output0": (1, 160, 11), "output1": (1, 3, 16, 16)}},
    ),
}  # fmt: skip
INPUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # OpenCV does not tell of a network's input
    "images of half 1×3×64×64, but the network takes tensor(float) 1×3×64×64": ({"half": True}, {}),
    "images of float 1×3×64×64, but the network takes tensor(float16)": ({}, {"kind": TensorProto.FLOAT16}),
    "images of float any×3×any×any, but the network takes tensor(float) 1×3": ({"dynamic": True}, {}),
    "images of float 1×3×64×64, but the network takes tensor(float) 4×3×64×64": (
        {}, {"images": (4, 3, 64, 64), "outputs": {"output0": (4, 160, 7)}},
    ),
    "images of float 4×3×64×64, but the network takes tensor(float) 1×3": ({"batch": 4}, {}),
    "images of float 1×3×64×64, but the network takes tensor(float) any×3×any×any": (
        {}, {"images": ("batch", 3, "height", "width")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("dnn", [False, True])
@pytest.mark.parametrize("told", [*FIT, *INPUTS])
def test_a_metadata_of_another_network(told: str, dnn: bool, tmp_path: Path) -> None:
    metadata, network = (FIT | INPUTS)[told]
    if dnn and (told in INPUTS or metadata is SUPPRESSING):
        pytest.skip("OpenCV does not tell of the input, and suppresses nothing")
    refused(write_onnx(tmp_path / "m.onnx", json.dumps(METADATA | metadata), **network), told, dnn=dnn)


def test_opencv_fails_in_one_line(tmp_path: Path) -> None:
    """What OpenCV finds out only while it runs."""
    four = {"images": (4, 3, 64, 64), "outputs": {"output0": (4, 160, 7)}}
    path = write_onnx(tmp_path / "m.onnx", json.dumps(METADATA), **four)
    refused(path, "promise output0 of 1×160×7, but the network gives 4×160×7", dnn=True)
    path = write_onnx(tmp_path / "e.onnx", json.dumps(METADATA), external=True)
    refused(path, "has its weights in another file, which OpenCV does not read; leave --dnn out", dnn=True)
    Path(f"{path}.data").unlink()
    refused(path, "is no ONNX file, or a broken one")


def test_a_metadata_that_fits_is_read(tmp_path: Path) -> None:
    for dnn in (False, True):
        backend = DetectMultiBackend(write_onnx(tmp_path / "m.onnx", json.dumps(METADATA)), dnn=dnn)
        decoded, raw = backend(torch.zeros(3, 3, SIZE, SIZE))
        assert (decoded.shape, raw) == ((3, 160, 7), None)
        assert backend.names == {0: "cat", 1: "dog"}


def test_class_names_never_lead_out_of_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slashes are welcome in names ("handbag/satchel"); as names of folders they become something else."""
    monkeypatch.chdir(tmp_path)
    names = {"0": "../../../outside", "1": "..\\..\\outside"}
    path = write_onnx(tmp_path / "m.onnx", json.dumps(METADATA | {"names": names}))
    picture = tmp_path / "in" / "p.png"
    picture.parent.mkdir()
    import cv2
    import numpy as np

    cv2.imwrite(str(picture), np.full((SIZE, SIZE, 3), 100, np.uint8))
    detect.run(weights=str(path), source=str(picture), imgsz=SIZE, save_crop=True, save_txt=True, device="cpu")
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and "runs" not in p.parts]
    assert set(outside) == {path, picture}
    assert [p.parent.parent.name for p in (tmp_path / "runs").rglob("crops/*/*")] == ["crops"]


# Programs ------------------------------------------------------------------------------------------------------------


class Writes(torch.nn.Module):
    """Writes a file as soon as it is called."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Any answer."""
        return torch.from_file("owned", shared=True, size=4, dtype=torch.float32) + images.sum()


def write_program(path: Path, metadata: str = json.dumps(METADATA)) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Writes()), str(path), _extra_files={"yolov5.json": metadata})
    return path


def test_a_program_is_not_run_unless_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_program(tmp_path / "m.torchscript")
    refused(path, "is a TorchScript program, which can do whatever PyTorch can, write files for example; if you")
    words = ["--weights", str(path), "--source", str(tmp_path), "--device", "cpu", "--img", str(SIZE)]
    (tmp_path / "p.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: detect.main(detect.parse_opt(words)))
    assert stop.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "pass --trust" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "runs").exists()
    refused(path, "promise output0 of 1×160×7, but the network gives 4", trust=True)
    assert (tmp_path / "owned").exists(), "it would have done it"


def test_the_metadata_of_a_program_is_read_before_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded"))
    refused(write_program(tmp_path / "a.torchscript", "{"), "are not JSON", trust=True)
    refused(write_program(tmp_path / "b.torchscript", json.dumps(METADATA | {"task": "pose"})), "task is", trust=True)
    with zipfile.ZipFile(tmp_path / "c.torchscript", "w") as archive:
        archive.writestr("c/data.pkl", "x")
    refused(tmp_path / "c.torchscript", "does not say how it was exported", trust=True)
    with zipfile.ZipFile(tmp_path / "d.torchscript", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/extra/yolov5.json", b" " * 50_000_000)
    refused(tmp_path / "d.torchscript", "larger than any export writes", trust=True)
    (tmp_path / "e.torchscript").write_bytes(b"PK\x05\x06")
    refused(tmp_path / "e.torchscript", "is no TorchScript file, or a broken one", trust=True)
