"""The segmentation task on scenes whose masks and overlaps are worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from engine.validation import coco
from engine.validation.statistics import BatchStatistics, ValidationStatistics
from engine.validation.validated_image import validated_images
from engine.validation.validator import IOU_THRESHOLDS, compute_result, evaluate_image
from tests.engine.training.step import make_options
from utils.data.batch import Batch, LetterboxInfo
from utils.data.indexing.index import ImageIndex

SIZE = (64, 64)  # of the network input; prototypes have 16×16 cells
LEFT, TOP, ALL = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # coefficients of the three prototypes below


def prototypes() -> torch.Tensor:
    """(1, 3, 16, 16): sure of the left half, of the upper half, of everything."""
    maps = torch.full((1, 3, 16, 16), -20.0)
    maps[0, 0, :, :8] = 20
    maps[0, 1, :8] = 20
    maps[0, 2] = 20
    return maps


def rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float32)


def figures_of(scene, task):
    return compute_result(ValidationStatistics([BatchStatistics(np.zeros(4), [evaluate_image(scene, task)])]), 2, task)


def make_scene(labels, detections, original=SIZE, placement=None):
    """A scene of `labels` (class, polygon) and `detections` (x1, y1, x2, y2, confidence, class, coefficients)."""
    rows = []
    for cls, points in labels:
        (x1, y1), (x2, y2) = points.min(0), points.max(0)
        rows.append([0, cls, (x1 + x2) / 2 / 64, (y1 + y2) / 2 / 64, (x2 - x1) / 64, (y2 - y1) / 64])
    batch = Batch(
        images=torch.zeros((1, 3, *SIZE), dtype=torch.uint8),
        targets=torch.tensor(rows, dtype=torch.float32).view(-1, 6),
        paths=["images/0.jpg"],
        shapes=[LetterboxInfo(original, placement)] if placement else None,
        polygons=[points for _, points in labels],
    )
    found = torch.tensor([[*row[:6], *row[6]] for row in detections], dtype=torch.float32).view(-1, 9)
    (scene,) = validated_images(batch, [found], (None, prototypes()))
    (scene.cache["mask_iou"],) = SegmentationTask().match_inputs(scene.output, batch, [found])["mask_iou"]
    return scene


@pytest.mark.parametrize("retina", [False, True])
def test_a_mask_is_judged_apart_from_its_box(retina):
    """Box right, mask the left half of it: mask IoU 0.5, right at the first threshold only."""
    scene = make_scene([(1, rectangle(16, 16, 48, 48))], [(16, 16, 48, 48, 0.9, 1, LEFT)])
    boxes, masks = SegmentationTask(retina).match(scene, IOU_THRESHOLDS)
    assert boxes.tolist() == [[True] * 10]
    assert masks.tolist() == [[True] + [False] * 9]


@pytest.mark.parametrize("retina", [False, True])
def test_a_mask_is_cut_to_its_box(retina):
    """All of the picture is foreground; the box holds three quarters of the object and nothing else."""
    scene = make_scene([(0, rectangle(16, 16, 48, 48))], [(16, 16, 40, 48, 0.9, 0, ALL)])
    _, masks = SegmentationTask(retina).match(scene, IOU_THRESHOLDS)
    assert masks[0].sum() == 6  # 0.50 … 0.75


def test_a_mask_of_the_wrong_class_is_wrong():
    scene = make_scene([(0, rectangle(16, 16, 48, 48))], [(16, 16, 48, 48, 0.9, 1, ALL)])
    assert not SegmentationTask().match(scene, IOU_THRESHOLDS)[1].any()


def test_overlapping_objects_are_judged_whole():
    """Labels that lie on each other do not eat each other, as they would in an index map."""
    scene = make_scene(
        [(0, rectangle(0, 0, 64, 64)), (1, rectangle(0, 0, 32, 32))],
        [(0, 0, 64, 64, 0.9, 0, ALL), (0, 0, 32, 32, 0.8, 1, ALL)],
    )
    assert SegmentationTask().match(scene, IOU_THRESHOLDS)[1].all()


def test_metrics_of_both_groups():
    scene = make_scene([(1, rectangle(16, 16, 48, 48))], [(16, 16, 48, 48, 0.9, 1, LEFT)])
    boxes, masks = figures_of(scene, SegmentationTask()).groups
    assert (boxes.map50, boxes.map) == pytest.approx((0.995, 0.995), abs=1e-3)
    assert (masks.map50, masks.map) == pytest.approx((0.995, 0.0995), abs=1e-3)


def test_original_pixels_through_the_letterbox():
    """A picture of 32×128, half its size in the input and 24 rows below its edge: the object is 64 wide and 16 high."""
    scene = make_scene(
        [(0, rectangle(16, 28, 48, 36))],
        [(16, 28, 48, 36, 0.9, 0, ALL)],
        original=(32, 128),
        placement=((0.5, 0.5), (0.0, 24.0)),
    )
    np.testing.assert_allclose(scene.original_polygons()[0], rectangle(32, 8, 96, 24))
    (box_mask,) = SegmentationTask().original_masks(scene)
    mask = coco_mask.decode(coco.run_lengths(box_mask, scene.size))
    assert mask.shape == (32, 128)
    expected = np.zeros((32, 128), np.uint8)
    expected[8:24, 32:96] = 1
    np.testing.assert_array_equal(mask, expected)
    assert SegmentationTask(retina_masks=True).match(scene, IOU_THRESHOLDS)[1].all()


def test_ground_truth_holds_the_polygons(tmp_path):
    """A right-angled triangle with legs of half the sides: area 64·32/8, in the file and by the official decoder."""
    triangle = np.array([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75)], np.float32)
    index = ImageIndex.from_arrays(
        ["images/0.jpg"], [(32, 64)], [1], [0], [(0.5, 0.5, 0.5, 0.5)], polygons=triangle, polygon_counts=[3]
    )
    coco.write_ground_truth(index, {0: "cat"}, tmp_path / "truth.json")
    (annotation,) = json.loads((tmp_path / "truth.json").read_text())["annotations"]
    assert annotation["segmentation"] == [[16, 8, 48, 8, 16, 24]]
    assert annotation["area"] == 32 * 16 / 2
    assert annotation["bbox"] == [16, 8, 32, 16]
    codes = coco_mask.frPyObjects(annotation["segmentation"], 32, 64)
    assert coco_mask.area(codes)[0] == pytest.approx(256, abs=16)


def test_the_official_evaluator_agrees(tmp_path):
    """Two objects, one found well and one as its left half: mask AP as worked out for the metrics above."""
    corners = [rectangle(16, 16, 48, 48) / 64, rectangle(0, 0, 16, 16) / 64]
    index = ImageIndex.from_arrays(
        ["images/0.jpg"],
        [SIZE],
        [2],
        [0, 1],
        [(0.5, 0.5, 0.5, 0.5), (0.125, 0.125, 0.25, 0.25)],
        polygons=np.concatenate(corners),
        polygon_counts=[4, 4],
    )
    ids = coco.write_ground_truth(index, {0: "cat", 1: "dog"}, tmp_path / "truth.json")
    labels = [(0, corners[0] * 64), (1, corners[1] * 64)]
    scene = make_scene(labels, [(16, 16, 48, 48, 0.9, 0, LEFT), (0, 0, 16, 16, 0.8, 1, ALL)])
    task = SegmentationTask(retina_masks=True)
    groups = figures_of(scene, task).groups
    with coco.JsonWriter(tmp_path / "found.json", ids, task) as writer:
        writer.add(scene.batch, [scene])
    for iou_type, ours, expected in zip(task.iou_types, groups, (1.0, 0.55), strict=True):
        official = coco.score_officially(tmp_path / "truth.json", tmp_path / "found.json", [0], iou_type)
        assert official.ap == pytest.approx(expected, abs=1e-6)
        assert ours.map == pytest.approx(official.ap, abs=0.006)  # the reference's interpolation ends at 0.995


def test_what_is_drawn():
    scene = make_scene([(1, rectangle(16, 16, 48, 48))], [(16, 16, 48, 48, 0.9, 1, LEFT)])
    labels, detections = SegmentationTask().plot_masks(scene)
    assert labels.sum() == 8 * 8
    assert detections.sum() == 4 * 8


def test_dry_run_batch_and_loss_inputs():
    task = SegmentationTask()
    batch = task.dummy_batch((64, 128), torch.device("cpu"), nc=3)
    assert batch.masks is not None
    assert batch.masks.shape == (2, 16, 32)
    assert sorted(batch.masks.unique().tolist()) == [0, 1]
    raw, protos = task.training_output((None, torch.zeros(1, 2, 4, 4).half(), [torch.zeros(1).half()]))
    assert protos.dtype == raw[0].dtype == torch.float32
    options = task.data_options(make_options("segment", mask_ratio=2, no_overlap=True))
    assert options["polygons"]
    assert (options["masks"].ratio, options["masks"].overlap) == (2, False)


def test_which_networks_get_a_segment_head():
    rows = [[-1, 1, "Conv", [8, 3, 2]]]
    detector = {"nc": 2, "head": [*rows, [[0], 1, "Detect", ["nc", "anchors"]]]}
    segmenter = {"nc": 2, "head": [*rows, [[0], 1, "Segment", ["nc", "anchors", 8, 16], {"proto": "LightProto"}]]}
    task = SegmentationTask()
    assert task.cfg_from_checkpoint(detector) == {"nc": 2, "head": [*rows, [[0], 1, "Segment", ["nc", "anchors"]]]}
    assert detector["head"][-1][2] == "Detect"
    assert task.cfg_from_checkpoint(segmenter) == segmenter
    assert DetectionTask().cfg_from_checkpoint(detector) == detector
