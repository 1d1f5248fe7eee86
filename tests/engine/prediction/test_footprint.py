"""How many of the project's files a reader has to follow to see how one image is detected.

A file counts if one of its functions is called, as `sys.setprofile` reports it, while `detect.run` processes one image
with the default outputs: from the options to the line that says where the results are. The process is warmed up by an
earlier run, and the network is loaded before. Module bodies, libraries and tests do not count.

Before small neighbours were joined, such a run went through 37 files, and the second image of a run alone through 28.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import detect
from models.backends import DetectMultiBackend
from models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from models.yolo import DetectionModel
from utils.data.sources.image_io import write_image
from utils.files import ROOT

MOST_FILES = 30


def files_of_one_run(**options: Any) -> set[str]:
    """The project's files of which a function is called during ``detect.run(**options)``."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        summary = detect.run(**options)
    finally:
        sys.setprofile(before)
    assert summary.images == 1
    assert sum(summary.detections.values()) == 3
    ours = [Path(name).relative_to(ROOT) for name in found if Path(name).is_relative_to(ROOT)]
    return {path.as_posix() for path in ours if path.parts[0] in ("utils", "models", "engine", "detect.py")}


def test_files_that_one_image_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file here is a file more for everyone who wants to understand detection: is it worth that?"""
    torch.manual_seed(0)
    net = DetectionModel("yolov5n_MobileNetv2.yaml", nc=2)
    with torch.no_grad():
        for conv in net.model[-1].m:  # type: ignore[union-attr]
            conv.bias.view(3, -1)[:, 4:] = 2.0  # so that it sees something everywhere
    save_checkpoint(tmp_path / "net.pt", Checkpoint("detect", net.yaml, {0: "cat", 1: "dog"}, net.state_dict()))
    loaded = DetectMultiBackend(tmp_path / "net.pt")
    monkeypatch.setattr("engine.prediction.command.DetectMultiBackend", lambda *_, **__: loaded)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    write_image(tmp_path / "a.jpg", image)
    options = {"weights": str(tmp_path / "net.pt"), "source": str(tmp_path / "a.jpg"), "imgsz": 64, "max_det": 3}
    options |= {"project": str(tmp_path), "device": "cpu"}
    files_of_one_run(**options)
    found = files_of_one_run(**options)
    assert len(found) <= MOST_FILES, sorted(found)
