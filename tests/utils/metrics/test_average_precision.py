from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.metrics.average_precision import ap_per_class, compute_ap, smooth


def test_reference_figures(golden: Path) -> None:
    file = np.load(golden / "ap.npz")
    found = ap_per_class(file["tp"], file["conf"], file["pred_cls"], file["target_cls"])
    for name in ("p", "r", "f1", "ap"):
        np.testing.assert_allclose(getattr(found, name), file[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(found.classes, file["ap_class"])
    assert len(found.labels) == 4
    assert found.labels.sum() == 120


def test_the_order_of_detections_does_not_matter(golden: Path) -> None:
    file = np.load(golden / "ap.npz")
    shuffled = np.random.default_rng(0).permutation(300)
    found = ap_per_class(file["tp"][shuffled], file["conf"][shuffled], file["pred_cls"][shuffled], file["target_cls"])
    np.testing.assert_allclose(found.ap, file["ap"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("recall", "precision", "area"),
    [
        ([0.5, 1.0], [1.0, 1.0], 0.995),  # perfect; the last of the 101 points falls on the closing (1, 0)
        ([0.5], [1.0], 0.5 + 0.5 / 2),  # half of the objects: the line from (0.5, 1) to (1, 0) closes the curve
        ([0.5, 0.5, 0.5], [1.0, 0.5, 1 / 3], 0.49 + 0.01 * 2 / 3 + 0.5 / 3 / 2),  # and two false alarms after it
        ([0.0, 0.0], [0.0, 0.0], 0.0),  # nothing right
    ],
)
def test_areas_by_hand(recall: list[float], precision: list[float], area: float) -> None:
    found, at, envelope = compute_ap(np.array(recall), np.array(precision))
    assert found == pytest.approx(area)
    assert (np.diff(at) >= 0).all()
    assert (np.diff(envelope) <= 0).all()


def test_perfect_nothing_and_half_wrong() -> None:
    right = np.ones((6, 10), bool)
    conf = np.linspace(0.9, 0.4, 6)
    classes = np.array([0, 0, 1, 1, 2, 2])
    found = ap_per_class(right, conf, classes, classes)
    np.testing.assert_allclose(found.ap, 0.995)
    np.testing.assert_allclose([found.p, found.r, found.f1], 1.0)
    assert found.tp.tolist() == [2, 2, 2]
    assert found.fp.tolist() == [0, 0, 0]

    nothing = ap_per_class(~right, conf, classes, classes)
    assert nothing.ap.max() == 0
    assert nothing.r.max() == 0

    right[1::2] = False  # of each class the surer detection is right, the other wrong
    mixed = ap_per_class(right, conf, classes, classes)
    np.testing.assert_allclose(mixed.r, 0.5)
    np.testing.assert_allclose(mixed.ap, 0.49 + 0.01 * 0.75 + 0.5 * 0.5 / 2)  # through (0.5, 1), (0.5, 0.5), (1, 0)


def test_classes_without_detections_or_without_labels() -> None:
    found = ap_per_class(np.ones((2, 10), bool), [0.9, 0.8], [5, 7], [5, 6, 6])
    assert found.classes.tolist() == [5, 6]
    assert found.ap[0].tolist() == [pytest.approx(0.995)] * 10
    assert found.ap[1].max() == 0
    assert found.p_curve.shape == found.pr_curve.shape == (2, 1000)


def test_no_labels_and_no_detections() -> None:
    for n in (0, 3):
        found = ap_per_class(np.zeros((n, 10), bool), np.zeros(n), np.zeros(n), np.zeros(0))
        assert found.ap.shape == (0, 10)
        assert found.p.shape == (0,)
    missed = ap_per_class(np.zeros((0, 10), bool), np.zeros(0), np.zeros(0), np.zeros(4))
    assert missed.ap.tolist() == [[0.0] * 10]


def test_curves_by_hand() -> None:
    """One class, four labels: right at 0.8, wrong at 0.6, right at 0.4."""
    found = ap_per_class(np.array([[True], [False], [True]]), [0.8, 0.6, 0.4], [0, 0, 0], [0, 0, 0, 0])

    def at(curve: np.ndarray, confidence: float) -> float:
        return float(np.interp(confidence, found.confidences, curve[0]))

    assert at(found.r_curve, 0.9) == 0
    assert at(found.p_curve, 0.9) == 1
    assert at(found.r_curve, 0.79) == pytest.approx(1 / 4)
    assert at(found.p_curve, 0.6) == pytest.approx(1 / 2, abs=2e-3)
    assert at(found.p_curve, 0.1) == pytest.approx(2 / 3)
    assert at(found.r_curve, 0.1) == pytest.approx(1 / 2)
    assert at(found.f1_curve, 0.1) == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))


def test_unpacking_as_scripts_do(golden: Path) -> None:
    file = np.load(golden / "ap.npz")
    result = ap_per_class(file["tp"], file["conf"], file["pred_cls"], file["target_cls"])
    tp, fp, p, r, f1, ap, classes = result
    assert p is result.p
    assert r is result.r
    assert f1 is result.f1
    assert ap is result.ap
    assert classes is result.classes
    np.testing.assert_allclose(tp, r * result.labels, atol=0.5)
    np.testing.assert_allclose(tp / (tp + fp), p, atol=0.05)


@pytest.mark.parametrize("n", [5, 21, 100, 1000])
def test_moving_average(n: int) -> None:
    y = np.random.default_rng(n).random(n)
    width = round(n * 0.2) // 2 + 1
    held = np.concatenate((np.full(width // 2, y[0]), y, np.full(width // 2, y[-1])))
    expected = [held[i : i + width].mean() for i in range(len(held) - width + 1)]
    np.testing.assert_allclose(smooth(y, 0.1), expected)


class TestPycocotools:
    """Crowded random scenes with many false alarms, judged by both.

    What lies between the two: our trapezoids against their average over 101 points, our line from the last point to
    (1, 0) against their drop to 0 (hence the false alarms: precision is low there), and the rule for duplicates.
    """

    IMAGES, CLASSES = 60, 4

    @pytest.fixture
    def scenes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(7)
        scenes = []
        for _ in range(self.IMAGES):
            m = rng.integers(0, 12)
            corner, size = rng.uniform(0, 400, (m, 2)), rng.uniform(20, 200, (m, 2))
            classes = rng.integers(0, self.CLASSES, m)
            labels = np.concatenate((classes[:, None], corner, corner + size), 1)
            seen = np.repeat(np.arange(m), 2)
            shake = rng.normal(0, 0.08, (len(seen), 4)) * np.tile(size[seen], 2)
            real = np.concatenate(
                (labels[seen, 1:] + shake, rng.uniform(0.2, 1, (len(seen), 1)), classes[seen, None]), 1
            )
            corner, size = rng.uniform(0, 400, (80, 2)), rng.uniform(20, 200, (80, 2))
            false = np.concatenate(
                (corner, corner + size, rng.uniform(0, 0.5, (80, 1)), rng.integers(0, self.CLASSES, (80, 1))), 1
            )
            detections = np.concatenate((real, false))
            scenes.append((detections[np.argsort(-detections[:, 4])], labels))
        return scenes

    def _official(self, scenes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        def box(xyxy: np.ndarray) -> list[float]:
            return [xyxy[0], xyxy[1], xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]]

        truth = COCO()
        annotations = [
            {"image_id": i, "category_id": int(label[0]), "bbox": box(label[1:]), "area": 1.0, "iscrowd": 0}
            for i, (_, labels) in enumerate(scenes)
            for label in labels
        ]
        truth.dataset = {
            "images": [{"id": i} for i in range(len(scenes))],
            "categories": [{"id": c} for c in range(self.CLASSES)],
            "annotations": [annotation | {"id": i + 1} for i, annotation in enumerate(annotations)],
        }
        truth.createIndex()
        found = truth.loadRes(
            [
                {"image_id": i, "category_id": int(d[5]), "bbox": box(d), "score": float(d[4])}
                for i, (detections, _) in enumerate(scenes)
                for d in detections
            ]
        )
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [1, 10, 300]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (thresholds, recalls, classes)
        return float(precision[0].mean()), float(precision.mean())

    def test_agree(self, scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
        from utils.metrics.detection import DetectionMetrics
        from utils.metrics.matching import match_detections

        metrics = DetectionMetrics(self.CLASSES)
        for detections, labels in scenes:
            correct = match_detections(detections, labels, np.linspace(0.5, 0.95, 10))
            metrics.update(correct, detections[:, 4], detections[:, 5], labels[:, 0])
        map50, mean = self._official(scenes)
        assert 0.2 < mean < map50 < 0.95, "the scenes are neither too easy nor too hard"
        assert metrics.map50 == pytest.approx(map50, abs=0.01)
        assert metrics.map == pytest.approx(mean, abs=0.01)
