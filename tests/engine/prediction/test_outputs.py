"""Annotated frames: what is drawn, and the images and videos on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.prediction.outputs import AnnotatedFrames, FrameAnnotator, FrameResult, OutputNames, describe
from engine.prediction.video_file import VideoFile
from utils.data.sources.frame import Frame
from utils.data.sources.image_io import read_image
from utils.errors import UserError
from utils.ops.masks import BoxMask
from utils.plots.annotator import colors

NAMES = {0: "a/b", 1: "..", 2: "person"}


def result(path: str = "x.png", n: int = 3) -> FrameResult:
    image = np.full((100, 200, 3), 50, np.uint8)
    boxes = np.array([[20, 30, 60, 60], [100, 40, 150, 90], [104, 44, 154, 94]], np.float32)[:n]
    classes, confidences = np.array([0, 2, 2])[:n], np.array([0.9, 0.8, 0.7], np.float32)[:n]
    return FrameResult(Frame(path, image), Path(path).stem, boxes, confidences, classes)


def test_names_are_unique_and_stable() -> None:
    names = OutputNames()
    given = ["a/x.jpg", "b/x.jpg", "a/x.png", "a/x.jpg", "c/X.jpg", "rtsp://host:8/cam?1", "0", "screen 0"]
    assert [names[p] for p in given] == ["x", "x-2", "x-3", "x", "X-4", "rtsp_host_8_cam_1", "0", "screen 0"]


def test_picture_is_written_as_it_came(tmp_path: Path) -> None:
    pictures = AnnotatedFrames(tmp_path)
    picture = np.full((100, 200, 3), 7, np.uint8)
    pictures.write(result("dir/é.png"), picture)
    pictures.write(result("dir/raw.dng"), None)
    assert (read_image(tmp_path / "é.png") == 7).all()
    assert abs(read_image(tmp_path / "raw.jpg").mean() - 50) < 1  # nothing drawn: the frame itself


def test_one_lost_video_does_not_keep_the_others_from_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = AnnotatedFrames(tmp_path)
    for name in ("a", "b"):
        frame = Frame(f"rtsp://{name}", np.zeros((48, 64, 3), np.uint8), "stream", 1, fps=10)
        pictures.write(FrameResult(frame, name, *_one_box(1)), None)
    closed = []
    close = VideoFile.close

    def failing(video: VideoFile) -> None:
        closed.append(video.path.name)
        close(video)
        if video.path.name == "b.mp4":
            raise UserError("lost")

    monkeypatch.setattr(VideoFile, "close", failing)
    with pytest.raises(UserError, match="lost"):
        pictures.close()
    assert sorted(closed) == ["a.mp4", "b.mp4"]


def test_folders_in_the_place_of_pictures_and_videos(tmp_path: Path) -> None:
    for name in ("x.png", "a.mp4"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"x\.png': a folder has that name"):
        AnnotatedFrames(tmp_path).write(
            FrameResult(Frame("x.png", np.zeros((9, 9, 3), np.uint8)), "x", *_one_box(1)), None
        )
    with pytest.raises(UserError, match=r"a\.mp4': a folder has that name"):
        VideoFile(tmp_path / "a.mp4", 10, (64, 48))
    assert len(list(tmp_path.iterdir())) == 2


def test_names_made_of_long_addresses_stay_short() -> None:
    names = OutputNames()
    assert len(names["rtsp://camera/" + "t" * 5000]) <= 100


def _one_box(cls: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array([[1, 1, 7, 7]], np.float32), np.array([0.5], np.float32), np.array([cls])


def test_the_surest_is_drawn_on_top_and_the_frame_kept_clean() -> None:
    item = result()
    picture = FrameAnnotator(NAMES, line_width=3, hide_labels=True)(item)
    assert (item.frame.image == 50).all()
    assert (picture[90, 120] == colors(2, bgr=True)).all()
    both = FrameAnnotator({0: "a", 1: "b", 2: "c"}, line_width=3, hide_labels=True)(
        FrameResult(item.frame, "x", item.boxes[1:], item.confidences[1:], np.array([0, 1]))
    )
    assert (both[90, 110] == colors(0, bgr=True)).all()
    assert (both[44, 149:152] == colors(0, bgr=True)).all()  # where the two boxes cross


def test_masks_lie_under_boxes_and_touching_ones_can_be_told_apart() -> None:
    """Two halves of one class side by side, and a surer one of another class that lies over a corner of both."""
    frame = Frame("x.png", np.full((100, 200, 3), 50, np.uint8))
    boxes = np.array([[80, 50, 120, 98], [40, 10, 100, 90], [100, 10, 160, 90]], np.float32)
    masks = [BoxMask(int(x1), int(y1), np.ones((int(y2 - y1), int(x2 - x1)), bool)) for x1, y1, x2, y2 in boxes]
    item = FrameResult(frame, "x", boxes, np.float32([0.9, 0.8, 0.7]), np.array([2, 0, 0]), masks)
    picture = FrameAnnotator({0: "a", 1: "b", 2: "c"}, line_width=1, hide_labels=True)(item).astype(float)
    lower, upper = (np.array(colors(c, bgr=True)) for c in (0, 2))
    assert np.allclose(picture[30, 70], 50 * 0.6 + lower * 0.4, atol=1)
    assert np.allclose(picture[95, 100], 50 * 0.6 + upper * 0.4, atol=1)
    assert np.allclose(
        picture[70, 90], (50 * 0.6 + lower * 0.4) * 0.6 + upper * 0.4, atol=1
    )  # the surer over the other
    assert (picture[30, 98:102] == lower).all(1).any()  # a line between neighbours
    assert np.array_equal(picture[70, 120], upper)  # its box, over the mask of another
    assert (frame.image == 50).all()
    empty = FrameResult(
        frame, "x", boxes[:1], np.float32([0.9]), np.array([2]), [BoxMask(0, 0, np.zeros((0, 0), bool))]
    )
    assert np.array_equal(FrameAnnotator(NAMES, 1, hide_labels=True)(empty)[60, 100], [50] * 3)


def test_labels_can_be_hidden() -> None:
    plain, named, full = (
        FrameAnnotator(NAMES, 2, hide_labels=hide, hide_conf=conf)(result(n=1))
        for hide, conf in ((True, False), (False, True), (False, False))
    )
    changed = [(picture != 50).any(2).sum() for picture in (plain, named, full)]
    assert changed[0] < changed[1] < changed[2]


def test_description() -> None:
    assert describe({2: 4, 0: 1}, NAMES) == "1 a/b, 4 persons"
    assert describe({}, NAMES) == "(no detections)"
    assert describe({9: 1}, NAMES) == "1 9"
