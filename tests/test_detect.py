"""`detect.py` as a user runs it: a small random network for the plumbing, the published one for the figures."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect
from tests.media import save_untrained, write_video
from utils.data.sources.image_io import read_image, write_image
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
NAMES = {0: "person", 1: "автобус", 2: "traffic light"}

# class, normalised xywh, confidence: what the reference gives at 640, confidence 0.25, IoU 0.45
EXPECTED = {
    "bus": """5 0.511728 0.467130 0.966667 0.512037 0.491809
              0 0.044444 0.678704 0.088889 0.296296 0.519067
              0 0.346914 0.589815 0.160494 0.422222 0.786979
              0 0.921605 0.577778 0.156790 0.475926 0.804741
              0 0.164198 0.595833 0.192593 0.454630 0.875760""",
    "zidane": """27 0.366797 0.795833 0.052344 0.386111 0.268470
                 0 0.342187 0.625694 0.475000 0.748611 0.411678
                 0 0.741016 0.524306 0.321094 0.937500 0.787706""",
}
SIZES = {"bus": (810, 1080), "zidane": (1280, 720)}  # width, height


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("weights") / "tiny.pt", NAMES)


@pytest.fixture
def command(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`detect.py` on the small network, into ``tmp_path/runs/exp``; returns the exit code."""

    def run(*words: object, model: Path | str | None = weights) -> int:
        given = [] if model is None else ["--weights", str(model)]
        size = ["--imgsz", "64", "--max-det", "5", "--conf-thres", "0.01", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["detect.py", *given, *size, "--project", "runs", *map(str, words)])
        monkeypatch.chdir(tmp_path)
        return detect._command()

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of two shapes, with something in them."""
    rng = np.random.default_rng(0)
    (tmp_path / "фото").mkdir()
    for name, size in (("a.jpg", (60, 80, 3)), ("b é.png", (80, 60, 3)), ("c.jpg", (60, 80, 3))):
        write_image(tmp_path / "фото" / name, rng.integers(0, 255, size, np.uint8))
    return tmp_path / "фото"


def test_everything_at_once(command: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    flags = ("--save-txt", "--save-conf", "--save-csv", "--save-crop", "--batch-size", "2")
    assert command("--source", photos, *flags) == 0
    out = tmp_path / "runs" / "exp"
    assert {p.name for p in out.iterdir()} == {"a.jpg", "b é.png", "c.jpg", "labels", "crops", "predictions.csv"}
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = {f.stem: f.read_text().splitlines() for f in (out / "labels").glob("*.txt")}
    assert len(rows) == sum(map(len, labels.values())) == 15  # five of each, --max-det
    for row in rows:
        assert row["class"] == NAMES[int(row["class_id"])]
        assert 0.01 < float(row["confidence"]) <= 1
        height, width = read_image(row["image"]).shape[:2]
        assert 0 <= float(row["x1"]) <= float(row["x2"]) <= width
        assert 0 <= float(row["y1"]) <= float(row["y2"]) <= height
    assert not np.array_equal(read_image(out / "b é.png"), read_image(photos / "b é.png"))
    assert len(list((out / "crops").rglob("*.jpg"))) > 0


def test_video_of_thirty_frames(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = np.random.default_rng(1).integers(0, 255, (34, 64, 96, 3), np.uint8)
    write_video(tmp_path / "clip.mp4", frames, 15, "mp4v")
    assert command("--source", "clip.mp4", "--line-thickness", "1") == 0
    played = cv2.VideoCapture(str(tmp_path / "runs" / "exp" / "clip.mp4"))
    count = 0
    while played.read()[0]:
        count += 1
    assert count == 34
    assert played.get(cv2.CAP_PROP_FPS) == pytest.approx(15)
    lines = [line for line in capsys.readouterr().out.splitlines() if "clip.mp4" in line]
    assert len(lines) < 5  # a log, not a line for every frame
    assert any("34/34" in line for line in lines)


def test_corrupt_file_is_named_skipped_and_counted_in_the_exit_code(
    command: Callable[..., int], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (photos / "a.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(data[: len(data) // 2])
    assert command("--source", photos) == 1
    captured = capsys.readouterr()
    assert f"{photos / 'b.jpg'}: " in captured.err
    assert "1 of 4 sources could not be read" in captured.err
    assert captured.out.count("\nimage ") == 3
    assert "3 images in" in captured.out
    assert {p.name for p in (tmp_path / "runs" / "exp").iterdir()} == {"a.jpg", "b é.png", "c.jpg"}


def test_nothing_readable_leaves_no_run_folder(command: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    assert command("--source", "a.mp4", "--save-txt", "--save-crop") == 1
    assert not (tmp_path / "runs" / "exp").exists()


def test_list_and_glob_and_second_run_folder(command: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    (photos / "list.txt").write_text("a.jpg\nc.jpg\n")
    assert command("--source", photos / "list.txt") == 0
    assert command("--source", f"{photos}/*.png", "--nosave", "--save-txt") == 0
    assert {p.name for p in (tmp_path / "runs" / "exp").iterdir()} == {"a.jpg", "c.jpg"}
    assert [p.name for p in (tmp_path / "runs" / "exp2").rglob("*.*")] == ["b é.txt"]
    assert command("--source", photos / "a.jpg", "--nosave") == 0
    assert not (tmp_path / "runs" / "exp3").exists()  # nothing asked for, nothing made
    assert command("--source", photos / "a.jpg", "--exist-ok") == 0
    assert not (tmp_path / "runs" / "exp3").exists()


def test_newest_training_is_the_default(
    command: Callable[..., int], weights: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "runs" / "train" / "exp7" / "weights" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(weights.read_bytes())
    assert command("--source", photos / "a.jpg", model=None) == 0
    assert str(best.relative_to(tmp_path)) in capsys.readouterr().out


def test_run_from_python_returns_the_counts(weights: Path, photos: Path, tmp_path: Path) -> None:
    summary = detect.run(
        weights=weights,
        source=str(photos),
        imgsz=64,
        project=tmp_path / "r",
        classes=[1],
        conf_thres=0.01,
        device="cpu",
    )
    assert summary.images == summary.frames == 3
    assert set(summary.detections) == {1}
    assert summary.save_dir == tmp_path / "r" / "exp"
    assert summary.complete
    assert min(summary.speeds_ms) > 0
    with pytest.raises(UserError, match=r"unknown option 'imgs' \(did you mean 'imgsz'\?\)"):
        detect.run(imgs=64)


@pytest.mark.parametrize("flags", [{"augment": True}, {"agnostic_nms": True}, {"imgsz": [64, 96]}, {"visualize": True}])
def test_other_ways_to_run(weights: Path, photos: Path, tmp_path: Path, flags: dict) -> None:
    options = {"imgsz": 64, "conf_thres": 0.01, "max_det": 5, **flags}
    summary = detect.run(weights=weights, source=str(photos / "a.jpg"), project=tmp_path / "r", device="cpu", **options)
    assert sum(summary.detections.values()) == 5
    if "visualize" in flags:
        assert len(list((tmp_path / "r" / "exp" / "a").iterdir())) > 5


def test_imgsz_is_rounded_up_to_the_stride(weights: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detect.run(weights=weights, source=str(photos / "a.jpg"), imgsz=[60, 70], nosave=True, device="cpu")
    captured = capsys.readouterr()
    assert "--imgsz 60x70 is no multiple of the stride 32; using 64x96" in captured.err
    assert ": 64x96 " in captured.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": "nowhere.jpg"}, "'nowhere.jpg' does not exist"),
        ({"weights": "gone.pt"}, "weights 'gone.pt' not found"),
        ({"weights": None}, "no --weights given"),
        ({"classes": [0, 3]}, "--classes 3: the model's classes are 0 to 2"),
        ({"conf_thres": 25}, "conf_thres: must lie between 0 and 1, not 25"),
        ({"iou_thres": -0.1}, "iou_thres: must lie between 0 and 1, not -0.1"),
        ({"max_det": 0}, "max_det: must be 1 or more, not 0"),
        ({"vid_stride": 0}, "vid_stride: must be 1 or more"),
        ({"imgsz": [1, 2, 3]}, "--imgsz takes one size or height and width"),
        ({"device": "7"}, "--device 7: no GPU 7"),
        ({"font": "No Such Font"}, "--font 'No Such Font' is neither"),
        ({"project": "file.txt"}, "cannot write to folder"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run_folder(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("models.weights.ROOT", tmp_path)
    (tmp_path / "file.txt").write_text("in the way")
    with pytest.raises(UserError, match=said) as caught:
        detect.run(
            **{"weights": weights, "source": str(photos), "imgsz": 64, "device": "cpu", "project": "r", **options}
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_help_names_every_flag_of_v7(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        detect.parse_opt(["--help"])
    said = capsys.readouterr().out
    v7 = (
        "weights source data imgsz img img-size conf-thres iou-thres max-det device view-img save-txt save-csv "
        "save-conf save-crop nosave classes agnostic-nms augment visualize update project name exist-ok "
        "line-thickness hide-labels hide-conf half dnn vid-stride"
    )
    missing = [flag for flag in v7.split() if f"--{flag}" not in said]
    assert not missing


def test_update_strips_the_weights_first(weights: Path, photos: Path, tmp_path: Path) -> None:
    from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint

    full = load_checkpoint(weights)
    full.epoch, full.optimizer = 3, {"state": {}, "param_groups": []}
    save_checkpoint(tmp_path / "last.pt", full)
    detect.run(weights=tmp_path / "last.pt", source=str(photos / "a.jpg"), imgsz=64, nosave=True, update=True)
    assert load_checkpoint(tmp_path / "last.pt").optimizer is None


@pytest.mark.parametrize("batch_size", [1, 2])
def test_published_network_gives_the_published_boxes(shared_data: Path, tmp_path: Path, batch_size: int) -> None:
    summary = detect.run(
        weights=shared_data / "weights" / "yolov5n.pt",
        source=str(shared_data / "data" / "photos"),
        project=tmp_path,
        save_txt=True,
        save_conf=True,
        device="cpu",
        batch_size=batch_size,
    )
    assert dict(summary.detections) == {0: 6, 5: 1, 27: 1}
    for name, text in EXPECTED.items():
        expected = _table(text)
        found = _table((tmp_path / "exp" / "labels" / f"{name}.txt").read_text())
        assert found[:, 0].tolist() == expected[:, 0].tolist()
        assert np.allclose(found[:, 5], expected[:, 5], atol=0.005)
        assert np.allclose(_corners(found, SIZES[name]), _corners(expected, SIZES[name]), atol=1.0)


def _table(text: str) -> np.ndarray:
    """(n, 6), by rising confidence."""
    rows = np.array([[float(v) for v in line.split()] for line in text.strip().splitlines()])
    return rows[rows[:, 5].argsort()]


def _corners(rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, 4) xyxy in pixels."""
    centre, half = rows[:, 1:3] * size, rows[:, 3:5] * size / 2
    return np.hstack([centre - half, centre + half])
