"""COCO and VOC annotations as label rows: against coco128's own labels, and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from utils.data.convert import coco_to_yolo, join_parts, main, voc_to_yolo
from utils.data.index import build_index
from utils.data.spec import load_dataset
from utils.errors import UserError


def coco(tmp_path: Path, annotations: list[dict[str, Any]], changes: dict[str, Any] | None = None) -> Path:
    """A COCO file with one 100 x 50 image and categories 7 (dog) and 3 (cat)."""
    content = {
        "images": [{"id": 42, "file_name": "day1/a.jpg", "width": 100, "height": 50}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 42, "category_id": 7, "bbox": [10, 5, 20, 20], **a} for a in annotations],
        **(changes or {}),
    }
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(content))
    return file


def rows(tmp_path: Path) -> list[str]:
    return (tmp_path / "out/labels/day1/a.txt").read_text().splitlines()


def test_coco128_boxes(shared_data, tmp_path: Path) -> None:
    """Every row of the labels that come with coco128, from its JSON: crowds left out, 939 annotations, 929 rows."""
    data = shared_data / "data" / "coco128"
    counts = coco_to_yolo(data / "instances_train2017.json", tmp_path, images="train2017")
    assert (counts["images"], counts["objects"], counts["crowds"]) == (128, 929, 10)
    compared = 0
    for image in (data / "images" / "train2017").glob("*.jpg"):
        ours, theirs = (
            np.array(file.read_text().split() if file.exists() else [], float).reshape(-1, 5)
            for file in (folder / "labels/train2017" / f"{image.stem}.txt" for folder in (tmp_path, data))
        )
        np.testing.assert_allclose(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)], atol=2e-6)
        compared += len(ours)
    assert compared == 929


def test_coco128_polygons_cover_the_masks(shared_data, tmp_path: Path) -> None:
    """Joined outlines, filled, against pycocotools' own masks of the same annotations."""
    mask_tools = pytest.importorskip("pycocotools.mask")
    file = shared_data / "data" / "coco128" / "instances_train2017.json"
    content = json.loads(file.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    parts = [a for a in content["annotations"] if not a["iscrowd"] and len(a["segmentation"]) > 1]
    assert len(parts) > 50
    for annotation in parts:
        h, w = sizes[annotation["image_id"]]
        outline = join_parts([np.reshape(part, (-1, 2)) for part in annotation["segmentation"]])
        joined = mask_tools.decode(mask_tools.merge(mask_tools.frPyObjects([outline.ravel().tolist()], h, w)))
        separate = mask_tools.decode(mask_tools.merge(mask_tools.frPyObjects(annotation["segmentation"], h, w)))
        wrong = int((joined != separate).sum())
        edge = cv2.arcLength(outline.astype(np.float32), True)
        assert wrong <= 0.02 * separate.sum() + 0.06 * edge  # bridges are without width, pixels are not


def test_coco128_segments_have_the_boxes_of_the_annotations(shared_data, tmp_path: Path) -> None:
    data = shared_data / "data" / "coco128"
    coco_to_yolo(data / "instances_train2017.json", tmp_path, segments=True, images="train2017")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train2017").symlink_to(data / "images" / "train2017")
    index = build_index([tmp_path / "images/train2017"], 80, polygons=True, cache=False)
    boxes = build_index([data / "images/train2017"], 80, cache=False)
    assert len(index.classes) == len(boxes.classes) == 929
    assert np.diff(index.polygon_offsets).max() > 20
    close = 0
    for i in range(len(index)):
        ours, theirs = index.boxes[index.label_slice(i)], boxes.boxes[boxes.label_slice(i)]
        close += sum(float(np.abs(theirs - box).max(1).min()) < 0.01 for box in ours) if len(ours) else 0
    assert close > 0.97 * 929


def test_ids_with_gaps_subfolders_and_data_yaml(tmp_path: Path) -> None:
    file = coco(tmp_path, [{}, {"category_id": 3, "bbox": [0, 0, 100, 50]}])
    counts = coco_to_yolo(file, tmp_path / "out")
    assert dict(counts) == {"images": 1, "objects": 2}
    assert rows(tmp_path) == ["1 0.2 0.3 0.2 0.4", "0 0.5 0.5 1 1"]
    (tmp_path / "out/images/day1").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "out/images/day1/a.jpg"), np.zeros((50, 100, 3), np.uint8))
    spec = load_dataset(tmp_path / "out/data.yaml")
    assert spec.names == {0: "cat", 1: "dog"}
    assert build_index(spec.split("train"), spec.nc).classes.tolist() == [1, 0]


def test_what_is_left_out_is_counted(tmp_path: Path, capsys) -> None:
    rle = {"size": [50, 100], "counts": "abc"}
    annotations = [
        {"iscrowd": 1, "segmentation": rle},
        {"segmentation": rle, "iscrowd": 0},
        {"bbox": [5, 5, 0, 10]},
        {"bbox": [200, 5, 10, 10]},
        {"segmentation": [[10, 5, 30, 5, 30, 25]]},
        {"segmentation": [[10, 5, 30, 5, 30, 25]]},
        {"segmentation": [[1, 2, 3, 4]]},  # two points are no polygon: the box
        {"bbox": [90, 40, 20, 20]},  # half of it outside
    ]
    main(["coco", str(coco(tmp_path, annotations)), str(tmp_path / "out"), "--segments"])
    assert rows(tmp_path) == ["1 0.2 0.3 0.2 0.4", "1 0.1 0.1 0.3 0.1 0.3 0.5", "1 0.95 0.9 0.1 0.2"]
    said = capsys.readouterr()
    assert "3 objects of 1 images" in said.out
    for text in ("1 crowd regions", "1 objects have run-length masks", "2 boxes without area", "2 repeated objects"):
        assert text in said.err


def test_parts_are_joined_without_loss() -> None:
    """Three squares: the outline has their summed area, and filling it fills them alone."""
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)
    parts = [square + np.array([40, 0]), square, square * 1.5 + np.array([12, 30])]
    outline = join_parts(parts)
    assert len(outline) == 12 + 2 * 2
    x, y = outline.T
    assert abs(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 - (100 + 100 + 225)) < 1e-9
    picture = np.zeros((60, 60), np.uint8)
    cv2.fillPoly(picture, [outline.astype(np.int32)], 1)
    alone = np.zeros_like(picture)
    for part in parts:
        cv2.fillPoly(alone, [part.astype(np.int32)], 1)
    assert (picture != alone).sum() <= 60  # the bridges, one pixel wide
    assert len(join_parts([square])) == 4


@pytest.mark.parametrize("file_name", ["../a.jpg", "/etc/a.jpg", "..\\a.jpg", ""])
def test_names_outside_the_folder(tmp_path: Path, file_name: str) -> None:
    image = {"id": 42, "file_name": file_name, "width": 100, "height": 50}
    with pytest.raises(UserError, match="is not a path below"):
        coco_to_yolo(coco(tmp_path, [], {"images": [image]}), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "it has no list 'images'"),
        ({"categories": []}, "no categories"),
        ({"annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 1, 1]}]}, "no such image_id: 1"),
        ({"annotations": [{"image_id": 42, "category_id": 8, "bbox": [0, 0, 1, 1]}]}, "no such category_id: 8"),
        ({"annotations": [{"image_id": 42, "caption": "a dog"}]}, r"annotations\[0\] has no 'category_id'"),
        ({"images": [{"id": 42, "file_name": "a.jpg", "width": 0, "height": 5}]}, "given as 0x5 pixels"),
    ],
)
def test_other_json(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        coco_to_yolo(coco(tmp_path, [], changes), tmp_path / "out")


def test_not_json_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images":\n oops}')
    with pytest.raises(UserError, match=r"a\.json:2: not valid JSON"):
        coco_to_yolo(tmp_path / "a.json", tmp_path / "out")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UserError, match="not a COCO file"):
        coco_to_yolo(tmp_path / "a.json", tmp_path / "out")
    with pytest.raises(UserError, match="cannot read"):
        coco_to_yolo(tmp_path / "b.json", tmp_path / "out")


def test_second_file_must_have_the_same_classes(tmp_path: Path) -> None:
    coco_to_yolo(coco(tmp_path, [{}]), tmp_path / "out")
    coco_to_yolo(coco(tmp_path, [{}]), tmp_path / "out", images="val")
    assert (tmp_path / "out/labels/val/day1/a.txt").is_file()
    with pytest.raises(UserError, match="has other classes"):
        coco_to_yolo(coco(tmp_path, [], {"categories": [{"id": 1, "name": "cow"}]}), tmp_path / "out")


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def voc(root: Path, objects: str, head: str = "") -> Path:
    year = root / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True)
    (year / "JPEGImages" / "a.jpg").write_text("picture")
    (year / "ImageSets/Main/train.txt").write_text("a\n")
    (year / "Annotations" / "a.xml").write_text(
        f"{head}<annotation><size><width>100</width><height>50</height></size>{objects}</annotation>"
    )
    return year


def thing(name: str, xmin: float = 11, ymin: float = 6, xmax: float = 30, ymax: float = 25, difficult: int = 0) -> str:
    box = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


def test_voc_by_hand_and_again_after_an_interruption(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    objects = thing("dog") + thing("cat", 1, 1, 100, 50) + thing("dog", difficult=1) + thing("cow")
    voc(tmp_path, objects.replace("</object>", f"{part}</object>", 1))
    for _ in range(2):
        counts = voc_to_yolo(tmp_path, {0: "cat", 1: "dog"})
        assert dict(counts) == {"images": 1, "objects": 2, "difficult": 1, "unknown": 1}
        # a box from pixel 11 to pixel 30, both counted, lies between 10 and 30; the whole picture is 0.5 0.5 1 1
        assert (tmp_path / "labels/train2007/a.txt").read_text() == "1 0.2 0.3 0.2 0.4\n0 0.5 0.5 1 1\n"
        assert (tmp_path / "images/train2007/a.jpg").read_text() == "picture"


@pytest.mark.parametrize(
    ("objects", "head", "message"),
    [
        ("<object>", "", r"a\.xml: not a VOC annotation"),
        ("<object><name>dog</name></object>", "", r"a\.xml: not a VOC annotation"),
        (thing("dog"), '<!DOCTYPE x [<!ENTITY a "b">]>', "has no document type"),
    ],
)
def test_voc_that_is_none(tmp_path: Path, objects: str, head: str, message: str) -> None:
    voc(tmp_path, objects, head)
    with pytest.raises(UserError, match=message):
        voc_to_yolo(tmp_path, {0: "dog"})


def test_voc_absent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Pascal VOC data"):
        voc_to_yolo(tmp_path, {0: "dog"})
    (voc(tmp_path, thing("dog")) / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(UserError, match="names 'a', but there is no"):
        voc_to_yolo(tmp_path, {0: "dog"})
