"""The examples give, from an exported file and without a line of ours, what `detect.py` and `segment/predict.py` find.

The oracle is the checkpoint, run by PyTorch in the command; the input's size is one that both pad a picture to alike.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

import detect
import export
from segment import predict

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
WEB = EXAMPLES / "web"
SIZE = [320, 256]  # height, width: the photo, of 1280×962, gets a border of 8 pixels at the left and the right
CONF = 0.05  # low enough for objects that suppress others
FILES = (), ("--separate-heads", "--dynamic"), ("--nms",), ("--nms", "--dynamic")  # flags of export.py

Exported = Callable[..., Path]


class Found(NamedTuple):
    name: str
    confidence: float
    box: list[float]


class Expected(NamedTuple):
    found: list[Found]
    instances: np.ndarray | None  # (H, W): 1 + the place in `found` of the object whose mask a pixel shows, 0: none


@pytest.fixture(scope="module")
def photo(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph as PNG: readers of JPEG differ by a grey level."""
    path = tmp_path_factory.mktemp("photo") / "bus.png"
    image = cv2.imread(str(shared_data / "data" / "photos" / "bus.jpg"))
    cv2.imwrite(str(path), cv2.resize(image, (962, 1280)))  # 240.5 pixels wide in the network: rounded to even
    return path


@pytest.fixture(scope="module")
def weights(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By task: the published detector; and a segmenter with its boxes, whose masks are drawn by lot."""
    import torch

    from engine.segmentation import SegmentationTask
    from models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from models.loading import build_model
    from models.yolo import SegmentationModel

    folder = tmp_path_factory.mktemp("weights")
    paths = {"detect": folder / "detector.pt", "segment": folder / "segmenter.pt"}
    shutil.copy(shared_data / "weights" / "yolov5n.pt", paths["detect"])
    detector = build_model(load_checkpoint(paths["detect"]))
    torch.manual_seed(0)
    segmenter = SegmentationModel(SegmentationTask().cfg_from_checkpoint(detector.yaml), nc=detector.nc)
    state, known = segmenter.state_dict(), detector.head.no
    for name, value in detector.state_dict().items():
        if value.shape == state[name].shape:
            state[name].copy_(value)
        else:  # an output convolution of the head: for each anchor the detector's channels, then the coefficients
            state[name].unflatten(0, (3, -1))[:, :known].copy_(value.unflatten(0, (3, -1)))
    save_checkpoint(paths["segment"], Checkpoint("segment", segmenter.yaml, dict(detector.names), state))
    return paths


@pytest.fixture(scope="module")
def exported(weights: dict[str, Path]) -> Exported:
    """Writes the network of a task with some flags of `export.py`, such as ``("detect", "--nms")``; each file once."""

    @cache
    def write(task: str, *flags: str) -> Path:
        own = weights[task].with_name(f"{task}{''.join(flags)}.pt")
        own.symlink_to(weights[task])
        words = ["--weights", str(own), "--include", "onnx", "--imgsz", *map(str, SIZE), "--no-verify", *flags]
        words += ["--conf-thres", str(CONF)] if "--nms" in flags else []
        return export.main(export.parse_opt(words))[0]

    return write


@pytest.fixture(scope="module")
def expected(
    weights: dict[str, Path], photo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Expected]:
    """What the command of a task finds with its checkpoint."""

    @cache
    def find(task: str) -> Expected:
        runs, how = tmp_path_factory.mktemp("runs"), {"imgsz": SIZE, "device": "cpu", "nosave": True, "save_csv": True}
        given = {"weights": str(weights[task]), "source": str(photo), "project": str(runs), "conf_thres": CONF, **how}
        if task == "segment":
            predict.run(**given, retina_masks=True, save_mask=True)
        else:
            detect.run(**given)
        rows = list(csv.DictReader((runs / "exp" / "predictions.csv").open(encoding="utf-8")))
        boxes = [[float(row[key]) for key in ("x1", "y1", "x2", "y2")] for row in rows]
        found = [Found(row["class"], float(row["confidence"]), box) for row, box in zip(rows, boxes, strict=True)]
        assert {one.name for one in found} >= {"person", "bus"}, "the photo shows both"
        assert len(found) >= 10
        masks = runs / "exp" / "masks" / f"{photo.stem}_instances.png"
        return Expected(found, cv2.imread(str(masks), cv2.IMREAD_UNCHANGED) if masks.exists() else None)

    return find


def example(script: str) -> Any:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(script, EXAMPLES / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def output_of(*command: object, **environment: str) -> str:
    """What a command that must succeed prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(found: list[Found], expected: list[Found]) -> None:
    """The same objects in the same order, to a pixel of the photo (the table that is read has one decimal)."""
    assert [one.name for one in found] == [one.name for one in expected]
    np.testing.assert_allclose([one.box for one in found], [one.box for one in expected], atol=1)
    np.testing.assert_allclose([one.confidence for one in found], [one.confidence for one in expected], atol=0.005)


def assert_same_masks(own: np.ndarray, theirs: np.ndarray, least: float = 0.98) -> None:
    """Two pictures of instances, (H, W): the pixels of each overlap by `least` at least (IoU)."""
    assert own.shape == theirs.shape
    assert len(np.unique(theirs)) >= 6, "too few masks to compare"
    for number in range(1, theirs.max() + 1):
        one, other = own == number, theirs == number
        assert (one & other).sum() >= least * (one | other).sum(), f"object {number}"


def plot_masks(detections: list[Any], size: tuple[int, int]) -> np.ndarray:
    """The masks of an example's (class, confidence, box, mask) as a picture of instances, the surest on top."""
    instances = np.zeros(size, np.uint8)
    for number in range(len(detections), 0, -1):
        _, _, box, mask = detections[number - 1]
        left, top = np.ceil(box[:2] - 0.5).astype(int)
        instances[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = number
    return instances


@pytest.mark.parametrize("flags", FILES, ids=" ".join)
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_onnxruntime_example_gives_our_boxes_and_masks(
    task: str, flags: tuple[str, ...], exported: Exported, expected: Callable[[str], Expected], photo: Path
) -> None:
    script, image = example("onnxruntime_detect"), cv2.imread(str(photo))
    session, metadata = script.load(str(exported(task, *flags)))
    detections = script.detect(session, metadata, image, CONF)
    want = expected(task)
    names = metadata["names"]
    assert_same([Found(names[str(cls)], score, list(box)) for cls, score, box, _ in detections], want.found)
    if want.instances is None:
        assert all(mask is None for *_, mask in detections)
    else:
        assert_same_masks(plot_masks(detections, image.shape[:2]), want.instances)


@pytest.mark.parametrize(("flags", "pixels"), [(("--batch-size", "2"), 1), (("--half",), 4)], ids=["batch", "half"])
def test_onnxruntime_example_takes_fixed_batches_and_half_precision(
    flags: tuple[str, ...], pixels: int, exported: Exported, expected: Callable[[str], Expected], photo: Path
) -> None:
    script = example("onnxruntime_detect")
    session, metadata = script.load(str(exported("detect", *flags)))
    detections = script.detect(session, metadata, cv2.imread(str(photo)), conf=0.3)
    want = [one for one in expected("detect").found if one.confidence > 0.3]  # the order of unsure ones may change
    assert [metadata["names"][str(cls)] for cls, *_ in detections] == [one.name for one in want]
    np.testing.assert_allclose([box for _, _, box, _ in detections], [one.box for one in want], atol=pixels)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_opencv_example_gives_our_boxes(
    task: str, exported: Exported, expected: Callable[[str], Expected], photo: Path
) -> None:
    script = example("opencv_dnn_detect")
    net, metadata = script.load(str(exported(task)))
    rows = script.detect(net, metadata, cv2.imread(str(photo)), CONF)
    assert_same(
        [Found(metadata["names"][str(cls)], score, list(box)) for cls, score, box in rows], expected(task).found
    )


@pytest.mark.parametrize(
    ("script", "task"), [("onnxruntime_detect.py", "segment"), ("opencv_dnn_detect.py", "detect")]
)  # fmt: skip
def test_python_examples_as_commands(
    script: str, task: str, exported: Exported, expected: Callable[[str], Expected], photo: Path, tmp_path: Path
) -> None:
    text = output_of(sys.executable, EXAMPLES / script, exported(task), photo, "--out", tmp_path, "--conf", CONF)
    rows, areas = [], []
    for line in text.splitlines():
        shown, _, area = line.partition(" mask ")
        place, score, *box = shown.rsplit(maxsplit=5)
        name = place.removeprefix(f"{photo} ")
        rows.append(Found(name, float(score), [float(v) for v in box]))
        areas.append(area)
    want = expected(task)
    assert_same(rows, want.found)
    if task == "segment":
        surest = (want.instances == 1).sum()  # nothing covers the surest one
        np.testing.assert_allclose(int(areas[0]), surest, rtol=0.01)
    drawn, original = cv2.imread(str(tmp_path / photo.name)), cv2.imread(str(photo))
    assert drawn.shape == original.shape
    assert (drawn != original).any()


@pytest.fixture(scope="module")
def mistakes(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are not what they seem."""
    import onnx

    folder, good = tmp_path_factory.mktemp("mistakes"), exported("detect")
    (folder / "text.onnx").write_text("not a network", encoding="utf-8")
    (folder / "cut.onnx").write_bytes(good.read_bytes()[:100_000])
    shutil.copy(exported("detect", "--raw-heads"), folder / "raw.onnx")
    shutil.copy(f"{exported('detect', '--raw-heads')}.json", folder / "raw.onnx.json")
    foreign = onnx.load(good)
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    for name in ("text", "cut"):
        shutil.copy(f"{good}.json", folder / f"{name}.onnx.json")
    (folder / "foreign.onnx.json").write_text("[1]", encoding="utf-8")
    (folder / "text.png").write_text("not a picture", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("model", "onnxruntime_says", "opencv_says"),
    [
        ("absent.onnx", "File doesn't exist", "no such file"),
        ("text.onnx", "parsing failed", "Failed to parse"),
        ("cut.onnx", "parsing failed", "Failed to parse"),
        ("foreign.onnx", "not a file of this project", "not written by this project's export.py"),
        ("raw.onnx", "without --raw-heads", "--raw-heads"),
    ],
)
def test_models_that_cannot_be_used_are_refused_in_one_line(
    model: str, onnxruntime_says: str, opencv_says: str, mistakes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for script, says in (("onnxruntime_detect", onnxruntime_says), ("opencv_dnn_detect", opencv_says)):
        with pytest.raises(SystemExit) as refusal:
            example(script).load(str(mistakes / model))
        line = str(refusal.value.code)
        assert says in line
        assert line.startswith(str(mistakes / model))
        assert "\n" not in line
        assert capfd.readouterr().err == ""  # nor does a library add lines of its own


@pytest.mark.parametrize("script", ["onnxruntime_detect", "opencv_dnn_detect"])
@pytest.mark.parametrize("picture", ["absent.png", "text.png"])
def test_pictures_that_cannot_be_read_are_refused_in_one_line(
    script: str, picture: str, exported: Exported, mistakes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(mistakes / picture)
    model = str(exported("detect"))
    capfd.readouterr()
    with pytest.raises(SystemExit) as refusal:
        example(script).main(model, [path], 0.25, 0.45, tmp_path)
    assert refusal.value.code == f"{path}: not a picture that OpenCV reads"
    assert capfd.readouterr().err == ""


def test_the_stand_alone_script_is_short_and_stands_alone() -> None:
    text = (EXAMPLES / "onnxruntime_detect.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= {"argparse", "json", "sys", "pathlib", "cv2", "numpy", "onnxruntime"}


def test_the_web_page_comes_without_addresses_of_other_hosts() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))
    assert not any("resolved" in package for package in lock["packages"].values())
    for path in (*WEB.glob("*.html"), *WEB.glob("*.js"), *WEB.glob("*.css")):
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text, path
        assert "https://" not in text, path


in_browser = pytest.mark.slow  # one browser runs nine files; see examples/README.md


class Shown(NamedTuple):
    """What the page showed: `steps` by what was chosen, and the folder of what it drew, ``drawn-N.png``."""

    steps: dict[str, dict[str, Any]]
    problems: list[str]
    hosts: list[str]
    pages: Path

    def found(self, what: str) -> list[Found]:
        return [Found(row["name"], row["confidence"], row["box"]) for row in self.steps[what]["found"]]

    def drawn(self, what: str) -> np.ndarray:
        return cv2.imread(str(self.pages / f"drawn-{list(self.steps).index(what)}.png"))


@pytest.fixture(scope="module")
def shown(exported: Exported, photo: Path, mistakes: Path, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The page in a headless browser, used once for all tests: models, a photo, mistakes, and the camera at last."""
    node, browser = shutil.which("node"), os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not node or not browser:
        pytest.skip("needs node and Chromium: apt-get install nodejs npm chromium")
    for package in ("playwright-core", "onnxruntime-web"):
        if not (WEB / "node_modules" / package).is_dir():
            pytest.skip(f"needs {package}: run npm ci in examples/web")
    pages = tmp_path_factory.mktemp("pages")
    frame = cv2.imencode(".jpg", cv2.resize(cv2.imread(str(photo)), (480, 640)))[1].tobytes()
    (pages / "clip.mjpeg").write_bytes(frame * 3)
    wrong = [mistakes / name for name in ("foreign.onnx", "cut.onnx", "text.onnx", "raw.onnx", "text.png")]
    models = [exported(task, *flags) for task in ("segment", "detect") for flags in FILES]
    files = [exported("detect"), photo, *wrong, *models]
    how = ["--conf", CONF, "--camera", pages / "clip.mjpeg", "--pages", pages]
    answer = json.loads(output_of(node, WEB / "check.mjs", *files, *how, CHROMIUM=browser))
    first, *steps = answer["steps"]
    steps = {"start": first, **{step["what"]: step for step in steps}}
    return Shown(steps, answer["problems"], answer["hosts"], pages)


@in_browser
def test_the_web_page_gives_our_boxes(
    shown: Shown, exported: Exported, photo: Path, expected: Callable[[str], Expected]
) -> None:
    assert shown.problems == []
    assert shown.hosts == ["127.0.0.1"], "nothing may come from elsewhere"
    start = shown.steps["start"]
    assert start["about"] == "model.onnx: detect, 80 classes, 256×320"
    assert start["status"].startswith("Ready")
    assert (start["found"], start["error"]) == ([], "")
    assert_same(shown.found(photo.name), expected("detect").found)
    assert shown.steps[photo.name]["status"].startswith(f"{len(expected('detect').found)} objects with a confidence")
    for flags in FILES:
        assert_same(shown.found(exported("detect", *flags).name), expected("detect").found)


@in_browser
@pytest.mark.parametrize("flags", FILES, ids=" ".join)
def test_the_web_page_draws_our_masks(
    flags: tuple[str, ...], shown: Shown, exported: Exported, photo: Path, expected: Callable[[str], Expected]
) -> None:
    name, want = exported("segment", *flags).name, expected("segment")
    assert want.instances is not None
    assert_same(shown.found(name), want.found)
    np.testing.assert_allclose(shown.steps[name]["found"][0]["area"], (want.instances == 1).sum(), rtol=0.01)
    tinted = (shown.drawn(name) != cv2.imread(str(photo))).any(2)
    lines = np.zeros(tinted.shape, np.uint8)  # where boxes and names are drawn
    for x1, y1, x2, y2 in np.array([one.box for one in want.found]).round().astype(int).tolist():
        cv2.rectangle(lines, (x1, y1), (x2, y2), 1, 11)
        cv2.rectangle(lines, (x1 - 250, y1 - 40), (x1 + 250, y1 + 40), 1, -1)
    inside, seen = want.instances > 0, lines == 0
    assert (inside & seen).sum() > 10_000, "nothing to compare"
    assert (tinted & inside & seen).sum() > 0.98 * ((tinted | inside) & seen).sum()


@in_browser
@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("foreign.onnx", "foreign.onnx: not made by this project's export.py"),
        ("cut.onnx", "cut.onnx: the file is cut off"),
        ("text.onnx", "text.onnx: not an .onnx file"),
        ("raw.onnx", "raw.onnx: has raw heads; export it without --raw-heads"),
        ("text.png", "text.png: not a picture that this browser reads"),
    ],
)
def test_the_web_page_says_what_is_wrong_and_stays_as_it_was(file: str, says: str, shown: Shown, photo: Path) -> None:
    step, before = shown.steps[file], shown.steps[photo.name]
    assert step["error"] == says
    assert [step[key] for key in ("status", "about", "found")] == [before[key] for key in ("status", "about", "found")]


@in_browser
def test_the_web_page_looks_through_the_camera(shown: Shown) -> None:
    found = shown.found("camera")
    assert {one.name for one in found} >= {"person", "bus"}
    assert max(one.box[3] for one in found) <= 640, "of the camera's picture, not of the photo"
