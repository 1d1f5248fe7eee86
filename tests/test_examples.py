"""The examples give, from an exported file and without a line of ours, the boxes that `detect.py` finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SIZE = (320, 320)


class Found(NamedTuple):
    name: str
    confidence: float
    box: list[float]


def output_of(*command: str | Path) -> str:
    """What a command that must succeed prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal_of(script: str, *arguments: str | Path) -> str:
    """The one line with which an example refuses."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def photo(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph as PNG: readers of JPEG differ by a grey level."""
    import cv2

    path = tmp_path_factory.mktemp("photo") / "photo.png"
    cv2.imwrite(str(path), cv2.imread(str(shared_data / "data" / "photos" / "zidane.jpg")))
    return path


@pytest.fixture(scope="module")
def model_file(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published detector as a file of layout `decoded` with its card, made by torch's exporter alone."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
    import torch

    from models.cards import KEY, ModelCard
    from models.loading import load_model

    model = load_model(shared_data / "weights" / "yolov5n.pt")

    class Decoded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(images)[0]

    path = tmp_path_factory.mktemp("exported") / "n.onnx"
    torch.onnx.export(
        Decoded().eval(),
        (torch.zeros(1, 3, *SIZE),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["images"],
        output_names=["output0"],
    )
    card = ModelCard(
        task="detect",
        names=dict(model.names),
        strides=[8, 16, 32],
        anchors=(model.model[-1].anchors * model.stride.view(-1, 1, 1)).tolist(),
        imgsz=list(SIZE),
        batch=1,
        dynamic=False,
        half=False,
        int8=False,
        layout="decoded",
        activation="SiLU",
    )
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {KEY: card.to_json()})
    onnx.save(graph, path)
    Path(f"{path}.json").write_text(card.to_json(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def expected(shared_data: Path, photo: Path) -> list[Found]:
    """What our own path finds, as detect.py does for a network of a fixed input."""
    import cv2
    import torch

    from models.loading import load_model
    from utils.data.sources.loaders import network_input
    from utils.ops.boxes import scale_boxes
    from utils.ops.nms import non_max_suppression

    model, image = load_model(shared_data / "weights" / "yolov5n.pt"), cv2.imread(str(photo))
    pixels = torch.from_numpy(network_input(image, SIZE, auto=False))[None].float() / 255
    rows = non_max_suppression(model(pixels))[0]
    boxes = scale_boxes(SIZE, rows[:, :4].clone(), image.shape).tolist()
    return [Found(model.names[int(row[5])], float(row[4]), box) for row, box in zip(rows, boxes, strict=True)]


def assert_same(found: list[Found], expected: list[Found]) -> None:
    assert len(expected) >= 2, "nothing to compare"
    assert [one.name for one in found] == [one.name for one in expected]
    np.testing.assert_allclose([one.box for one in found], [one.box for one in expected], atol=1)
    np.testing.assert_allclose([one.confidence for one in found], [one.confidence for one in expected], atol=0.01)


def printed(text: str) -> list[Found]:
    rows = [line.split() for line in text.splitlines()]
    return [Found(" ".join(row[1:-5]), float(row[-5]), [float(v) for v in row[-4:]]) for row in rows]


@pytest.mark.parametrize("script", ["onnxruntime_detect.py", "opencv_dnn_detect.py"])
def test_python_examples_give_our_boxes(
    script: str, model_file: Path, photo: Path, expected: list[Found], tmp_path: Path
) -> None:
    import cv2

    if script.startswith("onnxruntime"):
        pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    text = output_of(sys.executable, EXAMPLES / script, model_file, photo, "--out", tmp_path / "found")
    assert_same(printed(text), expected)
    drawn, original = cv2.imread(str(tmp_path / "found" / photo.name)), cv2.imread(str(photo))
    assert drawn.shape == original.shape
    assert (drawn != original).any()


def test_a_file_that_is_not_a_network_is_refused_in_one_line(photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    (tmp_path / "text.onnx").write_text("not a network", encoding="utf-8")
    assert "text.onnx" in refusal_of("onnxruntime_detect.py", tmp_path / "text.onnx", photo)
    assert "text.onnx.json" in refusal_of("opencv_dnn_detect.py", tmp_path / "text.onnx", photo)


def test_the_stand_alone_script_is_short_and_stands_alone() -> None:
    text = (EXAMPLES / "onnxruntime_detect.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert not any(word in text for word in ("import torch", "from utils", "from models", "from engine"))


def browser_check(*arguments: str | Path) -> dict[str, Any]:
    """What the page showed in a headless browser; skips where there is none."""
    web = EXAMPLES / "web"
    node, browser = shutil.which("node"), os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not node or not browser:
        pytest.skip("needs node and Chromium: apt-get install nodejs npm chromium")
    if not (web / "node_modules" / "playwright-core").is_dir():
        pytest.skip("needs examples/web/node_modules: run npm ci in examples/web")
    return json.loads(output_of(node, web / "check.mjs", *arguments))


def test_the_web_page_gives_our_boxes(model_file: Path, photo: Path, expected: list[Found], tmp_path: Path) -> None:
    """A photo, then the camera, whose picture is the same photo at 640×360."""
    import cv2

    frame = cv2.imencode(".jpg", cv2.resize(cv2.imread(str(photo)), (640, 360)))[1].tobytes()
    (tmp_path / "clip.mjpeg").write_bytes(frame * 3)
    shown = browser_check(model_file, photo, "--camera", tmp_path / "clip.mjpeg")
    assert shown["problems"] == []
    assert shown["hosts"] == ["127.0.0.1"], "nothing may come from elsewhere"
    assert shown["ready"] == {"status": "Ready: model.onnx (detect, 80 classes, 320×320)", "error": ""}
    assert_same([Found(**row) for row in shown["photo"]["rows"]], expected)
    assert {row["name"] for row in shown["camera"]["rows"]} == {one.name for one in expected}
    assert shown["stopped"] == "Use the camera"


def test_the_web_page_refuses_a_foreign_file_in_one_line(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"\x0a\x02ab")  # well-formed, but no metadata
    shown = browser_check(tmp_path / "text.onnx", photo)
    assert shown["ready"]["error"] == "model.onnx: not a file of this project's export.py"
