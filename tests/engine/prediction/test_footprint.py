"""How many of the project's files a reader has to follow to see how one image is detected.

A file counts if one of its functions is called while `detect.run` processes one image with the default outputs: from
the options to the line that says where the results are. The process is warmed up by an earlier run, and the network
is loaded before.

Before small neighbours were joined, such a run went through 37 files, and the second image of a run alone through 28.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detect
from models.backends import DetectMultiBackend
from tests.footprint import files_called
from tests.media import save_untrained
from utils.data.sources.image_io import write_image

MOST_FILES = 30


def run(**options: Any) -> None:
    summary = detect.run(**options)
    assert summary.images == 1
    assert sum(summary.detections.values()) == 3


def test_files_that_one_image_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file here is a file more for everyone who wants to understand detection: is it worth that?"""
    save_untrained(tmp_path / "net.pt", {0: "cat", 1: "dog"})
    loaded = DetectMultiBackend(tmp_path / "net.pt")
    monkeypatch.setattr("engine.prediction.command.DetectMultiBackend", lambda *_, **__: loaded)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    write_image(tmp_path / "a.jpg", image)
    options = {"weights": str(tmp_path / "net.pt"), "source": str(tmp_path / "a.jpg"), "imgsz": 64, "max_det": 3}
    options |= {"project": str(tmp_path), "device": "cpu"}
    run(**options)
    found = files_called(lambda: run(**options))
    assert len(found) <= MOST_FILES, sorted(found)
