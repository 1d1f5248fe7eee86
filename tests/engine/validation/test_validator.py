"""The validation loop on hand-made scenes: what comes out is known beforehand."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from engine.task import DetectionTask
from engine.validation.coco import JsonWriter, write_ground_truth
from engine.validation.listeners import TextWriter
from engine.validation.report import print_table, table_header, write_per_class
from engine.validation.validated_image import validated_images
from engine.validation.validator import validate
from tests.engine.validation.scenes import SIZE, Oracle, make_batches, make_index, perfect

CPU = torch.device("cpu")
NAMES = {0: "cat", 1: "dog", 2: "elk"}
OBJECTS = [
    [(0, 0.3, 0.3, 0.3, 0.4), (1, 0.7, 0.6, 0.4, 0.5)],
    [],
    [(1, 0.5, 0.5, 0.5, 0.5)],
    [(0, 0.25, 0.25, 0.3, 0.3), (0, 0.75, 0.75, 0.3, 0.3)],
    [(2, 0.5, 0.4, 0.6, 0.3)],
]
INDEX = make_index(OBJECTS)


def _validate(predictions, index=INDEX, batch_size=2, original=SIZE, **arguments):
    arguments = {"names": NAMES, "device": CPU, "progress": False, **arguments}
    batches = make_batches(index, batch_size, original)
    return validate(Oracle(predictions, 3), batches, DetectionTask(), **arguments)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("original", [SIZE, (192, 256), (48, 64)])
def test_perfect_predictions(batch_size, original):
    result = _validate(perfect(INDEX), batch_size=batch_size, original=original)
    m = result.metrics
    assert m.map50 == pytest.approx(0.995, abs=1e-3)  # 0.995: the reference's interpolation never reaches 1
    assert m.map == pytest.approx(0.995, abs=1e-3)
    assert m.mr == pytest.approx(1.0)
    np.testing.assert_allclose(result.maps, 0.995, atol=1e-3)
    assert result.losses == (0.0, 0.0, 0.0)
    assert result.counts.seen == 5
    assert all(s >= 0 for s in result.speeds_ms)


def test_nothing_found():
    result = _validate([[] for _ in range(4)] + [[(5, 5, 4, 4, 0.0005, 0)]])  # below the confidence threshold
    assert (result.metrics.map50, result.metrics.mp, result.metrics.mr) == (0, 0, 0)
    np.testing.assert_array_equal(result.maps, 0)


def test_in_between_by_hand():
    """One image, one object; of two detections the surer is wrong: precision at the hit 1/2, recall 1."""
    index = make_index([[(0, 0.5, 0.5, 0.5, 0.5)]])
    found = [[(20, 20, 8, 8, 0.9, 0), (64, 48, 64, 48, 0.8, 0)]]
    result = _validate(found, index)
    # the envelope of (0, 1), (0, 0), (1, 0.5), (1, 0): 1 at recall 0, then 0.5
    assert result.metrics.map50 == pytest.approx(0.5, abs=0.006)
    assert result.metrics.map == pytest.approx(result.metrics.map50)


def test_iou_thresholds_by_hand():
    """A box as high as the object and 0.72 as wide, at the same centre: IoU 0.72, right at 0.50 … 0.70, 5 of 10."""
    index = make_index([[(0, 0.5, 0.5, 0.5, 0.5)]])
    result = _validate([[(64, 48, 64 * 0.72, 48, 0.9, 0)]], index)
    assert result.metrics.map50 == pytest.approx(0.995, abs=1e-3)
    assert result.metrics.map == pytest.approx(0.995 * 5 / 10, abs=1e-3)


def test_the_wrong_class_is_wrong_unless_there_is_one_class():
    index = make_index([[(0, 0.5, 0.5, 0.5, 0.5)]])
    found = [[(64, 48, 64, 48, 0.9, 1)]]
    assert _validate(found, index).metrics.map50 == 0
    single = _validate(found, index.as_single_class(), names={0: "object"}, single_cls=True)
    assert single.metrics.map50 == pytest.approx(0.995, abs=1e-3)
    assert single.maps.shape == (1,)


def test_hybrid_adds_the_labels_to_the_detections():
    """With the labels as certain detections even an empty answer is perfect (and the figures say nothing)."""
    nothing = [[(5, 5, 4, 4, 0.0005, 0)]] * 5
    assert _validate(nothing, save_hybrid=True).metrics.map == pytest.approx(0.995, abs=1e-3)
    assert _validate(nothing).metrics.map == 0


def test_max_det_keeps_the_surest():
    index = make_index([[(0, 0.3, 0.3, 0.3, 0.3), (0, 0.7, 0.7, 0.3, 0.3)]])
    assert _validate(perfect(index), index).metrics.mr == pytest.approx(1)
    # precision 1 to recall 0.5, then the reference's straight line to (1, 0)
    assert _validate(perfect(index), index, max_det=1).metrics.map50 == pytest.approx(0.75, abs=0.01)


def test_losses_are_the_mean_over_batches():
    class Task(DetectionTask):
        def loss(self, criterion, predictions, batch):
            assert predictions[0].dtype == torch.float32
            return torch.zeros(1), torch.tensor([1.0, 2.0, 3.0]) * len(batch.images)

    oracle, batches = Oracle(perfect(INDEX), 3), make_batches(INDEX)
    result = validate(oracle, batches, Task(), names=NAMES, device=CPU, criterion=object(), progress=False)
    assert result.losses == pytest.approx((5 / 3, 10 / 3, 5))  # batches of 2, 2 and 1


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(training):
    model = Oracle(perfect(INDEX), 3).train(training)
    model.frozen = torch.nn.BatchNorm2d(2).eval()
    validate(model, make_batches(INDEX), DetectionTask(), names=NAMES, device=CPU, progress=False)
    assert model.training is training
    assert not model.frozen.training

    class Broken(Oracle):
        def forward(self, images):
            raise RuntimeError("boom")

    model = Broken([], 3).train(training)
    with pytest.raises(RuntimeError, match="boom"):
        validate(model, make_batches(INDEX), DetectionTask(), names=NAMES, device=CPU, progress=False)
    assert model.training is training


def test_scenes_are_in_pixels_of_the_original():
    batch = make_batches(make_index([[(1, 0.5, 0.5, 0.25, 0.5)]]), original=(192, 256))[0]
    (scene,) = validated_images(batch, [torch.tensor([[-4.0, 10, 30, 60, 0.9, 2]])], None)
    assert scene.size == (192, 256)
    assert scene.labels.tolist() == [[1, 96, 48, 160, 144]]
    np.testing.assert_allclose(scene.detections, [[0, 20, 60, 120, 0.9, 2]])  # cut at the left edge
    np.testing.assert_allclose(scene.input_detections, [[-4, 10, 30, 60, 0.9, 2]])
    assert batch.targets[0, 2:].tolist() == [0.5, 0.5, 0.25, 0.5]  # untouched


# --- what is written --------------------------------------------------------------------------------------------------


def test_table(capsys):
    result = _validate(perfect(INDEX), verbose=True)
    lines = [table_header(), *capsys.readouterr().out.splitlines()]
    assert lines[0].split() == ["Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95"]
    assert len({len(line) for line in lines}) == 1  # aligned
    assert lines[1].split()[:3] == ["all", "5", "6"]
    assert [line.split()[:3] for line in lines[2:]] == [["cat", "2", "3"], ["dog", "2", "2"], ["elk", "1", "1"]]
    print_table(result.groups, result.counts, {0: "a very long name of a class", 1: "dog", 2: "elk"}, verbose=True)
    assert " a very long name of …" in capsys.readouterr().out


def test_a_split_without_labels_is_told(capsys):
    index = make_index([[], []])
    result = _validate([[(20, 20, 8, 8, 0.9, 0)]] * 2, index)
    assert "no labels in this split" in capsys.readouterr().err
    assert result.metrics.map == 0


def test_per_class_file(tmp_path):
    result = _validate(perfect(INDEX))
    path = write_per_class(tmp_path / "metrics_per_class.csv", result.groups, result.counts, NAMES)
    rows = list(csv.DictReader(path.open()))
    assert [(r["class_id"], r["class"], r["images"], r["instances"]) for r in rows] == [
        ("0", "cat", "2", "3"), ("1", "dog", "2", "2"), ("2", "elk", "1", "1"),
    ]  # fmt: skip
    assert all(float(r["mAP50-95"]) == pytest.approx(0.995, abs=1e-3) for r in rows)


def test_plots(tmp_path):
    _validate(perfect(INDEX), save_dir=tmp_path, plots=True)
    for name in ("PR_curve", "P_curve", "R_curve", "F1_curve", "confusion_matrix"):
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 5
    for i in range(3):
        labels, found = (cv2.imread(str(tmp_path / f"val_batch{i}_{kind}.jpg")) for kind in ("labels", "pred"))
        assert labels.shape == found.shape
    assert not (tmp_path / "val_batch3_labels.jpg").exists()
    table = list(csv.reader((tmp_path / "confusion_matrix.csv").open()))
    assert "background" in table[0]
    _validate(perfect(INDEX), save_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()  # without plots nothing is written


def test_text_files(tmp_path):
    _validate(
        perfect(INDEX), original=(192, 256), listeners=[TextWriter(tmp_path, confidence=True, task=DetectionTask())]
    )
    assert sorted(p.name for p in (tmp_path / "labels").iterdir()) == ["000.txt", "002.txt", "003.txt", "004.txt"]
    table = np.loadtxt(tmp_path / "labels" / "000.txt")
    np.testing.assert_allclose(table[np.argsort(table[:, 0]), :5], OBJECTS[0], atol=1e-5)
    np.testing.assert_allclose(sorted(table[:, 5]), [0.98, 0.99], atol=1e-5)
    _validate(perfect(INDEX), listeners=[TextWriter(tmp_path / "plain", confidence=False, task=DetectionTask())])
    assert np.loadtxt(tmp_path / "plain" / "labels" / "000.txt").shape == (2, 5)


def test_json_file(tmp_path):
    ids = write_ground_truth(INDEX, NAMES, tmp_path / "truth.json")
    with JsonWriter(tmp_path / "found.json", ids, DetectionTask()) as writer:
        _validate(perfect(INDEX), listeners=[writer])
    rows = json.loads((tmp_path / "found.json").read_text())
    assert len(rows) == 6
    truth = json.loads((tmp_path / "truth.json").read_text())["annotations"]
    key = lambda row: (row["image_id"], row["category_id"], row["bbox"][0])  # noqa: E731
    for row, label in zip(sorted(rows, key=key), sorted(truth, key=key), strict=True):
        assert (row["image_id"], row["category_id"]) == (label["image_id"], label["category_id"])
        np.testing.assert_allclose(row["bbox"], label["bbox"], atol=0.01)


def test_two_metric_groups_share_the_table(capsys):
    """What segmentation will do: boxes and masks, here the same matches twice."""

    class Two(DetectionTask):
        metric_groups = ("(B)", "(M)")

        def match(self, scene, iou_thresholds):
            return super().match(scene, iou_thresholds) * 2

    result = validate(
        Oracle(perfect(INDEX), 3), make_batches(INDEX), Two(), names=NAMES, device=CPU, progress=False, verbose=True
    )
    assert len(result.groups) == 2
    assert result.groups[0].map == result.groups[1].map
    assert {len(line) for line in capsys.readouterr().out.splitlines()} == {len(table_header(("(B)", "(M)")))}


def test_backends_get_half_images():
    seen = []

    class Half(Oracle):
        fp16 = True

        def forward(self, images):
            seen.append(images.dtype)
            return super().forward(images)

    validate(Half(perfect(INDEX), 3), make_batches(INDEX), DetectionTask(), names=NAMES, device=CPU, progress=False)
    assert set(seen) == {torch.float16}


def test_listeners_see_every_batch():
    seen = []
    listener = SimpleNamespace(add=lambda batch, scenes: seen.append([scene.path for scene in scenes]))
    _validate(perfect(INDEX), listeners=[listener])
    assert [len(paths) for paths in seen] == [2, 2, 1]
    assert [path for paths in seen for path in paths] == INDEX.paths
