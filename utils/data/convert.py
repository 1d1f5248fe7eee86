"""Converts labels of other formats to YOLO label files.

Usage:
    python -m utils.data.convert coco instances_train.json datasets/mine              # boxes
    python -m utils.data.convert coco instances_train.json datasets/mine --segments   # polygons
    python -m utils.data.convert coco instances_val.json datasets/mine --images val   # below labels/val
"""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from utils.cli import CommandParser, run_command
from utils.errors import UserError
from utils.files import make_folder
from utils.logging import LOGGER
from utils.progress import Progress
from utils.yamls import load_yaml, read_text, save_yaml

_NO_NAME = re.compile("[\0-\x1f\ud800-\udfff]")  # what the name of an image or a class must not contain
_FAR = 1e9  # pixels; a number beyond this is an error

# --- COCO -------------------------------------------------------------------------------------------------------------


def coco_to_yolo(annotations: str | Path, out: str | Path, *, segments: bool = False, images: str = "") -> Counter[str]:
    """Convert a COCO JSON file (objects, not captions) to label files below ``out/labels/`` and an ``out/data.yaml``.

    Category ids may have gaps; they become 0..n-1 in their order. `images` and the folders in ``file_name`` become
    folders below ``labels/``. Crowd regions are left out. With `segments` the parts of an object are joined to one
    polygon; run-length masks cannot be joined and become boxes. An image without objects gets an empty file. Returns
    counts: images, objects, crowds, run-length, without outline, empty, repeated. Raises `UserError` for a file of
    another structure, before anything is written.
    """
    annotations, out = Path(annotations), Path(out)
    content = _read_coco(annotations)
    try:
        categories = sorted(content["categories"], key=lambda c: c["id"])
        classes = {category["id"]: i for i, category in enumerate(categories)}
        by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    except TypeError as error:
        raise UserError(f"{annotations}: ids must be numbers, or all of them texts ({error})") from error
    _check_ids(annotations, content, classes, by_image)
    names = {i: str(category["name"]) for i, category in enumerate(categories)}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)

    counts: Counter[str] = Counter()
    rows = [
        _coco_rows(annotations, image, by_image[image["id"]], classes, segments, counts) for image in content["images"]
    ]
    files = _label_files(annotations, content["images"], out / "labels" / images)
    _write_data_yaml(out, names, images, annotations)
    for file, of_image in Progress(list(zip(files, rows, strict=True)), "writing labels", unit="images"):
        make_folder(file.parent)
        file.write_text("".join(f"{row}\n" for row in of_image), encoding="utf-8")
        counts["images"] += 1
        counts["objects"] += len(of_image)
    return counts


def _read_coco(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists within lists
        raise UserError(f"{path}: not JSON that can be read: {error}") from error
    needed = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a COCO file: a {type(content).__name__} where an object should be")
    for part, keys in needed.items():
        entries = content.get(part)
        if not isinstance(entries, list):
            raise UserError(f"{path}: not a COCO file of objects: it has no list '{part}'")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise UserError(f"{path}: {part}[{number}] is a {type(entry).__name__} where an object should be")
            if missing := [key for key in keys if key not in entry]:
                raise UserError(f"{path}: {part}[{number}] has no '{missing[0]}'")
    if not content["categories"]:
        raise UserError(f"{path}: no categories")
    for number, category in enumerate(content["categories"]):
        if type(category["name"]) not in (str, int, float) or _NO_NAME.search(str(category["name"])):
            raise UserError(f"{path}: categories[{number}]: {category['name']!r} is not a class name")
    return content


def _check_ids(path: Path, content: dict[str, Any], classes: Mapping[Any, int], images: Mapping[Any, Any]) -> None:
    """Raise `UserError` for an id that is there twice, or that is referred to but not there."""
    for part, known in (("categories", classes), ("images", images)):
        if len(known) < len(content[part]):
            twice = Counter(entry["id"] for entry in content[part]).most_common(1)[0][0]
            raise UserError(f"{path}: {part}: id {twice!r} is there twice")
    for annotation in content["annotations"]:
        for key, known in (("image_id", images), ("category_id", classes)):
            value = annotation[key]
            if not isinstance(value, (int, str, float)) or value not in known:
                raise UserError(f"{path}: annotation {annotation.get('id')}: no such {key}: {value!r}")


def _label_files(source: Path, images: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """The label file of each image. Raises `UserError` for a name that no file can have, and if two share a file."""
    owners: dict[Path, str] = {}
    for image in images:
        name = str(image["file_name"])
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or not path.name or _NO_NAME.search(name):
            raise UserError(f"{source}: file_name {name!r} is not a path below the images' folder")
        file = folder / path.with_suffix(".txt")
        if len(os.fsencode(file.name)) > 255 or file.is_dir():
            raise UserError(f"{source}: file_name '{name}': there can be no label file '{file}'")
        if file in owners:
            raise UserError(f"{source}: images '{owners[file]}' and '{name}' would share the label file '{file}'")
        owners[file] = name
    for file, name in owners.items():
        if clash := next((parent for parent in file.parents if parent in owners), None):
            raise UserError(f"{source}: images '{owners[clash]}' and '{name}': '{clash}' would be a file and a folder")
    return list(owners)


def _write_data_yaml(out: Path, names: dict[int, str], images: str, source: Path) -> None:
    """Write a YAML for ``--data``. An existing one is kept, and must have the same classes."""
    file = make_folder(out) / "data.yaml"
    if file.is_file():
        there = load_yaml(file).get("names")
        if there != names:
            raise UserError(f"{file} has other classes than {source}; convert into another folder")
        return
    folder = str(PurePosixPath("images") / images)
    save_yaml(file, {"path": ".", "train": folder, "val": folder, "names": names})


def _numbers(value: Any, count: int | None = None) -> np.ndarray | None:
    """`value` as an array of `count` finite numbers; None if it is anything else."""
    if not isinstance(value, list) or not all(type(v) in (int, float) and abs(v) <= _FAR for v in value):
        return None
    return np.array(value, np.float64) if count in (None, len(value)) else None


def _coco_rows(
    source: Path,
    image: Mapping[str, Any],
    annotations: Iterable[Mapping[str, Any]],
    classes: Mapping[Any, int],
    segments: bool,
    counts: Counter[str],
) -> list[str]:
    """The label rows of one image. What is left out is added to `counts`."""
    size = _numbers([image["width"], image["height"]])
    if size is None or (size < 1).any():
        raise UserError(
            f"{source}: image {image['file_name']!r} is given as {image['width']!r}x{image['height']!r} pixels"
        )
    rows: dict[str, None] = {}
    for annotation in annotations:
        if annotation.get("iscrowd"):
            counts["crowds"] += 1
            continue
        box = _numbers(annotation["bbox"], 4)
        if box is None:
            place = f"{source}: annotation {annotation.get('id')!r}"
            raise UserError(f"{place}: bbox is x, y, width and height in pixels, not {annotation['bbox']!r}")
        low, high = box[:2].clip(0, size), (box[:2] + box[2:]).clip(0, size)
        if (high <= low).any():
            counts["empty"] += 1
            continue
        coordinates = np.concatenate(((low + high) / 2 / size, (high - low) / size))
        if segments:
            outline = annotation.get("segmentation")
            if isinstance(outline, dict):
                counts["run-length"] += 1
            elif parts := _outline_parts(source, annotation, outline or []):
                coordinates = (join_parts(parts) / size).clip(0, 1).ravel()
            else:
                counts["without outline"] += 1
        row = f"{classes[annotation['category_id']]} " + " ".join(f"{value:.6g}" for value in coordinates)
        if row in rows:
            counts["repeated"] += 1
        rows[row] = None
    return list(rows)


def _outline_parts(source: Path, annotation: Mapping[str, Any], outline: Any) -> list[np.ndarray]:
    """The polygons (k, 2) of an object. Those of fewer than three points are left out."""
    lists = outline if isinstance(outline, list) else [outline]
    parts = [_numbers(part) for part in lists]
    if any(part is None or len(part) % 2 for part in parts):
        raise UserError(
            f"{source}: annotation {annotation.get('id')!r}: segmentation is a list of polygons [x1, y1, x2, y2, …] in "
            f"pixels, not {outline!r}"
        )
    return [part.reshape(-1, 2) for part in parts if part is not None and len(part) >= 6]


def join_parts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join several polygons (k_i, 2) to one closed outline (k, 2), by bridges without width between nearest vertices.

    It begins with the largest polygon and adds the nearest of the others each time, entering and leaving it at one
    vertex, so that filling the outline fills exactly the parts.
    """
    rest = sorted((np.asarray(part, np.float64) for part in parts), key=_area, reverse=True)
    outline = rest.pop(0)
    while rest:
        distances = [((outline[:, None] - part[None]) ** 2).sum(2) for part in rest]
        nearest = int(np.argmin([d.min() for d in distances]))
        here, there = np.unravel_index(int(distances[nearest].argmin()), distances[nearest].shape)
        part = rest.pop(nearest)
        detour = np.concatenate((part[there:], part[: there + 1]))  # around the part and back to where it was entered
        outline = np.concatenate((outline[: here + 1], detour, outline[here:]))
    return outline


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def voc_to_yolo(root: str | Path, names: Mapping[int, str]) -> Counter[str]:
    """Turn the ``VOC<year>`` folders below `root` into ``images/<split><year>`` (moved) and ``labels/<split><year>``.

    Splits are the lists train, val and test in ``ImageSets/Main``. Boxes of VOC count pixels from 1 and include both
    ends, so a box covers ``xmin - 1`` to ``xmax``. Objects marked difficult are left out, as are classes outside
    `names`. May be run again after an interruption. Returns counts: images, objects, difficult, unknown. Raises
    `UserError` where there is no such folder.
    """
    root = Path(root)
    ids = {name: i for i, name in names.items()}
    counts: Counter[str] = Counter()
    for year in sorted(p for p in root.rglob("VOC*") if (p / "ImageSets" / "Main").is_dir()):
        for split in ("train", "val", "test"):
            listing = year / "ImageSets" / "Main" / f"{split}.txt"
            if not listing.is_file():
                continue
            folder = f"{split}{year.name.removeprefix('VOC')}"
            images, labels = make_folder(root / "images" / folder), make_folder(root / "labels" / folder)
            stems = [line.split()[0] for line in read_text(listing).splitlines() if line.strip()]
            for stem in stems:
                if PurePosixPath(stem).name != stem or "\\" in stem or len(stem) > 200 or _NO_NAME.search(stem):
                    raise UserError(f"{listing}: {stem!r} is not the name of an image")
            for stem in Progress(stems, f"converting {folder}", unit="images"):
                rows = _voc_rows(year / "Annotations" / f"{stem}.xml", ids, counts)
                (labels / f"{stem}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
                source, target = year / "JPEGImages" / f"{stem}.jpg", images / f"{stem}.jpg"
                if source.is_file():
                    source.replace(target)
                elif not target.is_file():
                    raise UserError(f"{listing} names '{stem}', but there is no {source}")
                counts["images"] += 1
                counts["objects"] += len(rows)
    if not counts["images"]:
        raise UserError(f"no Pascal VOC data (VOC2007/ImageSets/Main/*.txt) below {root}")
    return counts


def _voc_rows(file: Path, ids: Mapping[str, int], counts: Counter[str]) -> list[str]:
    text = read_text(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{file}: a VOC annotation has no document type; it is not read")
    rows = []
    try:
        tree = ElementTree.fromstring(text)  # noqa: S314 - entities are refused above
        width, height = (_pixels(tree, f"size/{side}") for side in ("width", "height"))
        if min(width, height) <= 0:
            raise ValueError(f"the size is {width:g}x{height:g}")
        for item in tree.iter("object"):
            x1, y1, x2, y2 = (_pixels(item, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax"))
            if item.findtext("difficult", "0").strip() == "1":
                counts["difficult"] += 1
            elif (name := item.findtext("name", "").strip()) not in ids:
                counts["unknown"] += 1
            else:
                x1, y1 = x1 - 1, y1 - 1
                coordinates = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                rows.append(f"{ids[name]} " + " ".join(f"{value:.6g}" for value in coordinates))
    except (ElementTree.ParseError, ValueError, ZeroDivisionError, RecursionError) as error:
        raise UserError(f"{file}: not a VOC annotation: {error}") from error
    return rows


def _pixels(element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path, "")
    value = float(text)
    if not abs(value) <= _FAR:
        raise ValueError(f"{path} is '{text}'")
    return value


# --- command ----------------------------------------------------------------------------------------------------------


def parse_opt(args: Sequence[str] | None = None):  # type: ignore[no-untyped-def]
    """The flags of ``python -m utils.data.convert``."""
    parser = CommandParser("labels of other formats as YOLO label files", prog="python -m utils.data.convert")
    parser.add_argument("format", choices=("coco",), help="format of the annotations")
    parser.add_argument("annotations", help="JSON file with images, annotations and categories")
    parser.add_argument("out", help="folder for labels/ and data.yaml")
    parser.add_argument("--segments", action="store_true", help="polygons instead of boxes")
    parser.add_argument("--images", default="", help="folder of the images below images/, such as train2017")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Convert, and say what was done and what comes next."""
    options = parse_opt(args)
    counts = coco_to_yolo(options.annotations, options.out, segments=options.segments, images=options.images)
    out = Path(options.out)
    LOGGER.info(f"{counts['objects']} objects of {counts['images']} images in {out / 'labels' / options.images}")
    for kind, text in (
        ("crowds", "crowd regions were left out"),
        ("run-length", "objects have run-length masks and became boxes"),
        ("without outline", "objects have no polygon and became boxes"),
        ("empty", "boxes without area were left out"),
        ("repeated", "repeated objects were left out"),
    ):
        if counts[kind]:
            LOGGER.warning(f"{counts[kind]} {text}")
    LOGGER.info(f"Put the images into {out / 'images' / options.images}, then: python train.py --data {out}/data.yaml")


if __name__ == "__main__":
    run_command(main)  # type: ignore[arg-type]
