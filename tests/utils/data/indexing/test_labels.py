"""Label rows: figures by hand arithmetic, each kind of mistake with its file and line."""

from __future__ import annotations

import os

import numpy as np
import pytest

from utils.data.indexing.labels import label_path, parse_labels
from utils.errors import UserError


def parse(text: str, **options):
    return parse_labels([text.encode()], ["labels/a.txt"], **options)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/d/images/a.b.png", "/images/d/labels/a.b.txt"),
        ("images/a.jpg", "labels/a.txt"),
        ("/d/photos/a.jpg", "/d/photos/a.txt"),
        ("/d/my_images/a.jpg", "/d/my_images/a.txt"),
    ],
)
def test_label_path(image: str, label: str) -> None:
    assert label_path(image.replace("/", os.sep)) == label.replace("/", os.sep)


def test_boxes_are_kept_as_written() -> None:
    table = parse("3 0.479492 0.688771 0.955609 0.5955\n\n  0\t0.1 0.2 0.1 0.2  \r\n")
    np.testing.assert_array_equal(table.classes, np.float32([3, 0]))
    np.testing.assert_array_equal(
        table.boxes, np.float32([[0.479492, 0.688771, 0.955609, 0.5955], [0.1, 0.2, 0.1, 0.2]])
    )
    assert table.counts.tolist() == [2]
    assert table.polygons is None
    assert table.notes.found == {}
    assert (table.classes.dtype, table.boxes.dtype) == (np.float32, np.float32)


def test_polygon_row_gives_its_box_and_outline() -> None:
    table = parse("1 0.2 0.3 0.6 0.3 0.4 0.9\n0 0.5 0.5 0.2 0.4\n", polygons=True)
    np.testing.assert_allclose(table.boxes, [[0.4, 0.6, 0.4, 0.6], [0.5, 0.5, 0.2, 0.4]], atol=1e-7)
    assert table.polygon_counts is not None
    assert table.polygon_counts.tolist() == [3, 4]  # a box row has its rectangle
    np.testing.assert_allclose(
        table.polygons, [[0.2, 0.3], [0.6, 0.3], [0.4, 0.9], [0.4, 0.3], [0.6, 0.3], [0.6, 0.7], [0.4, 0.7]], atol=1e-7
    )


def test_several_files_and_none() -> None:
    table = parse_labels([b"0 .5 .5 .1 .1\n1 .5 .5 .1 .1", b"", b"\n \n", b"2 .5 .5 .1 .1"], list("abcd"))
    assert table.counts.tolist() == [2, 0, 0, 1]
    assert table.classes.tolist() == [0, 1, 2]
    empty = parse_labels([b"", b"\n"], ["a", "b"], polygons=True)
    assert empty.counts.tolist() == [0, 0]
    assert empty.boxes.shape == (0, 4)
    assert empty.polygons is not None
    assert empty.polygons.shape == (0, 2)


def test_byte_order_mark_is_no_part_of_the_class() -> None:
    assert parse_labels([b"\xef\xbb\xbf4 .5 .5 .1 .1"], ["a"]).classes.tolist() == [4]


def test_overflow_is_clipped_and_said_once_with_the_first_place() -> None:
    table = parse("0 0.5 0.5 0.1 0.1\n0 0.95 0.5 0.2 0.4\n1 0.02 0.5 0.2 0.4\n", polygons=True)
    np.testing.assert_allclose(table.boxes[1], [(0.85 + 1) / 2, 0.5, 0.15, 0.4], atol=1e-7)
    np.testing.assert_allclose(table.boxes[2], [0.06, 0.5, 0.12, 0.4], atol=1e-7)
    assert table.notes.found == {"clipped": (2, "labels/a.txt:2"), "rectangle": (3, "labels/a.txt:1")}
    assert table.polygons is not None
    assert table.polygons.min() == 0
    assert table.polygons.max() == 1


def test_rounding_is_clipped_without_a_word() -> None:
    table = parse("0 0.5 0.5 1.0004 1.0\n")
    np.testing.assert_array_equal(table.boxes, [[0.5, 0.5, 1.0, 1.0]])
    assert table.notes.found == {}


def test_outside_and_flat_boxes_are_dropped_and_the_rest_stays() -> None:
    rows = "0 0.5 0.5 0.1 0.1\n0 1.4 0.5 0.2 0.2\n0 0.5 0.5 0 0.2\n0 -0.2 -0.2 -0.1 -0.3 -0.3 -0.1\n2 0.3 0.3 0.1 0.1"
    table = parse(rows, polygons=True)
    assert table.classes.tolist() == [0, 2]
    assert table.counts.tolist() == [2]
    assert table.polygon_counts is not None
    assert table.polygon_counts.tolist() == [4, 4]
    assert table.notes.found == {"outside": (3, "labels/a.txt:2"), "rectangle": (2, "labels/a.txt:1")}


def test_a_polygon_beyond_the_picture_is_cut_not_squeezed() -> None:
    """The triangle (0.5, 0.2) (1.5, 0.5) (0.5, 0.8): at x = 1 its sides are half as far apart as at x = 0.5."""
    rows = "0 0.5 0.2 1.5 0.5 0.5 0.8\n1 0.1 0.1 0.2 0.1 0.2 0.3\n0 0.9 -0.5 1.5 0.1 1.5 -0.5\n"
    table = parse(rows, polygons=True)  # the last one's box reaches into the picture, the triangle itself does not
    assert table.classes.tolist() == [0, 1]
    assert table.polygon_counts is not None
    assert table.polygon_counts.tolist() == [4, 3]
    np.testing.assert_allclose(table.polygons[:4], [[0.5, 0.2], [1, 0.35], [1, 0.65], [0.5, 0.8]], atol=1e-6)
    np.testing.assert_allclose(table.boxes[0], [0.75, 0.5, 0.5, 0.6], atol=1e-6)
    assert table.notes.found == {"outside": (1, "labels/a.txt:3"), "clipped": (1, "labels/a.txt:1")}
    np.testing.assert_array_equal(parse(rows).boxes, table.boxes)  # detection reads the same boxes


def test_an_outline_without_area_is_dropped_where_outlines_are_asked_for() -> None:
    slanted = "0 0.1 0.1 0.2 0.2 0.3 0.3"
    there_and_back = "0 0.1 0.2 0.4 0.3 0.1 0.2"
    rounded = "0 0.100000 0.333333 0.400000 0.433333 0.700000 0.533334 0.250000 0.383333"
    hair = "0 0.1 0.1 0.5 0.5 0.9 0.9002"  # a twentieth of a pixel at 640: thin, but there
    text = "\n".join(("1 0.5 0.5 0.8 0.4 0.6 0.9", slanted, there_and_back, rounded, hair, "0 0.5 0.5 0.5 0.5 0.5 0.5"))
    table = parse(text, polygons=True)
    assert table.notes.found == {"outside": (4, "labels/a.txt:2")}
    assert table.polygon_counts is not None
    assert table.polygon_counts.tolist() == [3, 3]
    assert len(parse(text).classes) == 5  # a box round a line is a box


def test_a_figure_of_eight_has_area() -> None:
    assert len(parse("0 0.1 0.1 0.5 0.5 0.5 0.1 0.1 0.5", polygons=True).classes) == 1


def test_repeated_rows_are_dropped_within_a_file_only() -> None:
    row = b"0 0.5 0.5 0.1 0.1\n"
    table = parse_labels([row + b"1 0.5 0.5 0.1 0.1\n0 0.50 .5 .1 .1\n", row], ["a", "b"])
    assert table.counts.tolist() == [2, 1]
    assert table.classes.tolist() == [0, 1, 0]
    assert table.notes.found == {"repeated": (1, "a:3")}


def test_polygons_with_one_box_are_two_objects() -> None:
    table = parse("0 0 0 1 0 0 1\n0 1 1 1 0 0 1\n")  # the two halves of a square
    assert len(table.classes) == 2
    assert table.notes.found == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0 .5 .5 .1 .1\n7 .5 .5 .1 .1", "labels/a.txt:2: class 7, but nc is 5 (0 to 4)"),
        ("\n\n5 .5 .5 .1 .1", "labels/a.txt:3: class 5, but nc is 5 (0 to 4)"),
        ("-1 .5 .5 .1 .1", "labels/a.txt:1: class -1, but classes are whole numbers from 0"),
        ("1.5 .5 .5 .1 .1", "labels/a.txt:1: class 1.5, but classes are whole numbers from 0"),
        ("0 nan .5 .1 .1", "labels/a.txt:1: value nan is not finite"),
        ("0 .5 inf .1 .1", "labels/a.txt:1: value inf is not finite"),
        ("nan .5 .5 .1 .1", "labels/a.txt:1: value nan is not finite"),
        ("0 .5 .5 .1 .1\ncat .5 .5 .1 .1", "labels/a.txt:2: 'cat' is not a number"),
        ("0,.5,.5,.1,.1", "labels/a.txt:1: '0,.5,.5,.1,.1' is not a number"),
        ("0 .5 .5 .1", "labels/a.txt:1: 4 values"),
        ("0", "labels/a.txt:1: 1 values"),
        ("0 .5 .5 .1 .1 .9", "labels/a.txt:1: 6 values"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "labels/a.txt:1: 8 values"),
        ("0 .1 .1 .2 .2 .3 .3\n0 .1 .1 .2 .2 .3 nan", "labels/a.txt:2: value nan is not finite"),
        ("0 .1 .1 .2 .2 .3 .3\n9 .1 .1 .2 .2 .3 .4", "labels/a.txt:2: class 9, but nc is 5 (0 to 4)"),
        ("0 .5 .5 -.1 .1", "labels/a.txt:1: negative box size -0.1 x 0.1"),
    ],
)
def test_rows_that_are_no_objects(rows: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(rows, nc=5)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ("0 .5 .5 .1 .1 .9", "5 coordinates, an odd number; is the last one a confidence?"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "7 coordinates, an odd number; is the last one a confidence?"),
        ("0 .1 .1 .2", "3 coordinates, an odd number"),
    ],
)
def test_hints_for_odd_coordinates(row: str, hint: str) -> None:
    for polygons in (False, True):
        with pytest.raises(UserError) as error:
            parse(row, polygons=polygons)
        assert str(error.value).endswith(hint)


def test_two_points_are_a_box_not_a_polygon() -> None:
    """Five columns are always x y w h, in files with polygons too."""
    table = parse("0 0.1 0.1 0.9 0.1 0.5 0.9\n0 0.5 0.5 0.2 0.2\n", polygons=True)
    np.testing.assert_allclose(table.boxes[1], [0.5, 0.5, 0.2, 0.2])
    assert table.notes.found == {"rectangle": (1, "labels/a.txt:2")}  # and is told where outlines are asked for


def test_against_a_plain_reading(shared_data) -> None:
    """All of coco128 and its polygons against a reading line by line in float64."""
    for folder in ("coco128", "coco128-seg"):
        files = sorted((shared_data / "data" / folder / "labels" / "train2017").glob("*.txt"))
        table = parse_labels([f.read_bytes() for f in files], [str(f) for f in files], nc=80, polygons=True)
        row = 0
        for file, count in zip(files, table.counts, strict=True):
            lines = list(dict.fromkeys(line for line in file.read_text().splitlines() if line.strip()))
            assert len(lines) == count
            for line in lines:
                number, *values = map(float, line.split())
                if len(values) == 4:
                    expected = np.array(values)
                else:
                    xy = np.array(values).reshape(-1, 2)
                    low, high = xy.min(0), xy.max(0)
                    expected = np.concatenate(((low + high) / 2, high - low))
                assert table.classes[row] == number
                np.testing.assert_allclose(table.boxes[row], expected, atol=2e-5)
                row += 1
        assert row == len(table.classes) > 700


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xff\xff\xff", "labels/a.txt:1: '\ufffd\ufffd\ufffd\ufffd' is not a number"),
        (b"0 .5 .5 .2 .2\xff", "labels/a.txt:1: '.2\ufffd' is not a number"),
        (b"0 .5 .5 .2 .2\x0c1 .5 .5 .2 .2", "labels/a.txt:1: 10 values"),  # a form feed is no end of a row
        ("0 .5 .5 .2 .2".encode("utf-16"), "labels/a.txt: UTF-16 text"),
        (b"0 .5 .5 .2 .2\0", "is not a number"),
        (b"0 .5 .5 1e400 .2", "labels/a.txt:1: value inf is not finite"),
        (b"0 .5 .5 1e300 .2", "labels/a.txt:1: value 1e+300 is far beyond 0..1"),
        (b"0 1e300 1e300 .2 .2 .3 .4", "labels/a.txt:1: value 1e+300 is far beyond 0..1"),
        (b"1e300 .5 .5 .2 .2", "labels/a.txt:1: value 1e+300 is far beyond"),
        (b"0 .5 .5 .2 infinity", "labels/a.txt:1: value inf is not finite"),
        (b"0 0.1_5 .5 .2 .2", "labels/a.txt:1: '0.1_5' is not a number"),
        (b"0 .5 .5 0x1p-2 .2", "'0x1p-2' is not a number"),
        (b"0 0,5 0,5 0,2 0,2", "'0,5' is not a number"),
        (b"0 .5 .5 .2 " + b"9" * 100_000, "value inf is not finite"),
        (b"0 " * 100_002, "100002 values"),
        (b"0 .5 .5 .2 .2\n" * 50_001, "labels/a.txt: 50001 objects, and 50000 are the most"),
    ],
)
def test_hostile_rows(content: bytes, told: str) -> None:
    with pytest.raises(UserError) as error:
        parse_labels([b"0 .5 .5 .2 .2", content], ["labels/0.txt", "labels/a.txt"], polygons=True)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf0 .5 .5 .2 .2", b"0 .5 .5 .2 .2\r\n", b"0 .5 .5 .2 .2\r", b"0\t.5 .5  .2 .2", b"\n0 +.5 5e-1 .2 .2"],
)  # fmt: skip
def test_other_ways_to_write_a_row_stay_good(content: bytes) -> None:
    assert parse_labels([content], ["a.txt"]).boxes.tolist() == [np.float32([0.5, 0.5, 0.2, 0.2]).tolist()]


def test_many_rows_are_good() -> None:
    rows = b"".join(b"0 .5 .5 .2 %f\n" % (i / 60_000) for i in range(1, 50_001))
    assert parse_labels([rows], ["a.txt"]).counts.tolist() == [50_000]
