"""COCO JSON and the official evaluator, against hand arithmetic and on data whose answer is known."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
import torch

from engine.task import DetectionTask
from engine.validation import coco
from engine.validation.validated_image import validated_images
from tests.engine.validation.scenes import SIZE, make_batches, make_index
from utils.errors import UserError

NAMES = {0: "cat", 1: "dog"}


def _write(path, index, detections, names=NAMES):
    """Ground truth and results files of `detections`, one (n, 6) xyxy, confidence, class array an image."""
    ids = coco.write_ground_truth(index, names, path / "truth.json")
    with coco.JsonWriter(path / "found.json", ids, DetectionTask()) as writer:
        for i, batch in enumerate(make_batches(index, 1)):
            writer.add(
                batch, validated_images(batch, [torch.as_tensor(detections[i], dtype=torch.float32).view(-1, 6)], None)
            )
    return ids


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a/000009.jpg", "b/000025.jpg"], [9, 25]),
        (["a/007.jpg", "b/7.jpg"], [0, 1]),  # 7 twice
        (["a/x1.jpg", "a/2.jpg"], [0, 1]),
        ([], []),
    ],
)
def test_image_ids_keep_numbers_that_are_unique(names, ids):
    assert list(coco.image_ids(names).values()) == ids


def test_ground_truth_by_hand(tmp_path):
    index = make_index([[(1, 0.5, 0.5, 0.25, 0.5)], [], [(0, 0.0, 0.25, 0.5, 0.5)]])
    ids = coco.write_ground_truth(index, NAMES, tmp_path / "truth.json")
    content = json.loads((tmp_path / "truth.json").read_text())
    assert content["images"][1] == {"id": 1, "file_name": "001.jpg", "height": 96, "width": 128}
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    first, second = content["annotations"]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (1, 0, 2, 0)
    assert first["bbox"] == [48, 24, 32, 48]
    assert first["area"] == 32 * 48
    assert second["bbox"] == [0, 0, 32, 48]  # x from -32 to 32: cut to the image
    assert second["id"] == 2
    assert ids == coco.CocoIds({"images/000.jpg": 0, "images/001.jpg": 1, "images/002.jpg": 2}, [1, 2])


def test_rows_by_hand_and_in_pixels_of_the_original(tmp_path):
    index = make_index([[(1, 0.5, 0.5, 0.25, 0.5)]])
    ids = coco.CocoIds({"images/000.jpg": 42}, [1, 90])
    batch = make_batches(index, original=(192, 256))[0]  # twice the input
    scenes = validated_images(batch, [torch.tensor([[10.0, 20, 30, 60, 0.75, 1]])], None)
    with coco.JsonWriter(tmp_path / "found.json", ids, DetectionTask()) as writer:
        writer.add(batch, scenes)
        assert not (tmp_path / "found.json").exists()
    assert json.loads((tmp_path / "found.json").read_text()) == [
        {"image_id": 42, "category_id": 90, "bbox": [20.0, 40.0, 40.0, 80.0], "score": 0.75}
    ]


def test_an_interrupted_writer_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), coco.JsonWriter(tmp_path / "f.json", coco.CocoIds({}, []), DetectionTask()):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_perfect_half_and_none(tmp_path):
    index = make_index([[(0, 0.3, 0.3, 0.4, 0.4)], [(0, 0.6, 0.6, 0.4, 0.4)]])
    boxes = [[[12.8, 9.6, 64, 48, 0.9, 0]], [[51.2, 38.4, 102.4, 76.8, 0.8, 0]]]
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    ids = _write(tmp_path, index, boxes, {0: "x"})
    assert coco.score_officially(truth, found, list(ids.images.values())).ap == pytest.approx(1.0, abs=1e-6)
    _write(tmp_path, index, [boxes[0], []], {0: "x"})
    half = coco.score_officially(truth, found, [0, 1])
    assert half.ap == pytest.approx(51 / 101, abs=1e-6)  # recall points 0, 0.01, … 0.5 of 101
    assert "Average Precision" in half.text
    _write(tmp_path, index, [[], []], {0: "x"})
    assert coco.score_officially(truth, found, [0, 1])[:2] == (0.0, 0.0)


def test_our_map_is_within_a_hundredth_of_the_official_one(tmp_path):
    """Random objects and imperfect detections of three classes, scored by both."""
    from engine.validation.validator import IOU_THRESHOLDS
    from utils.metrics.detection import DetectionMetrics

    rng = np.random.default_rng(5)
    objects, detections = [], []
    scale = np.array([SIZE[1], SIZE[0]] * 2)
    for _ in range(150):
        n = rng.integers(0, 6)
        centre, size, classes = rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.1, 0.35, (n, 2)), rng.integers(0, 3, n)
        objects.append([(c, *xy, *wh) for c, xy, wh in zip(classes, centre, size, strict=True)])
        seen = rng.random(n) < 0.8
        guess = np.where(rng.random(n) < 0.9, classes, rng.integers(0, 3, n))
        corners = np.concatenate([centre - size / 2, centre + size / 2], 1) * scale
        corners += rng.normal(0, 0.05, (n, 4)) * np.tile(size, 2) * scale
        confidence = rng.uniform(0.3, 1, n)
        real = np.concatenate([corners, confidence[:, None], guess[:, None]], 1)[seen]
        k = rng.integers(20, 60)  # a detector at confidence 0.001 has a long tail of these
        start = rng.uniform(0, 0.7, (k, 2))
        false = np.concatenate([start, start + rng.uniform(0.1, 0.3, (k, 2))], 1) * scale
        false = np.concatenate([false, rng.uniform(0, 0.8, (k, 1)) ** 3, rng.integers(0, 3, (k, 1))], 1)
        found = np.concatenate([real, false])
        detections.append(found[np.argsort(-found[:, 4])])  # as NMS gives them
    index, names, task = make_index(objects), {0: "a", 1: "b", 2: "c"}, DetectionTask()
    ids = _write(tmp_path, index, detections, names)
    metrics = DetectionMetrics(3)
    for batch, found in zip(make_batches(index, 1), detections, strict=True):
        (scene,) = validated_images(batch, [torch.tensor(found, dtype=torch.float32)], None)
        (correct,) = task.match(scene, IOU_THRESHOLDS)
        metrics.update(correct, scene.detections[:, 4], scene.detections[:, 5], scene.labels[:, 0])
    metrics.compute()
    official = coco.score_officially(tmp_path / "truth.json", tmp_path / "found.json", list(ids.images.values()))
    assert 0.2 < official.ap < 0.8  # neither perfect nor hopeless
    assert metrics.map == pytest.approx(official.ap, abs=0.01)
    assert metrics.map50 == pytest.approx(official.ap50, abs=0.01)


# --- official annotation files ----------------------------------------------------------------------------------------


def _annotations(path, images, categories):
    path.write_text(
        json.dumps({
            "images": [{"id": i, "file_name": n} for n, i in images.items()],
            "annotations": [],
            "categories": [{"id": i, "name": n} for n, i in categories.items()],
        })
    )  # fmt: skip
    return path


def test_ids_of_an_official_file(tmp_path):
    file = _annotations(
        tmp_path / "a.json", {"1.jpg": 11, "sub/2.jpg": 22, "3.jpg": 33}, {"dog": 5, "cat": 7, "elk": 9}
    )
    ids = coco.ids_of_annotations(file, ["x/1.jpg", "x/2.jpg"], NAMES)
    assert ids == coco.CocoIds({"x/1.jpg": 11, "x/2.jpg": 22}, [7, 5])  # by name
    by_order = coco.ids_of_annotations(file, ["x/1.jpg"], {0: "chien", 1: "chat", 2: "élan"})
    assert by_order.categories == [5, 7, 9]  # by order: other names, same number


def test_images_that_an_official_file_lacks_are_told(tmp_path, capsys):
    file = _annotations(tmp_path / "a.json", {"1.jpg": 11}, {"dog": 5, "cat": 7})
    assert list(coco.ids_of_annotations(file, ["1.jpg", "2.jpg"], NAMES).images) == ["1.jpg"]
    assert "lacks 1 of 2 images" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of the 1 images"):
        coco.ids_of_annotations(file, ["other.jpg"], NAMES)
    with pytest.raises(UserError, match="2 categories, none named 'emu', but the data set has 3"):
        coco.ids_of_annotations(file, ["1.jpg"], {**NAMES, 2: "emu"})


@pytest.mark.parametrize(("text", "message"), [("{", "not a JSON file"), ("[]", "not a COCO"), (None, "cannot read")])
def test_a_bad_annotation_file(tmp_path, text, message):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        coco.ids_of_annotations(path, ["1.jpg"], NAMES)


def test_without_pycocotools_one_line_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match="pip install pycocotools"):
        coco.import_pycocotools()


def test_the_gap_is_printed(capsys):
    coco.report_gap(coco.OfficialScore(0.5, 0.75, "summary"), map50=0.76, map=0.495)
    out = capsys.readouterr().out
    assert "gap +0.0050" in out
    assert "gap -0.0100" in out
