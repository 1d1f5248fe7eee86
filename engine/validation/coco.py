"""Detections as COCO JSON, and what the official evaluator makes of them, for any data set.

The ground truth is an official annotation file where there is one; else it is written from the labels.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from engine.task import DetectionTask
from engine.validation.validated_image import ValidatedImage
from utils.data.batch import Batch
from utils.data.indexing.index import ImageIndex
from utils.errors import UserError
from utils.files import atomic_write
from utils.logging import LOGGER
from utils.ops.masks import BoxMask, paste_mask


@dataclass(frozen=True)
class CocoIds:
    """How a ground-truth file calls things: `images` path → id, `categories` class → id."""

    images: Mapping[str, int]
    categories: Sequence[int]


class OfficialScore(NamedTuple):
    """What pycocotools says: AP at IoU 0.50:0.95 and at 0.50, and its whole summary as text."""

    ap: float
    ap50: float
    text: str


def image_ids(paths: Sequence[str]) -> dict[str, int]:
    """An id for each image: its file name where all names are numbers and none repeats (as in COCO), else its place."""
    stems = [Path(path).stem for path in paths]
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    kept = len(numbers) == len(stems) == len(set(numbers))
    return dict(zip(paths, numbers if kept else range(len(paths)), strict=True))


# --- ground truth -----------------------------------------------------------------------------------------------------


def write_ground_truth(index: ImageIndex, names: Mapping[int, str], path: Path) -> CocoIds:
    """Write the labels of `index` as a COCO instances file to `path`; categories are numbered from 1.

    Boxes are cut to their image, as the metrics do. An index with polygons gives each object its segmentation, too.
    """
    ids = CocoIds(image_ids(index.paths), [class_id + 1 for class_id in range(len(names))])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, image_id in enumerate(ids.images.values()):
        height, width = (int(n) for n in index.shapes[i])
        images.append({"id": image_id, "file_name": Path(index.path(i)).name, "height": height, "width": width})
        rows = index.label_slice(i)
        half = index.boxes[rows, 2:].astype(np.float64) / 2
        centre = index.boxes[rows, :2]
        corners = np.concatenate([centre - half, centre + half], 1).clip(0, 1) * [width, height, width, height]
        for j, class_id, (x1, y1, x2, y2) in zip(
            range(rows.start, rows.stop), index.classes[rows], corners.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # the evaluator takes an id of 0 for "not matched"
                    "image_id": image_id,
                    "category_id": ids.categories[int(class_id)],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    **_segmentation(index, j, (width, height)),
                }
            )
    categories = [{"id": number, "name": names[c]} for c, number in enumerate(ids.categories)]
    with atomic_write(path, "w") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)
    return ids


def _segmentation(index: ImageIndex, j: int, size: tuple[int, int]) -> dict[str, Any]:
    """The outline of object `j` and its area, in pixels of an image of `size` (width, height); nothing without one."""
    if index.polygons is None:
        return {}
    points = index.polygon(j).astype(np.float64) * size
    x, y = points.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return {"segmentation": [points.ravel().tolist()], "area": area}


def ids_of_annotations(
    path: str | Path, paths: Sequence[str], names: Mapping[int, str], outlines: bool = False
) -> CocoIds:
    """The ids that the official annotation file `path` gives to the images `paths` and to the classes `names`.

    Images are found by file name. Classes are found by name; where names differ but their number does not, by order (so
    the 80 classes of COCO get their ids between 1 and 90). Raises `UserError` where the two do not belong together, or,
    with `outlines`, where an annotation has none to score masks against.
    """
    content = _read_annotations(path)
    if outlines and (bare := [a for a in content["annotations"] if not a.get("segmentation")]):
        raise UserError(
            f"{path}: {len(bare)} of {len(content['annotations'])} annotations have no segmentation (first: id "
            f"{bare[0].get('id')}), so masks cannot be scored against it; give --coco-annotations another file"
        )
    by_name = {Path(image["file_name"]).name: int(image["id"]) for image in content["images"]}
    found = {p: by_name[Path(p).name] for p in paths if Path(p).name in by_name}
    if not found:
        raise UserError(f"{path}: holds none of the {len(paths)} images, for example not '{Path(paths[0]).name}'")
    if len(found) < len(paths):
        LOGGER.warning(f"{path} lacks {len(paths) - len(found)} of {len(paths)} images; they are not scored")
    categories = {category["name"]: int(category["id"]) for category in content["categories"]}
    wanted = [names[c] for c in range(len(names))]
    if all(name in categories for name in wanted):
        return CocoIds(found, [categories[name] for name in wanted])
    if len(categories) != len(wanted):
        missing = next(name for name in wanted if name not in categories)
        raise UserError(
            f"{path}: {len(categories)} categories, none named '{missing}', but the data set has {len(wanted)}"
        )
    return CocoIds(found, sorted(categories.values()))


def _read_annotations(path: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"cannot read --coco-annotations '{path}': {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise UserError(f"{path}: not a COCO instances file: it lacks images, annotations or categories")
    return content


# --- predictions ------------------------------------------------------------------------------------------------------


class JsonWriter(contextlib.AbstractContextManager):
    """Streams detections to a COCO results file, which appears when the block ends without an error.

    A listener of `validate`; images without an id in `ids` are left out.
    """

    def __init__(self, path: Path, ids: CocoIds, task: DetectionTask) -> None:
        self.ids = ids
        self.task = task
        self.count = 0
        self._stack = contextlib.ExitStack()
        self._file: IO[str] = self._stack.enter_context(atomic_write(path, "w"))
        self._file.write("[")

    def add(self, batch: Batch, images: Sequence[ValidatedImage]) -> None:
        for image in images:
            if image.path in self.ids.images:
                rows = bbox_rows(image, self.ids.images[image.path], self.ids.categories)
                masks = self.task.original_masks(image)
                if masks is not None:
                    for row, box_mask in zip(rows, masks, strict=True):
                        row["segmentation"] = run_lengths(box_mask, image.size)
                for row in rows:
                    self._file.write(("," if self.count else "") + "\n" + json.dumps(row))
                    self.count += 1

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            self._file.write("\n]\n")
        return self._stack.__exit__(*error)


def bbox_rows(image: ValidatedImage, image_id: int, categories: Sequence[int]) -> list[dict[str, Any]]:
    """The detections of `image` as rows of a COCO results file: bbox is left, top, width, height in pixels."""
    table = image.detections[:, :6].cpu().double()
    table[:, 2:4] -= table[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": categories[int(class_id)],
            "bbox": [round(value, 3) for value in box],
            "score": round(confidence, 6),
        }
        for *box, confidence, class_id in table.tolist()
    ]


def run_lengths(box_mask: BoxMask, size: tuple[int, int]) -> dict[str, Any]:
    """A mask in an image of `size` (height, width) as COCO writes it: compressed run lengths, column by column."""
    from pycocotools import mask

    code = mask.encode(np.asfortranarray(paste_mask(box_mask, size), np.uint8))
    return {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}


# --- the evaluator ----------------------------------------------------------------------------------------------------


def score_officially(
    ground_truth: Path, predictions: Path, images: Sequence[int], iou_type: str = "bbox"
) -> OfficialScore:
    """Run pycocotools on a ground-truth and a results file, over the image ids `images`.

    Raises `UserError` where pycocotools is not installed.
    """
    coco_api, evaluator = import_pycocotools()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_api(str(ground_truth))
        rows = json.loads(predictions.read_text(encoding="utf-8"))
        if not rows:  # which the evaluator cannot load
            return OfficialScore(0.0, 0.0, "no detections")
        evaluation = evaluator(truth, truth.loadRes(rows), iou_type)
        evaluation.params.imgIds = sorted(set(images))
        evaluation.evaluate()
        evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as text:
        evaluation.summarize()
    return OfficialScore(float(evaluation.stats[0]), float(evaluation.stats[1]), text.getvalue().rstrip())


def import_pycocotools() -> tuple[Any, Any]:
    """``COCO`` and ``COCOeval``."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError("--save-json needs the official COCO evaluator: pip install pycocotools") from error
    return COCO, COCOeval


def report_gap(official: OfficialScore, map50: float, map: float, label: str = "bbox") -> None:
    """Print the official summary, and how far our own figures are from it.

    Ours are the reference's: its precision-recall curve falls in a straight line from the last detection to recall 1,
    which counts where a detector makes few unsure detections; the official curve is 0 there.
    """
    LOGGER.info(f"pycocotools, {label}:\n{official.text}")
    LOGGER.info(
        f"mAP50-95 official {official.ap:.4f}, ours {map:.4f}, gap {official.ap - map:+.4f}; "
        f"mAP50 official {official.ap50:.4f}, ours {map50:.4f}, gap {official.ap50 - map50:+.4f}"
    )
