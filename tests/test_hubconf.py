"""`torch.hub.load` from this folder, as a user types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hubconf
from models.configs import known_cfgs
from models.hub import AutoShape
from models.weights import PUBLISHED
from models.yolo import DetectionModel, model_of
from utils.cli import run_command
from utils.errors import UserError
from utils.logging import LOGGER

ROOT = Path(__file__).resolve().parents[1]

# class, normalised xywh, confidence, by falling confidence: what the reference gives at 640, confidence 0.25, IoU 0.45
EXPECTED = {
    "bus": [
        [0, 0.164198, 0.595833, 0.192593, 0.454630, 0.875760],
        [0, 0.921605, 0.577778, 0.156790, 0.475926, 0.804741],
        [0, 0.346914, 0.589815, 0.160494, 0.422222, 0.786979],
        [0, 0.044444, 0.678704, 0.088889, 0.296296, 0.519067],
        [5, 0.511728, 0.467130, 0.966667, 0.512037, 0.491809],
    ],
    "zidane": [
        [0, 0.741016, 0.524306, 0.321094, 0.937500, 0.787706],
        [0, 0.342187, 0.625694, 0.475000, 0.748611, 0.411678],
        [27, 0.366797, 0.795833, 0.052344, 0.386111, 0.268470],
    ],
}
SIZES = {"bus": (810, 1080), "zidane": (1280, 720)}  # width, height


def load(name: str, *args: Any, **kwargs: Any) -> Any:
    return torch.hub.load(str(ROOT), name, *args, source="local", **{"device": "cpu", **kwargs})


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    level = LOGGER.level
    yield
    LOGGER.setLevel(level)


def entries() -> set[str]:
    """What `torch.hub.list` shows: all that can be called and does not begin with an underscore."""
    return {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}


def test_every_detector_has_its_name() -> None:
    detectors = {Path(cfg).stem for cfg in known_cfgs() if "-seg" not in cfg} - {"yolov5"}
    published = {Path(file).stem for file in PUBLISHED if "-seg" not in file}
    assert entries() == detectors | published | {"custom"}


def test_elsewhere_and_without_what_is_not_used(make_weights: Callable[..., Path], tmp_path: Path) -> None:
    """From another folder, where the project is on the path only while it is loaded; one picture, then all outputs."""
    make_weights("best.pt", names=("cat", "dog"))
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    code = f"""
import sys, torch
model = torch.hub.load({str(ROOT)!r}, "custom", path="best.pt", source="local", device="cpu", _verbose=False)
model.conf = 0.01
found = model("a.png", size=64)
assert not {{"matplotlib", "pandas", "torchvision", "PIL.Image", "engine"}} & set(sys.modules)
assert {str(ROOT)!r} not in sys.path
found.print()
found.render(), found.crop(), found.save(), found.tolist()
print(list(found.pandas().xyxy[0].columns), found.names)
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    first, *_, last = answer.stdout.splitlines()
    assert first.startswith("image 1/1: 48x64 ")  # nothing was logged before
    assert last == "['xmin', 'ymin', 'xmax', 'ymax', 'confidence', 'class', 'name'] {0: 'cat', 1: 'dog'}"
    assert (tmp_path / "runs" / "detect" / "exp2" / "a.jpg").is_file()


def test_importing_hubconf_loads_nothing() -> None:
    code = "import sys, hubconf; print({'torch', 'cv2', 'numpy', 'yaml', 'matplotlib', 'pandas'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


def test_modules_in_the_place_of_ours_are_named(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("")
    code = f"import torch, utils; torch.hub.load({str(ROOT)!r}, 'custom', path='a.pt', source='local')"
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "ImportError: a module called 'utils'" in answer.stderr.splitlines()[-1]


def test_custom_without_autoshape_can_be_trained(make_weights: Callable[..., Path]) -> None:
    path = make_weights()
    network = load("custom", path=str(path), autoshape=False)
    assert isinstance(network, DetectionModel)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())  # not folded away
    assert all(p.requires_grad for p in network.parameters())
    shaped = load("custom", path)
    assert isinstance(shaped, AutoShape)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network(images)[0], shaped(images)[0], rtol=1e-4, atol=1e-3)


def test_segmenters_and_missing_files(make_weights: Callable[..., Path], tmp_path: Path) -> None:
    path = make_weights("seg.pt", head="Segment")
    with pytest.raises(UserError, match=r"segment/predict.py"):
        load("custom", path)
    assert load("custom", path, autoshape=False).task == "segment"
    with pytest.raises(UserError, match=r"weights '.*gone.pt' not found"):
        load("custom", tmp_path / "gone.pt")


def test_networks_with_random_weights() -> None:
    model = load("yolov5n_MobileNetv2", classes=2)
    assert isinstance(model, AutoShape)
    assert model.names == {0: "0", 1: "1"}
    assert model(np.zeros((64, 64, 3), np.uint8), size=64).n == 1
    network = load("yolov5n_MobileNetv2-lite", classes=3, channels=1, autoshape=False)
    assert isinstance(network, DetectionModel)
    assert network.training
    assert network.eval()(torch.zeros(1, 1, 64, 64))[0].shape[2] == 8
    other = load("yolov5n", pretrained=False, channels=4)
    assert other(torch.zeros(1, 4, 64, 64))[0].shape[2] == 85
    with pytest.raises(UserError, match="this network takes 4; give it a tensor"):
        other(np.zeros((64, 64, 3), np.uint8))
    expected = sum(p.numel() for p in model_of("yolov5n.yaml").parameters())
    assert sum(p.numel() for p in load("yolov5n", False, 3, 80, False).parameters()) == expected


def test_weights_that_do_not_exist_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"no published weights for yolov5_MobileNetv2; pass pretrained=False"):
        load("yolov5_MobileNetv2", pretrained=True)

    asked = []

    def offline(url: str, target: Path, **_: Any) -> Path:
        asked.append(url)
        raise UserError(f"cannot fetch {url}") from OSError("no route to host")

    monkeypatch.setattr("models.weights.download", offline)
    monkeypatch.setattr("models.weights.ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load("yolov5m6")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("yolov5m6.pt is not on disk and could not be fetched (no route to host)")
    assert asked == ["https://github.com/ultralytics/yolov5/releases/download/v7.0/yolov5m6.pt"]


def test_published_network_gives_the_published_boxes(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.weights.ROOT", shared_data)  # so that the name finds the file that is at hand
    monkeypatch.chdir(tmp_path)
    model = load("yolov5n", _verbose=False)
    photos = [shared_data / "data" / "photos" / f"{name}.jpg" for name in EXPECTED]
    arrays = [cv2.imread(str(photo))[..., ::-1] for photo in photos]
    kinds = {"paths": photos, "arrays": arrays, "PIL": [Image.open(photo) for photo in photos]}
    for kind, given in kinds.items():
        found = model(given)
        for i, (name, rows) in enumerate(EXPECTED.items()):
            expected = np.array(rows)
            assert found.pred[i][:, 5].tolist() == expected[:, 0].tolist(), (kind, name)
            assert np.allclose(found.pred[i][:, 4], expected[:, 5], atol=0.005)
            centre, half = expected[:, 1:3] * SIZES[name], expected[:, 3:5] * SIZES[name] / 2
            assert np.allclose(found.xyxy[i][:, :4], np.hstack([centre - half, centre + half]), atol=1)
            assert np.allclose(found.xywhn[i][:, :4], expected[:, 1:5], atol=0.002)
            alone = model(given[i])
            assert torch.allclose(alone.pred[0], found.pred[i], atol=1e-3)
    assert found.pandas().xyxy[0]["name"].tolist() == ["person"] * 4 + ["bus"]
    assert str(found).splitlines()[:2] == [
        "image 1/2: 1080x810 4 persons, 1 bus",
        "image 2/2: 720x1280 2 persons, 1 tie",
    ]


def test_other_numbers_of_classes_keep_what_fits(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.weights.ROOT", shared_data)
    monkeypatch.chdir(shared_data)
    network = load("yolov5n", classes=10, autoshape=False)
    assert network.nc == 10
    assert "Transferred 343/349 items" in capsys.readouterr().out  # all but weight and bias of the three outputs
    whole = load("yolov5n", autoshape=False)
    assert whole.names[0] == "person"
    assert torch.equal(network.model[0].conv.weight, whole.model[0].conv.weight)


def typed(*words: str) -> int:
    """The exit code of ``python hubconf.py`` with `words`."""
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: hubconf._main([*words, "--device", "cpu"]))
    return int(stop.value.code or 0)


def test_as_a_command_it_tries_the_network_on_the_sample_photographs(
    make_weights: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("--model", str(make_weights("best.pt")), "--img", "64") == 0
    said = capsys.readouterr()
    lines = [line.split(": ")[1].split()[0] for line in said.out.splitlines() if line.startswith("image ")]
    assert lines == ["512x512", "300x451", "400x600", "300x451", "300x451", "480x640"]
    assert said.err == ""
    saved = sorted(path.name for path in (tmp_path / "runs" / "detect" / "exp").iterdir())
    assert saved == ["astronaut.jpg", "cat.jpg", "coffee.jpg", "image3.jpg", "image4.jpg", "image5.jpg"]
    assert typed("--model", "yolov5n_MobileNetv2", "--img", "32", "--name", "other") == 0
    assert "random" in capsys.readouterr().err
    assert (tmp_path / "runs" / "detect" / "other" / "cat.jpg").is_file()


def test_the_command_with_published_weights(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.weights.ROOT", shared_data)
    assert typed("--model", "yolov5n") == 0
    said = capsys.readouterr().out
    assert "image 1/6: 512x512 1 person" in said
    assert all(f"image {i}/6: 300x451 1 cat" in said for i in (2, 4, 5))  # a file, an array, a tensor


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "yolov5_MobileNetV2"], "did you mean 'yolov5_MobileNetv2'?"),
        (["--model", "custom"], "your own weights: best.pt"),
        (["--model", "absent.pt"], "absent.pt"),
        (["--model", "yolov5n_MobileNetv2", "--img", "0"], "--imgsz: must be 1 or more, not 0"),
        (["--modle", "yolov5n"], "--model"),
        ([], "--model"),
    ],
)
def test_mistakes_of_the_command(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(*words) != 0
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
    assert len(said.splitlines()) == 1
