"""Label files and the table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from engine.prediction.outputs import FrameResult
from engine.prediction.text_files import CsvFile, LabelFiles
from utils.data.indexing.labels import parse_labels
from utils.data.sources.frame import Frame
from utils.errors import UserError
from utils.ops.masks import BoxMask

NAMES = {0: 'a, "quoted" name', 1: "человек"}


def result(kind: str = "image", number: int = 0, n: int = 2) -> FrameResult:
    frame = Frame("folder/ü.jpg", np.zeros((100, 200, 3), np.uint8), kind, number)  # type: ignore[arg-type]
    boxes = np.array([[20, 10, 60, 30], [0, 0, 200, 100]], np.float32)[:n]
    return FrameResult(frame, "ü", boxes, np.array([0.9, 0.123456], np.float32)[:n], np.array([1, 0])[:n])


def test_labels_are_normalised_centres_and_sizes(tmp_path: Path) -> None:
    LabelFiles(tmp_path / "labels").write(result(), None)
    assert (tmp_path / "labels" / "ü.txt").read_text() == "1 0.2 0.2 0.2 0.2\n0 0.5 0.5 1 1\n"
    LabelFiles(tmp_path / "labels", save_conf=True).write(result("video", 7), None)
    assert (tmp_path / "labels" / "ü_7.txt").read_text() == "1 0.2 0.2 0.2 0.2 0.9\n0 0.5 0.5 1 1 0.123456\n"


def test_no_detections_no_file(tmp_path: Path) -> None:
    LabelFiles(tmp_path / "labels").write(result(n=0), None)
    assert not list((tmp_path / "labels").iterdir())


def masked(*masks: BoxMask) -> FrameResult:
    """Detections of a picture of 100×200."""
    frame = Frame("a.jpg", np.zeros((100, 200, 3), np.uint8))
    n = len(masks)
    confidences = np.linspace(0.9, 0.8, n).astype(np.float32)
    return FrameResult(frame, "a", np.zeros((n, 4), np.float32), confidences, np.arange(n), masks)


def inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) bool: pixels whose centre a ray to the right leaves an odd number of times (float64)."""
    y, x = np.mgrid[:height, :width] + 0.5
    odd = np.zeros((height, width), bool)
    for (x1, y1), (x2, y2) in zip(points.astype(np.float64), np.roll(points, -1, 0).astype(np.float64), strict=True):
        if y1 != y2:
            odd ^= ((y1 <= y) != (y2 <= y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return odd


def test_outlines_are_labels_that_give_the_same_pixels(tmp_path: Path) -> None:
    """Two parts, a hole, a single pixel; read back by the label reader and filled pixel by pixel."""
    rng = np.random.default_rng(0)
    parts = rng.random((30, 41)) > 0.6
    ring = np.ones((9, 7), bool)
    ring[3:6, 2:5] = False
    masks = [BoxMask(150, 60, parts), BoxMask(0, 91, ring), BoxMask(199, 0, np.ones((1, 1), bool))]
    LabelFiles(tmp_path).write(masked(*masks), None)
    table = parse_labels([(tmp_path / "a.txt").read_bytes()], ["a.txt"], nc=3, polygons=True)
    assert table.classes.tolist() == [0, 1, 2]
    assert not table.notes.found
    assert table.polygons is not None
    assert table.polygon_counts is not None
    outlines = np.split(table.polygons * np.float32((200, 100)), np.cumsum(table.polygon_counts)[:-1])
    for (left, top, pixels), outline in zip(masks, outlines, strict=True):
        expected = np.zeros((100, 200), bool)
        expected[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        assert np.array_equal(inside(outline, 100, 200), expected)


def test_an_empty_mask_has_no_row_and_no_rows_no_file(tmp_path: Path) -> None:
    empty = BoxMask(5, 5, np.zeros((4, 4), bool))
    LabelFiles(tmp_path).write(masked(empty, BoxMask(0, 0, np.zeros((0, 3), bool))), None)
    assert not list(tmp_path.iterdir())
    LabelFiles(tmp_path).write(masked(empty, BoxMask(20, 10, np.ones((40, 20), bool))), None)
    [row] = (tmp_path / "a.txt").read_text().splitlines()
    cls, *numbers = row.split()
    assert cls == "1"
    assert {tuple(numbers[i : i + 2]) for i in range(0, 8, 2)} == {
        ("0.1", "0.1"), ("0.2", "0.1"), ("0.2", "0.5"), ("0.1", "0.5")
    }  # fmt: skip


def test_confidence_stands_last_and_makes_it_no_label(tmp_path: Path) -> None:
    LabelFiles(tmp_path, save_conf=True).write(masked(BoxMask(20, 10, np.ones((40, 20), bool))), None)
    text = (tmp_path / "a.txt").read_bytes()
    assert text.split()[-1] == b"0.9"
    assert len(text.split()) == 10
    with pytest.raises(UserError, match="a.txt:1: .* is the last one a confidence"):
        parse_labels([text], ["a.txt"], polygons=True)


def test_a_table_on_a_full_disk_ends_with_a_whole_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = CsvFile(tmp_path / "predictions.csv", NAMES)
    table.write(result(), None)
    before = (tmp_path / "predictions.csv").read_bytes()
    file = table._file

    class Full:
        """Takes a few bytes, as a disk does before it is full."""

        def write(self, content: bytes) -> int:
            return file.write(content[:7])

        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

    monkeypatch.setattr(table, "_file", Full())
    with pytest.raises(OSError, match="No space left") as error:
        table.write(result(), None)
    table.close()
    assert error.value.filename == str(tmp_path / "predictions.csv")
    assert (tmp_path / "predictions.csv").read_bytes() == before


def test_folders_in_the_place_of_tables_and_labels(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").mkdir()
    with pytest.raises(UserError, match="a folder has that name"):
        CsvFile(tmp_path / "predictions.csv", NAMES)
    (tmp_path / "labels" / "ü.txt").mkdir(parents=True)
    with pytest.raises(UserError, match="a folder has that name"):
        LabelFiles(tmp_path / "labels").write(result(), None)


def test_names_that_are_not_unicode_keep_their_bytes(tmp_path: Path) -> None:
    table = CsvFile(tmp_path / "predictions.csv", NAMES)
    frame = Frame("\udcff.jpg", np.zeros((100, 200, 3), np.uint8))
    table.write(FrameResult(frame, "x", result().boxes, result().confidences, result().classes), None)
    table.close()
    assert b"\xff.jpg" in (tmp_path / "predictions.csv").read_bytes()


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
