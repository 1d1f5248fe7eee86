"""Label files and the table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from engine.prediction.result import Result
from engine.prediction.text import CsvFile, LabelFiles
from utils.data.sources.frame import Frame

NAMES = {0: 'a, "quoted" name', 1: "человек"}


def result(kind: str = "image", number: int = 0, n: int = 2) -> Result:
    frame = Frame("folder/ü.jpg", np.zeros((100, 200, 3), np.uint8), kind, number)  # type: ignore[arg-type]
    boxes = np.array([[20, 10, 60, 30], [0, 0, 200, 100]], np.float32)[:n]
    return Result(frame, "ü", boxes, np.array([0.9, 0.123456], np.float32)[:n], np.array([1, 0])[:n])


def test_labels_are_normalised_centres_and_sizes(tmp_path: Path) -> None:
    LabelFiles(tmp_path / "labels").write(result(), None)
    assert (tmp_path / "labels" / "ü.txt").read_text() == "1 0.2 0.2 0.2 0.2\n0 0.5 0.5 1 1\n"
    LabelFiles(tmp_path / "labels", save_conf=True).write(result("video", 7), None)
    assert (tmp_path / "labels" / "ü_7.txt").read_text() == "1 0.2 0.2 0.2 0.2 0.9\n0 0.5 0.5 1 1 0.123456\n"


def test_no_detections_no_file(tmp_path: Path) -> None:
    LabelFiles(tmp_path / "labels").write(result(n=0), None)
    assert not list((tmp_path / "labels").iterdir())


def test_csv_has_one_header_and_survives_any_name(tmp_path: Path) -> None:
    table = CsvFile(tmp_path / "predictions.csv", NAMES)
    table.write(result(), None)
    table.write(result(n=0), None)
    table.write(result("video", 7, n=1), None)
    table.close()
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "class_id", "class", "confidence", "x1", "y1", "x2", "y2", "frame"],
        ["folder/ü.jpg", "1", "человек", "0.9000", "20.0", "10.0", "60.0", "30.0", ""],
        ["folder/ü.jpg", "0", 'a, "quoted" name', "0.1235", "0.0", "0.0", "200.0", "100.0", ""],
        ["folder/ü.jpg", "1", "человек", "0.9000", "20.0", "10.0", "60.0", "30.0", "7"],
    ]
