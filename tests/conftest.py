"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the reference's figures."""
    return ROOT / "tests" / "data" / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and a published checkpoint, where they are at hand (YOLO_TEST_DATA)."""
    folder = Path(os.environ.get("YOLO_TEST_DATA", ROOT.parent / "shared")).resolve()
    if not (folder / "weights" / "yolov5n.pt").is_file():
        pytest.skip(f"no test data at {folder}; set YOLO_TEST_DATA to the folder that holds data/ and weights/")
    return folder


@pytest.fixture(autouse=True)
def _logging_to_current_streams() -> None:
    """Log to the streams of the moment, as commands do, so that `capsys` sees it."""
    from utils.logging import configure_logging

    configure_logging()
