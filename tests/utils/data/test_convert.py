"""COCO and VOC annotations as label rows: against coco128's own labels, and by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from utils.data.convert import coco_to_yolo, join_parts, main, voc_to_yolo
from utils.data.indexing.index import build_index
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


def voc(root: Path, objects: str, head: str = "", width: str = "100") -> Path:
    year = root / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True)
    (year / "JPEGImages" / "a.jpg").write_text("picture")
    (year / "ImageSets/Main/train.txt").write_text("a\n")
    (year / "Annotations" / "a.xml").write_text(
        f"{head}<annotation><size><width>{width}</width><height>50</height></size>{objects}</annotation>"
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


def _coco(**changes: Any) -> dict[str, Any]:
    """A good file of one image, category and annotation; ``bbox=…`` changes the part with such a key."""
    image = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}
    annotation = {
        "id": 7,
        "image_id": 1,
        "category_id": 3,
        "bbox": [10, 10, 20, 20],
        "segmentation": [[1, 1, 9, 1, 9, 9]],
    }
    category = {"id": 3, "name": "cat"}
    for key, value in changes.items():
        next(part for part in (image, annotation, category) if key in part)[key] = value
    return {"images": [image], "annotations": [annotation], "categories": [category]}


def _more(part: str, **entry: Any) -> dict[str, Any]:
    content = _coco()
    content[part].append({**content[part][0], **entry})
    return content


HOSTILE: dict[str, tuple[Any, str]] = {
    "bbox3": (_coco(bbox=[1, 2, 3]), "annotation 7: bbox is x, y, width and height in pixels, not [1, 2, 3]"),
    "bbox5": (_coco(bbox=[1, 2, 3, 4, 5]), "annotation 7: bbox is"),
    "bboxempty": (_coco(bbox=[]), "annotation 7: bbox is"),
    "bboxnan": (_coco(bbox=[1, float("nan"), 3, 4]), "annotation 7: bbox is"),
    "bboxinf": (_coco(bbox=[1, 2, float("inf"), 4]), "annotation 7: bbox is"),
    "bboxfar": (_coco(bbox=[1, 2, 1e300, 4]), "annotation 7: bbox is"),
    "bboxstr": (_coco(bbox="oops"), "annotation 7: bbox is"),
    "bboxwords": (_coco(bbox=["oops", 1, 2, 3]), "annotation 7: bbox is"),
    "bboxtrue": (_coco(bbox=[True, 1, 2, 3]), "annotation 7: bbox is"),
    "bboxnull": (_coco(bbox=None), "annotation 7: bbox is"),
    "bboxnested": (_coco(bbox=[[1, 2], [3, 4]]), "annotation 7: bbox is"),
    "widthnull": (_coco(width=None), "image 'a.jpg' is given as Nonex50 pixels"),
    "widthstr": (_coco(width="wide"), "image 'a.jpg' is given as 'wide'x50 pixels"),
    "heightlist": (_coco(height=[5]), "image 'a.jpg' is given as 100x[5] pixels"),
    "heightnan": (_coco(height=float("nan")), "image 'a.jpg' is given as 100xnan pixels"),
    "seg_num": (_coco(segmentation=5), "annotation 7: segmentation is a list of polygons"),
    "seg_words": (_coco(segmentation=[["a"] * 6]), "annotation 7: segmentation is a list of polygons"),
    "seg_odd": (_coco(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 7: segmentation is a list of polygons"),
    "seg_flat": (_coco(segmentation=[1, 2, 3, 4, 5, 6]), "annotation 7: segmentation is a list of polygons"),
    "seg_nan": (_coco(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "annotation 7: segmentation"),
    "idlist": (_coco(image_id=[1]), "annotation 7: no such image_id: [1]"),
    "catdict": (_coco(category_id={"a": 1}), "annotation 7: no such category_id"),
    "catabsent": (_coco(category_id=4), "annotation 7: no such category_id: 4"),
    "imageidlist": ({**_coco(), "images": [{**_coco()["images"][0], "id": [1]}]}, "ids must be numbers"),
    "catmixed": (_more("categories", id="x"), "ids must be numbers"),
    "cattwice": (_more("categories", name="dog"), "categories: id 3 is there twice"),
    "imagetwice": (_more("images", file_name="b.jpg"), "images: id 1 is there twice"),
    "catname": (_coco(name=None), "categories[0]: None is not a class name"),
    "catnameline": (_coco(name="a\nb"), "is not a class name"),
    "entry_int": ({**_coco(), "annotations": [5]}, "annotations[0] is a int where an object should be"),
    "entry_str": ({**_coco(), "images": ["a.jpg"]}, "images[0] is a str where an object should be"),
    "entry_null": ({**_coco(), "categories": [None]}, "categories[0] is a NoneType where an object should be"),
    "bigint": ('{"images": [%s]}' % ("9" * 6000), "not JSON that can be read"),
    "deep": ("[" * 100_000, "not JSON that can be read"),
    "file_nul": (_coco(file_name="a\0.jpg"), "is not a path below the images' folder"),
    "file_newline": (_coco(file_name="a\nb.jpg"), "is not a path below the images' folder"),
    "file_surrogate": (_coco(file_name="a\ud800.jpg"), "is not a path below the images' folder"),
    "file_trav": (_coco(file_name="../a.jpg"), "is not a path below the images' folder"),
    "file_null": (_coco(file_name=""), "is not a path below the images' folder"),
    "file_long": (_coco(file_name="a" * 300 + ".jpg"), "there can be no label file"),
    "same_stem": (_more("images", id=2, file_name="a.png"), "images 'a.jpg' and 'a.png' would share the label file"),
    "file_and_folder": (_more("images", id=2, file_name="a.txt/b.jpg"), "would be a file and a folder"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_coco_file_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    content, told = HOSTILE[name]
    file = tmp_path / "a.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(told)) as error:
        coco_to_yolo(file, tmp_path / "out", segments=True)
    assert str(error.value).startswith(str(file))
    assert not (tmp_path / "out").exists()


def test_a_folder_where_a_label_file_goes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(_coco()))
    (tmp_path / "out/labels/a.txt").mkdir(parents=True)
    with pytest.raises(UserError, match="there can be no label file"):
        coco_to_yolo(tmp_path / "a.json", tmp_path / "out")


def test_an_object_without_outline_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(_coco(segmentation=None)))
    assert coco_to_yolo(tmp_path / "a.json", tmp_path / "out", segments=True)["without outline"] == 1
    assert (tmp_path / "out/labels/a.txt").read_text() == "0 0.2 0.4 0.2 0.4\n"


@pytest.mark.parametrize("stem", ["../../../../pic", "/etc/passwd", "a/b", "..\\x", "n" * 250, "a\x01"])
def test_voc_lists_name_images_of_their_folder_only(stem: str, tmp_path: Path) -> None:
    year = voc(tmp_path / "deep" / "er", "")
    (year / "ImageSets/Main/train.txt").write_text(f"{stem}\n")
    (tmp_path / "pic.jpg").write_bytes(b"mine")
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(UserError, match="train.txt: .* is not the name of an image"):
        voc_to_yolo(year.parent, {0: "cat"})
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("width", ["nan", "inf", "1e300", "wide", "", "0", "-5"])
def test_voc_sizes(width: str, tmp_path: Path) -> None:
    year = voc(tmp_path, thing("cat", 1, 1, 5, 5), width=width)
    with pytest.raises(UserError, match=r"a\.xml: not a VOC annotation"):
        voc_to_yolo(year.parent, {0: "cat"})
