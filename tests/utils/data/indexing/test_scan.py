"""The scan of a split: order, report, and the words in which it is told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.data.indexing import scan as module
from utils.data.indexing.labels import LabelNotes
from utils.data.indexing.scan import ScanReport, scan
from utils.errors import UserError


@pytest.fixture
def split(tmp_path: Path) -> tuple[list[str], list[str]]:
    """25 images of growing width, as many labels of as many rows as the number says, modulo 4."""
    images, labels = [], []
    for i in range(25):
        image, label = tmp_path / f"{i:02d}.png", tmp_path / f"{i:02d}.txt"
        cv2.imwrite(str(image), np.zeros((20, 20 + i, 3), np.uint8))
        label.write_text("".join(f"{i} 0.5 0.5 0.{row + 1} 0.1\n" for row in range(i % 4)))
        images.append(str(image))
        labels.append(str(label))
    return images, labels


@pytest.mark.parametrize("chunk", [1, 4, 25, 100])
@pytest.mark.parametrize("polygons", [False, True])
def test_order_does_not_depend_on_the_threads(split, chunk: int, polygons: bool, monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    images, labels = split
    Path(images[3]).write_bytes(b"rubbish")
    Path(labels[7]).unlink()
    result = scan(images, labels, polygons=polygons)
    assert result.kept.tolist() == [i for i in range(25) if i != 3]
    assert result.shapes.tolist() == [[20, 20 + i] for i in range(25) if i != 3]
    counts = [0 if i == 7 else i % 4 for i in range(25) if i != 3]
    assert result.table.counts.tolist() == counts
    assert result.table.classes.tolist() == [i for i in range(25) if i not in (3, 7) for _ in range(i % 4)]
    assert (result.report.missing, result.report.empty) == (1, 7)
    assert [image for image, _ in result.report.broken] == [images[3]]
    if polygons:
        assert result.table.polygons is not None
        assert result.table.polygons.shape == (4 * sum(counts), 2)


def test_a_label_that_cannot_be_read(split) -> None:
    images, labels = split
    Path(labels[4]).unlink()
    Path(labels[4]).mkdir()
    with pytest.raises(UserError, match=r"cannot read label file '.*04\.txt'"):
        scan(images, labels)


def test_report_survives_json_and_adds_up(capsys) -> None:
    report = ScanReport(1, 2, [("a.jpg", "is a truncated JPEG")], LabelNotes({"clipped": (3, "a.txt:1")}))
    copy = ScanReport.from_json(report.to_json())
    assert copy == report
    copy.merge(ScanReport(1, 0, [], LabelNotes({"clipped": (1, "b.txt:9"), "repeated": (2, "b.txt:4")})))
    copy.log(10, 20, "val: ")
    said = capsys.readouterr()
    assert said.out == "val: 10 images, 20 objects, 4 backgrounds (2 without a label file), 1 broken\n"
    assert said.err.splitlines() == [
        "warning: val: a.jpg is a truncated JPEG; the image is left out",
        "warning: val: 4 objects reach beyond their image and were clipped (first: a.txt:1)",
        "warning: val: 2 label rows repeat another of the same file and were dropped (first: b.txt:4)",
    ]
