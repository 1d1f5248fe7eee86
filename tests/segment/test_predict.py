"""`segment/predict.py` as a user runs it, on a small random network: the plumbing, not the figures."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import detect
from segment import predict
from tests.media import pixels, save_untrained, write_video
from utils.data.indexing.labels import parse_labels
from utils.data.sources.image_io import read_image, write_image
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
NAMES = {0: "person", 1: "автобус", 2: "traffic light"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("weights") / "tiny-seg.pt", NAMES, "yolov5n_MobileNetv2-seg.yaml")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of two shapes, with something in them."""
    rng = np.random.default_rng(0)
    (tmp_path / "фото").mkdir()
    for name, size in (("a.jpg", (60, 80)), ("b é.png", (80, 60)), ("c.jpg", (60, 80))):
        noise = rng.integers(0, 255, (5, 5, 3), np.uint8)
        write_image(tmp_path / "фото" / name, cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC))
    return tmp_path / "фото"


@pytest.fixture
def quick(tmp_path: Path, weights: Path, photos: Path) -> dict[str, Any]:
    return {
        "weights": weights, "source": str(photos), "imgsz": 64, "max_det": 5, "conf_thres": 0.01, "device": "cpu",
        "project": tmp_path / "runs",
    }  # fmt: skip


@pytest.mark.parametrize("retina", [False, True])
def test_everything_at_once(quick: dict[str, Any], photos: Path, tmp_path: Path, retina: bool) -> None:
    summary = predict.run(
        **quick, save_txt=True, save_csv=True, save_crop=True, save_mask=True, batch_size=2, retina_masks=retina
    )
    out = tmp_path / "runs" / "exp"
    assert summary.images == 3
    assert {p.name for p in out.iterdir()} == {
        "a.jpg", "b é.png", "c.jpg", "labels", "crops", "masks", "predictions.csv"
    }  # fmt: skip
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(summary.detections.values()) == 15  # five of each, --max-det
    for photo in photos.iterdir():
        of_photo = [row for row in rows if Path(row["image"]).name == photo.name]
        size = read_image(photo).shape[:2]
        instances = pixels(out / "masks" / f"{photo.stem}_instances.png")
        classes = pixels(out / "masks" / f"{photo.stem}_classes.png")
        assert instances.shape == classes.shape == size
        assert instances.max() > 0
        for number in range(1, 6):  # a number is the row of the table; a mask lies within its box
            row = of_photo[number - 1]
            ys, xs = np.nonzero(instances == number)
            assert (classes[ys, xs] == 1 + int(row["class_id"])).all()
            if len(xs):
                assert float(row["x1"]) - 0.6 <= xs.min() < xs.max() + 1 <= float(row["x2"]) + 0.6
                assert float(row["y1"]) - 0.6 <= ys.min() < ys.max() + 1 <= float(row["y2"]) + 0.6
        assert not classes[instances == 0].any()
        text = (out / "labels" / f"{photo.stem}.txt").read_bytes()
        labels = parse_labels([text], [photo.name], nc=3, polygons=True)
        crops = list((out / "crops").rglob(f"{photo.stem}*.png"))
        assert 0 < len(labels.classes) <= len(text.splitlines()) == len(crops) <= 5
        assert all(pixels(crop)[..., 3].any() for crop in crops)
    assert not np.array_equal(read_image(out / "b é.png"), read_image(photos / "b é.png"))


def test_hidden_labels_leave_the_masks(quick: dict[str, Any], tmp_path: Path) -> None:
    quick["source"] += "/b é.png"
    for name, flags in (("full", {}), ("bare", {"hide_labels": True, "line_thickness": 1})):
        predict.run(**quick, name=name, **flags)
    detect_like = read_image(tmp_path / "runs" / "full" / "b é.png")
    bare = read_image(tmp_path / "runs" / "bare" / "b é.png")
    original = read_image(quick["source"])
    inside = (bare != original).any(2).mean()
    assert inside > 0.1  # areas, not lines
    assert not np.array_equal(detect_like, bare)


def test_a_video_has_masks_for_each_frame(quick: dict[str, Any], tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 255, (4, 64, 96, 3), np.uint8)
    video = write_video(tmp_path / "clip.mp4", frames, 15, "mp4v")
    predict.run(**{**quick, "source": str(video)}, save_mask=True, vid_stride=2)
    out = tmp_path / "runs" / "exp"
    assert cv2.VideoCapture(str(out / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert {p.name for p in (out / "masks").iterdir()} == {
        f"clip_{n}_{kind}.png" for n in (1, 3) for kind in ("classes", "instances")
    }


@pytest.mark.parametrize(
    "flags",
    [{"augment": True}, {"classes": [1]}, {"agnostic_nms": True}, {"imgsz": [64, 96]}, {"visualize": True}],
)
def test_other_ways_to_run(quick: dict[str, Any], tmp_path: Path, flags: dict[str, Any]) -> None:
    quick["source"] += "/a.jpg"
    summary = predict.run(**{**quick, **flags}, save_mask=True, nosave=True)
    assert sum(summary.detections.values()) == 5
    out = tmp_path / "runs" / "exp"
    assert pixels(out / "masks" / "a_instances.png").any()
    if "classes" in flags:
        assert set(np.unique(pixels(out / "masks" / "a_classes.png"))) <= {0, 2}
    if "visualize" in flags:
        assert len(list((out / "a").iterdir())) > 5


def test_an_ensemble_of_one_network_twice_sees_what_it_sees(quick: dict[str, Any], tmp_path: Path) -> None:
    quick["source"] += "/a.jpg"
    for name, weights in (("one", quick["weights"]), ("two", [quick["weights"]] * 2)):
        predict.run(**{**quick, "weights": weights}, name=name, save_mask=True, nosave=True)
    one, two = (pixels(tmp_path / "runs" / name / "masks" / "a_classes.png") for name in ("one", "two"))
    assert np.array_equal(one, two)


def test_newest_training_of_masks_is_the_default(
    quick: dict[str, Any], weights: Path, make_weights: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder, source in (("train", make_weights()), ("train-seg", weights)):  # the segmenter is the newer
        best = tmp_path / "runs" / folder / "exp" / "weights" / "best.pt"
        best.parent.mkdir(parents=True)
        best.write_bytes(source.read_bytes())
    for command, found in ((predict, "runs/train-seg/exp"), (detect, "runs/train/exp")):
        command.run(**{**quick, "weights": None}, nosave=True)
        assert f"so the newest training's: {Path(found, 'weights', 'best.pt')}" in capsys.readouterr().out


@pytest.mark.parametrize("swap", [False, True])
def test_a_checkpoint_of_the_other_task_is_one_line_that_names_the_command(
    quick: dict[str, Any], make_weights: Callable[..., Path], tmp_path: Path, swap: bool
) -> None:
    command, given, other = (predict, make_weights("boxes.pt"), "detect.py")
    if swap:
        command, given, other = (detect, quick["weights"], "segment/predict.py")
    with pytest.raises(UserError, match=rf"^{re.escape(str(given))}: .*python {other}$") as caught:
        command.run(**{**quick, "weights": given})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_masks_are_not_a_flag_of_detection() -> None:
    with pytest.raises(UserError, match="unknown option 'save_mask'"):
        detect.run(save_mask=True)
    assert "png" not in detect.parse_opt.__globals__["prediction_parser"]("", project="").format_help()


def test_help_from_the_command_line_answers_without_torch(tmp_path: Path) -> None:
    """As a script, from any working directory: the project is found, and nothing heavy loaded."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['predict.py', '--help']; sys.path[0] = {str(ROOT / 'segment')!r}\n"
        f"try:\n    runpy.run_path({str(ROOT / 'segment' / 'predict.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    print('code', end.code)\n"
        "print('heavy', sorted({'torch', 'numpy', 'cv2', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "code 0" in answer.stdout
    assert "heavy []" in answer.stdout
    ours = set(re.findall(r"--[a-z-]+", answer.stdout))
    theirs = set(re.findall(r"--[a-z-]+", _help_of_detection()))
    assert ours - theirs == {"--retina-masks", "--save-mask"}
    assert not theirs - ours
    for text in ("runs/predict-seg", "NAME.png"):
        assert text in answer.stdout


def _help_of_detection() -> str:
    from engine.prediction.flags import prediction_parser

    return prediction_parser("", project="runs/detect").format_help()
