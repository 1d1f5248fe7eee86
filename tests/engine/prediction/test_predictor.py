"""The loop: geometry there and back, batches, sources of every kind, what ends it and what it leaves behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.prediction.outputs import OutputOptions
from engine.prediction.predictor import InferenceOptions, PredictionSummary, log_summary, predict
from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from tests.engine.spotter import MaskSpotter, Spotter, scene
from tests.media import pixels, write_video
from utils.data.sources.files import MediaFiles, find_media
from utils.data.sources.frame import Frame, Unreadable
from utils.data.sources.image_io import write_image
from utils.errors import UserError


def run(
    source: object,
    folder: Path,
    backend: object | None = None,
    options: InferenceOptions | None = None,
    task: DetectionTask | None = None,
    **output: object,
) -> PredictionSummary:
    folder.mkdir(exist_ok=True)
    if isinstance(source, (str, Path)):
        source = MediaFiles(find_media(source), progress=False)
    options = options or InferenceOptions(imgsz=(320, 320))
    written = OutputOptions(folder, **{"nosave": True, "save_txt": True, "save_conf": True, **output})  # type: ignore[arg-type]
    return predict(source, backend or Spotter(), task or DetectionTask(), options, written)  # type: ignore[arg-type]


def labels(folder: Path) -> dict[str, list[list[float]]]:
    """Numbers of each label file."""
    files = sorted((folder / "labels").glob("*.txt"))
    return {f.stem: [[float(v) for v in line.split()] for line in f.read_text().splitlines()] for f in files}


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (200, 901), (97, 53), (1200, 700)])
def test_boxes_come_back_in_pixels_of_the_original(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    red = (width // 5, height // 4, width * 3 // 5, height // 2)
    blue = (width * 7 // 10, height * 6 // 10, width, height)  # touches the corner: must not run over it
    write_image(tmp_path / "a.png", scene(height, width, red=red, blue=blue))
    summary = run(tmp_path / "a.png", tmp_path / "out")
    assert dict(summary.detections) == {0: 1, 1: 1}
    tolerance = max(height, width) / 320 + 0.51  # a pixel of the network's picture
    for row, (cls, box, confidence) in zip(labels(tmp_path / "out")["a"], ((0, red, 0.9), (1, blue, 0.6)), strict=True):
        x, y, w, h = np.array(row[1:5]) * (width, height, width, height)
        assert row[0] == cls
        assert row[5] == pytest.approx(confidence, abs=1e-5)
        assert np.allclose([x - w / 2, y - h / 2, x + w / 2, y + h / 2], box, atol=tolerance)
        assert x + w / 2 <= width + 1e-3
        assert y + h / 2 <= height + 1e-3


def test_rectangular_input_is_the_least_multiple_of_the_stride(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", scene(480, 640))
    backend = Spotter()
    run(tmp_path / "a.png", tmp_path / "out", backend)
    assert backend.shapes == [(1, 3, 256, 320)]  # 240 rows of content, and 256 is the next multiple of 32
    backend.any_size = False  # a runtime of fixed size gets the full square
    run(tmp_path / "a.png", tmp_path / "out", backend)
    assert backend.shapes[-1] == (1, 3, 320, 320)


def test_thresholds_and_classes_reach_the_suppression(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", scene(64, 64, red=(0, 0, 20, 20), blue=(40, 40, 64, 64)))
    for options, expected in (
        ({"conf_thres": 0.7}, {0: 1}),
        ({"classes": [1]}, {1: 1}),
        ({"max_det": 1}, {0: 1}),
        ({"conf_thres": 0.95}, {}),
    ):
        summary = run(tmp_path / "a.png", tmp_path / "out", options=InferenceOptions(imgsz=(64, 64), **options))  # type: ignore[arg-type]
        assert dict(summary.detections) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_of_one_shape_lose_and_mix_up_nothing(tmp_path: Path, batch_size: int) -> None:
    sizes = [(60, 80), (80, 60), (60, 80), (60, 60), (80, 60), (60, 80), (60, 80), (60, 80), (80, 60)]
    (tmp_path / "in").mkdir()
    for i, (h, w) in enumerate(sizes):
        write_image(tmp_path / "in" / f"{i}.png", scene(h, w, red=(5 * i, 0, 5 * i + 10, 20)))
    backend = Spotter()
    summary = run(
        tmp_path / "in", tmp_path / "out", backend, InferenceOptions(imgsz=(320, 320), batch_size=batch_size)
    )  # fmt: skip
    assert summary.images == summary.frames == sum(s[0] for s in backend.shapes) == len(sizes)
    assert max(s[0] for s in backend.shapes) <= batch_size
    if batch_size == 8:
        assert sorted(s[0] for s in backend.shapes) == [1, 3, 5]
    for i, (_, w) in enumerate(sizes):
        [row] = labels(tmp_path / "out")[str(i)]
        assert row[1] * w == pytest.approx(5 * i + 5, abs=0.5)


def test_waiting_images_are_bounded(tmp_path: Path) -> None:
    """Images of many shapes must not pile up in memory until the end."""
    read = []

    class Source:
        live, paths = False, ("x",)
        unreadable: tuple[Unreadable, ...] = ()

        def __iter__(self) -> Iterator[list[Frame]]:
            for i in range(100):
                read.append(i)
                yield [Frame(f"{i}.png", scene(32, 32 * (1 + i % 10)))]

        def __len__(self) -> int:
            return 1

    class Counting(Spotter):
        def __call__(self, im, augment=False, visualize=False):  # type: ignore[no-untyped-def]
            assert len(read) - sum(s[0] for s in self.shapes) <= 8
            return super().__call__(im, augment, visualize)

    summary = run(Source(), tmp_path, Counting(), InferenceOptions(imgsz=(320, 320), batch_size=2))
    assert summary.frames == 100


def make_video(path: Path, frames: int = 35) -> Path:
    """A red box moves 2 pixels to the right each frame."""
    return write_video(path, (scene(96, 160, red=(2 * n, 40, 2 * n + 40, 80)) for n in range(frames)), 12)


@pytest.mark.parametrize(("stride", "batch_size"), [(1, 1), (1, 4), (3, 2)])
def test_video_is_annotated_in_order_and_can_be_played(tmp_path: Path, stride: int, batch_size: int) -> None:
    path = make_video(tmp_path / "clip é.avi")
    source = MediaFiles([str(path)], vid_stride=stride, progress=False)
    options = InferenceOptions(imgsz=(160, 160), batch_size=batch_size)
    summary = run(source, tmp_path / "out", options=options, nosave=False)
    numbers = list(range(1, 36, stride))
    assert (summary.frames, summary.images) == (len(numbers), 0)
    assert summary.complete
    assert sorted(labels(tmp_path / "out"), key=lambda s: int(s.split("_")[1])) == [f"clip é_{n}" for n in numbers]
    for n in numbers:
        [[_, x, *_]] = labels(tmp_path / "out")[f"clip é_{n}"]
        assert x * 160 == pytest.approx(2 * (n - 1) + 20, abs=1.5)
    played = cv2.VideoCapture(str(tmp_path / "out" / "clip é.mp4"))
    assert played.get(cv2.CAP_PROP_FPS) == pytest.approx(12 / stride)
    count = 0
    while (got := played.read())[0]:
        image = got[1]
        assert image.shape == (96, 160, 3)
        assert image[:36].std() > 15  # a label on the grey above the box
        count += 1
    assert count == len(numbers)
    assert not list((tmp_path / "out").glob("*.part*"))


def test_two_videos_and_an_image_between_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.avi", frames=5)
    write_image(tmp_path / "in" / "b.png", scene(96, 160, blue=(0, 0, 20, 20)))
    make_video(tmp_path / "in" / "c.avi", frames=5)
    backend = Spotter()
    run(tmp_path / "in", tmp_path / "out", backend, InferenceOptions(imgsz=(160, 160), batch_size=4), nosave=False)
    assert [s[0] for s in backend.shapes] == [4, 1, 1, 4, 1]
    for name in ("a.mp4", "c.mp4"):
        assert cv2.VideoCapture(str(tmp_path / "out" / name)).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert (tmp_path / "out" / "b.png").is_file()


def test_broken_files_do_not_stop_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "c.jpg"):
        write_image(tmp_path / "in" / name, scene(64, 64, red=(0, 0, 20, 20)))
    (tmp_path / "in" / "b.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes()[:300])
    summary = run(tmp_path / "in", tmp_path / "out", nosave=False)
    log_summary(summary, Spotter.names, (320, 320))
    assert not summary.complete
    assert [Path(u.path).name for u in summary.unreadable] == ["b.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.jpg")) == ["a.jpg", "c.jpg"]
    captured = capsys.readouterr()
    assert "1 of 3 sources could not be read, or not in full" in captured.err
    assert "2 images in" in captured.out
    assert '2 red, "bright"s' in captured.out


class Camera:
    """A live source of `rounds`, each a list of images, which then behaves as `then` says."""

    live = True

    def __init__(self, rounds: list[list[np.ndarray]], then: type[BaseException] | None = None) -> None:
        self.rounds, self.then = rounds, then
        self.paths = ["rtsp://host/a?b=1", "0"]
        self.unreadable: list[Unreadable] = []

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[list[Frame]]:
        for number, images in enumerate(self.rounds, 1):
            yield [
                Frame(self.paths[i], image, "stream", number, 0, 10.0, number / 10, f"stream {i}")
                for i, image in enumerate(images)
            ]
        if self.then:
            raise self.then


def test_live_streams_go_together_and_leave_a_video_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = scene(64, 96, red=(10, 20, 40, 50))
    backend = Spotter()
    camera = Camera([[picture, picture], [picture], [picture, picture]])
    summary = run(camera, tmp_path / "out", backend, nosave=False)
    assert [s[0] for s in backend.shapes] == [2, 1, 2]  # what arrived together; nobody waits for a late stream
    assert summary.frames == 5
    videos = {p.name: cv2.VideoCapture(str(p)).get(cv2.CAP_PROP_FRAME_COUNT) for p in (tmp_path / "out").glob("*.mp4")}
    assert videos == {"rtsp_host_a_b_1.mp4": 3, "0.mp4": 3}  # frame 2 of the second was missed: shown as a longer 1
    assert len(labels(tmp_path / "out")) == 5
    assert capsys.readouterr().out.count("stream 0 rtsp://host/a?b=1, frame") == 1  # a line now and then


def test_interruption_ends_a_live_source_quietly_and_a_file_loudly(tmp_path: Path) -> None:
    picture = scene(64, 96)
    summary = run(Camera([[picture]] * 3, KeyboardInterrupt), tmp_path / "out", nosave=False)
    assert summary.interrupted
    assert summary.frames == 3
    assert cv2.VideoCapture(str(tmp_path / "out" / "rtsp_host_a_b_1.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    camera = Camera([[picture]] * 3, KeyboardInterrupt)
    camera.live = False
    with pytest.raises(KeyboardInterrupt):
        run(camera, tmp_path / "second", nosave=False)
    assert cv2.VideoCapture(str(tmp_path / "second" / "rtsp_host_a_b_1.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) > 0


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", scene(64, 64))
    with pytest.raises(UserError, match="would be overwritten"):
        run(tmp_path / "a.png", tmp_path, nosave=False)
    run(tmp_path / "a.png", tmp_path, nosave=True)


def test_nothing_asked_for_nothing_written(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", scene(64, 64, red=(0, 0, 20, 20)))
    run(tmp_path / "a.png", tmp_path / "out", save_txt=False)
    assert not list((tmp_path / "out").iterdir())


def test_features_have_a_folder_for_each_picture(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.png", scene(64, 64))
    backend = Spotter()
    options = InferenceOptions(imgsz=(64, 64), batch_size=2, visualize=True)
    run(tmp_path / "in", tmp_path / "out", backend, options)
    assert backend.features == [tmp_path / "out" / "a", tmp_path / "out" / "b"]
    assert all(Path(str(f)).is_dir() for f in backend.features)


def test_image_lines_read_like_yolov5s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", scene(480, 640, blue=(100, 100, 200, 200)))
    write_image(tmp_path / "b.png", scene(640, 480))
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    run(tmp_path / "list.txt", tmp_path / "out")
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("image "))
    assert first.startswith(f"image 1/2 {tmp_path / 'a.png'}: 256x320 1 blue, ")
    assert first.endswith("ms")
    assert f"{tmp_path / 'b.png'}: 320x256 (no detections), " in second


def test_a_window_that_is_closed_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.prediction import outputs

    keys = itertools.chain([True, False])

    class Closing:
        def show(self, *args: object) -> bool:
            return next(keys)

        def close(self) -> None:
            pass

    monkeypatch.setattr(outputs, "check_imshow", lambda warn: True)
    monkeypatch.setattr(outputs, "Window", Closing)
    summary = run(Camera([[scene(64, 64)]] * 9), tmp_path / "out", view_img=True)
    assert summary.interrupted
    assert summary.frames == 2


def discs(height: int, width: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """A picture with a red disc and a blue one that its corner cuts, and where they are: class → (H, W) bool."""
    image = scene(height, width)
    side = min(height, width)
    cv2.circle(image, (width // 3, height // 2), side // 4, (0, 0, 255), -1)
    cv2.circle(image, (width, height), side // 3, (255, 0, 0), -1)
    return image, {0: (image == (0, 0, 255)).all(2), 1: (image == (255, 0, 0)).all(2)}


@pytest.mark.parametrize("retina", [False, True])
@pytest.mark.parametrize("size", [(480, 640), (640, 480), (200, 901), (97, 53)])
def test_masks_come_back_in_pixels_of_the_original(tmp_path: Path, size: tuple[int, int], retina: bool) -> None:
    image, truth = discs(*size)
    write_image(tmp_path / "a.png", image)
    task = SegmentationTask(retina_masks=retina)
    run(tmp_path / "a.png", tmp_path / "out", MaskSpotter(), task=task, save_mask=True)
    classes = pixels(tmp_path / "out" / "masks" / "a_classes.png")
    assert classes.shape == size
    for cls, known in truth.items():
        found = classes == cls + 1
        around = np.pad(np.uint8(known), 1)  # the picture's edge is an outline, too
        outline = cv2.morphologyEx(around, cv2.MORPH_GRADIENT, np.ones((3, 3)))
        distance = cv2.distanceTransform(1 - outline, cv2.DIST_L2, 5)[1:-1, 1:-1]  # pixels to the true outline
        assert distance[found != known].max(initial=0) < 2 * max(size) / 320  # half a cell of the prototypes
        assert abs(found.sum() / known.sum() - 1) < 0.05


def test_masks_of_a_batch_are_not_mixed_up(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(5):
        write_image(tmp_path / "in" / f"{i}.png", scene(64, 96, red=(16 * i, 8, 16 * i + 16, 40)))
    write_image(tmp_path / "in" / "none.png", scene(64, 96))
    options = InferenceOptions(imgsz=(64, 96), batch_size=4)
    flags = {"save_conf": False, "save_mask": True, "save_crop": True}
    run(tmp_path / "in", tmp_path / "out", MaskSpotter(), options, SegmentationTask(), **flags)
    for i in range(5):
        expected = np.zeros((64, 96), np.uint8)
        expected[8:40, 16 * i : 16 * i + 16] = 1  # on edges of cells: exact but for the corners, which are rounded
        found = pixels(tmp_path / "out" / "masks" / f"{i}_instances.png")
        assert (found != expected).sum() <= 4
        outline = np.array(labels(tmp_path / "out")[str(i)][0][1:]).reshape(-1, 2) * (96, 64)
        assert np.allclose([*outline.min(0), *outline.max(0)], [16 * i, 8, 16 * i + 16, 40], atol=1e-3)
        assert (pixels(next((tmp_path / "out" / "crops").rglob(f"{i}.png")))[..., 3] > 0).sum() == found.sum()
    assert not pixels(tmp_path / "out" / "masks" / "none_instances.png").any()
    assert "none" not in labels(tmp_path / "out")


def test_masks_of_a_video_are_drawn_and_written_for_every_frame(tmp_path: Path) -> None:
    source = MediaFiles([str(make_video(tmp_path / "clip.avi", frames=6))], progress=False)
    options = InferenceOptions(imgsz=(160, 160), batch_size=4)
    run(source, tmp_path / "out", MaskSpotter(), options, SegmentationTask(), nosave=False, save_mask=True)
    names = {f"clip_{n}_{kind}.png" for n in range(1, 7) for kind in ("classes", "instances")}
    assert {p.name for p in (tmp_path / "out" / "masks").iterdir()} == names
    assert pixels(tmp_path / "out" / "masks" / "clip_6_classes.png")[45:75, 15:45].all()
    assert cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 6
