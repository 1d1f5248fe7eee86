"""val.py as a command: flags, mistakes, what it writes, and the reference's figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import val
from engine.validation.coco import score_officially
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["square", "disc"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small network that has learnt nothing."""
    import torch

    from models.checkpoints.checkpoint import Checkpoint, save_checkpoint
    from models.yolo import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=2)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    names = dict(enumerate(NAMES))
    save_checkpoint(path, Checkpoint(task="detect", cfg=model.yaml, names=names, state_dict=model.state_dict()))
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """Four pictures of squares and discs, two splits."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder / "val").mkdir(parents=True)
    for i, size in enumerate([(60, 80), (80, 60), (64, 64), (40, 100)]):
        image = rng.integers(0, 80, (*size, 3), np.uint8)
        cv2.rectangle(image, (10, 8), (29, 27), (0, 200, 255), -1)
        cv2.imwrite(str(tmp_path / "set" / "images" / "val" / f"{i + 7}.png"), image)
        box = (20 / size[1], 18 / size[0], 20 / size[1], 20 / size[0])
        label = " ".join(f"{v:.6f}" for v in box)
        (tmp_path / "set" / "labels" / "val" / f"{i + 7}.txt").write_text(f"{i % 2} {label}\n")
    file = tmp_path / "set.yaml"
    file.write_text(f"path: set\ntrain: images/val\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return file


@pytest.fixture
def quick(tmp_path, weights, data) -> dict:
    """Options of a run that takes a moment."""
    return {
        "weights": str(weights), "data": str(data), "imgsz": 64, "batch_size": 3, "workers": 0, "device": "cpu",
        "project": str(tmp_path / "runs"), "no_plots": True,
    }  # fmt: skip


def test_defaults_and_spellings_are_yolov5s():
    opt = val.parse_opt([])
    expected = {
        "data": "data/shapes.yaml", "weights": None, "batch_size": 32, "imgsz": [640], "conf_thres": 0.001,
        "iou_thres": 0.6, "max_det": 300, "task": "val", "device": "", "workers": 8, "single_cls": False,
        "augment": False, "verbose": False, "save_txt": False, "save_hybrid": False, "save_conf": False,
        "save_json": False, "project": "runs/val", "name": "exp", "exist_ok": False, "half": False, "dnn": False,
    }  # fmt: skip
    assert {key: getattr(opt, key) for key in expected} == expected
    assert val.parse_opt(["--img", "320", "--batch", "4"]).batch_size == 4
    assert val.parse_opt(["--img-size", "320", "640"]).imgsz == [320, 640]
    assert val.parse_opt(["--save-hybrid"]).save_txt
    assert val.parse_opt(["--data", "x/coco.yaml"]).save_json


def test_run_returns_yolov5s_form_and_writes_the_files(quick, tmp_path, capsys):
    metrics, maps, speeds = val.run(**{**quick, "no_plots": False})
    assert len(metrics) == 7
    assert all(0 <= value <= 1 for value in metrics[:4])
    assert maps.shape == (2,)
    assert len(speeds) == 3
    folder = tmp_path / "runs" / "exp"
    assert {p.name for p in folder.iterdir()} >= {
        "metrics_per_class.csv", "confusion_matrix.png", "confusion_matrix.csv", "PR_curve.png", "F1_curve.png",
        "P_curve.png", "R_curve.png", "val_batch0_labels.jpg", "val_batch0_pred.jpg", "val_batch1_pred.jpg",
    }  # fmt: skip
    rows = list(csv.DictReader((folder / "metrics_per_class.csv").open()))
    assert [(r["class"], r["images"], r["instances"]) for r in rows] == [("square", "2", "2"), ("disc", "2", "2")]
    out = capsys.readouterr().out
    assert "mAP50-95" in out
    assert "Speed per image" in out
    assert str(folder) in out
    val.run(**quick)
    assert (tmp_path / "runs" / "exp2").is_dir()
    val.run(**quick, exist_ok=True)
    assert not (tmp_path / "runs" / "exp3").exists()


def test_save_everything(quick, tmp_path, capsys):
    val.run(**quick, save_txt=True, save_conf=True, save_json=True, max_det=5, half=True)
    folder = tmp_path / "runs" / "exp"
    found = json.loads((folder / "tiny_predictions.json").read_text())
    truth = json.loads((folder / "ground_truth.json").read_text())
    assert {image["id"] for image in truth["images"]} == {7, 8, 9, 10}
    for box, area in ((a["bbox"], a["area"]) for a in truth["annotations"]):
        np.testing.assert_allclose(box, [10, 8, 20, 20], atol=0.01)
        assert area == pytest.approx(400, abs=0.1)
    assert len(found) == sum(len(f.read_text().splitlines()) for f in (folder / "labels").iterdir())
    output = capsys.readouterr()
    assert "gap" in output.out
    assert "half precision needs a GPU" in output.err


def test_official_annotations(quick, tmp_path):
    val.run(**quick, save_json=True)
    official = tmp_path / "instances.json"
    content = json.loads((tmp_path / "runs" / "exp" / "ground_truth.json").read_text())
    for category in content["categories"]:
        category["id"] += 40
    for annotation in content["annotations"]:
        annotation["category_id"] += 40
    official.write_text(json.dumps(content))
    val.run(**quick, save_json=True, coco_annotations=str(official))
    folder = tmp_path / "runs" / "exp2"
    assert not (folder / "ground_truth.json").exists()
    rows = json.loads((folder / "tiny_predictions.json").read_text())
    assert {row["category_id"] for row in rows} <= {41, 42}


def test_speed_and_study(quick, tmp_path, weights, monkeypatch):
    monkeypatch.setattr("engine.validation.command.SIZES", (32, 64))
    assert len(val.run(**quick, task="speed").metrics) == 7
    val.run(**{**quick, "weights": [str(weights), str(weights)], "task": "study"})
    folder = tmp_path / "runs" / "exp2"
    table = np.loadtxt(folder / "study_set_tiny.txt")
    assert table[:, 0].tolist() == [32, 64]
    assert (folder / "study.png").stat().st_size > 5000


def test_newest_best_is_taken_and_named(quick, tmp_path, weights, monkeypatch, capsys):
    best = tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    val.run(**{**quick, "weights": None})
    assert str(best.relative_to(tmp_path)) in capsys.readouterr().out


def test_several_weights_make_an_ensemble(quick, weights):
    alone = val.run(**quick)
    both = val.run(**{**quick, "weights": [str(weights), str(weights)]})
    assert both.metrics[2] == pytest.approx(alone.metrics[2], abs=0.02)  # the twin's boxes fall to NMS


def test_mistakes_are_told_in_one_line(quick, tmp_path, data):
    three = tmp_path / "three.yaml"
    three.write_text(data.read_text().replace("[square, disc]", "[square, disc, star]"))
    for change, message in [
        ({"data": str(three)}, r"detects 2 classes \(square, disc\), but .*three.yaml has 3 .*--single-cls"),
        ({"task": "test"}, "test"),
        ({"task": "tets"}, "task: must be one of 'train', 'val', 'test'"),
        ({"data": "nowhere.yaml"}, "nowhere.yaml"),
        ({"weights": "nowhere.pt"}, "nowhere.pt"),
        ({"conf_thres": 1.5}, "conf_thres: must lie between 0 and 1, not 1.5"),
        ({"batch_size": 0}, "batch_size: must be 1 or more, not 0"),
        ({"imgsz": 0}, "imgsz: must be 1 or more, not 0"),
        ({"coco_annotations": "x.json"}, "give both"),
        ({"save_json": True, "coco_annotations": "x.json"}, "x.json"),
    ]:
        with pytest.raises(UserError, match=message) as info:
            val.run(**{**quick, **change})
        assert "\n" not in str(info.value)
    assert not (tmp_path / "runs").exists()  # nothing is left behind
    with pytest.raises(UserError, match=r"unknown option 'imgz' \(did you mean 'imgsz'"):
        val.run(imgz=3)


def test_other_names_in_the_same_number_are_a_warning(quick, tmp_path, data, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(data.read_text().replace("disc", "circle"))
    val.run(**{**quick, "data": str(other)})
    assert "class 1 is 'disc'" in capsys.readouterr().err


def test_single_cls_takes_any_number_of_classes(quick, tmp_path, data):
    three = tmp_path / "three.yaml"
    three.write_text(data.read_text().replace("[square, disc]", "[square, disc, star]"))
    assert val.run(**{**quick, "data": str(three)}, single_cls=True).maps.shape == (1,)


def test_test_time_augmentation(quick):
    assert len(val.run(**quick, augment=True).metrics) == 7


@pytest.mark.slow
def test_the_references_figures(shared_data, tmp_path):
    summary = val.run(
        weights=str(shared_data / "weights" / "yolov5n.pt"), data=str(shared_data / "data" / "coco128.yaml"), imgsz=640,
        batch_size=16, project=str(tmp_path), save_json=True, no_plots=True, device="cpu",
    )  # fmt: skip
    assert summary.metrics[:4] == pytest.approx((0.586, 0.508, 0.568, 0.365), abs=0.002)
    index = json.loads((tmp_path / "exp" / "ground_truth.json").read_text())
    assert (len(index["images"]), len(index["annotations"])) == (128, 929)
    folder = tmp_path / "exp"
    official = score_officially(
        folder / "ground_truth.json", folder / "yolov5n_predictions.json", [image["id"] for image in index["images"]]
    )
    assert official.ap == pytest.approx(summary.metrics[3], abs=0.01)
    assert official.ap50 == pytest.approx(summary.metrics[2], abs=0.01)
