"""Deliberate mistakes: each gives one clear line on stderr, a non-zero exit code, and leaves nothing half-written."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from tests.mistakes import (
    Mistake,
    Place,
    check_mistake,
    detection,
    edited,
    label_of,
    place,
    training,
    validation,
)

__all__ = ["place"]  # the fixture


def with_network(*backbone: str) -> Mistake:
    """A training of the network with these rows, and a head on the last of them."""

    def mistake(place: Place) -> list[str]:
        rows = "".join(f"  - {row}\n" for row in backbone)
        head = f"  - [[{len(backbone) - 1}], 1, Detect, [nc, anchors]]\n"
        cfg = place.write("net.yaml", f"nc: 2\nanchors: 3\nbackbone:\n{rows}head:\n{head}")
        return [*training(place), "--cfg", cfg]

    return mistake


def no_labels(place: Place) -> list[str]:
    shutil.rmtree(place.data / "labels" / "train")
    return training(place)


def labels_in_pixels(place: Place) -> list[str]:
    for file in (place.data / "labels" / "train").glob("*.txt"):
        file.write_text("0 48 40 20 30\n")
    return training(place)


def all_images_corrupt(place: Place) -> list[str]:
    for file in (place.data / "images" / "train").iterdir():
        file.write_bytes(b"no picture")
    return training(place)


class Attack:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("owned"),))


def hostile_pickle(place: Place) -> list[str]:
    with zipfile.ZipFile("evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": Attack()}))
        archive.writestr("archive/version", "3")
    return detection(place, "--weights", "evil.pt")


def truncated_weights(place: Place) -> list[str]:
    data = place.weights.read_bytes()
    Path("half.pt").write_bytes(data[: len(data) // 2])
    return detection(place, "--weights", "half.pt")


def weights_of_another_shape(place: Place) -> list[str]:
    checkpoint = load_checkpoint(place.weights)
    checkpoint.state_dict["model.0.conv.weight"] = torch.zeros(9, 9, 1, 1)
    save_checkpoint(Path("shape.pt"), checkpoint)
    return detection(place, "--weights", "shape.pt")


def truncated_image(place: Place) -> list[str]:
    ok, data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))
    assert ok
    Path("cut.jpg").write_bytes(data.tobytes()[: len(data) // 2])
    return detection(place, "--source", "cut.jpg")


def empty_source(place: Place) -> list[str]:
    Path("empty").mkdir()
    return detection(place, "--source", "empty")


WEB_PAGE = "<!DOCTYPE html><html>404</html>"
CONV = "[-1, 1, Conv, [16, 3, 2]]"
MISTAKES: dict[str, tuple[Mistake, str]] = {
    "missing data": (lambda p: training(p, "--data", "nowhere.yaml"), "nowhere.yaml"),
    "missing split": (edited("images/train", "images/tarin"), "tarin"),
    "no val split": (edited("val: images/val\n", ""), "val"),
    "class out of range": (
        label_of("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n"),
        "3.txt:3: class 7, but nc is 2 (0 to 1)",
    ),
    "negative class": (label_of("-1 0.5 0.5 0.2 0.2\n"), "3.txt:1"),
    "nan label": (label_of("0 0.5 nan 0.2 0.2\n"), "3.txt:1"),
    "word in label": (label_of("0 0.5 0.5 0.2 0.2\nlight 0.5 0.5 0.2 0.2\n"), "3.txt:2"),
    "four columns": (label_of("0 0.5 0.5 0.2\n"), "3.txt:1"),
    "no labels": (no_labels, "labels"),
    "labels in pixels": (labels_in_pixels, "normalised"),
    "unknown data key": (edited("names:", "nmaes:"), "unknown key 'nmaes' (did you mean 'names'?)"),
    "wrong count of names": (edited("names:", "nc: 5\nnames:"), "nc"),
    "broken yaml": (edited("[light, dark]", "[light, dark"), "tiny.yaml:"),
    "unknown module": (with_network(CONV, "[-1, 1, MobilNetV2_Block, [16, 1, 1]]"), "MobileNetV2_Block"),
    "channel clash": (with_network(CONV, CONV, "[[0, 1], 1, Concat, [1]]"), "row 2"),
    "unknown activation": (with_network("[-1, 1, Conv, [16, 3, 2, None, 1, 1, ReLUU]]"), "ReLUU"),
    "unknown hyp": (
        lambda p: training(p, "--hyp", p.write("h.yaml", "lr0: 0.01\nmosiac: 1.0\n")),
        "h.yaml:2: unknown hyper-parameter 'mosiac' (did you mean 'mosaic'?)",
    ),
    "hyp out of range": (
        lambda p: training(p, "--hyp", p.write("h.yaml", "lr0: 0.01\nmosaic: 2.0\n")),
        "h.yaml:2: mosaic is 2",
    ),
    "unknown flag": (
        lambda p: training(p, "--epocs", "3"),
        "unknown argument '--epocs' (did you mean '--epochs'?)",
    ),
    "refused flag": (lambda p: training(p, "--bucket", "gs://x"), "--bucket is not supported"),
    "zero epochs": (lambda p: training(p, "--epochs", "0"), "--epochs: must be 1 or more, not 0"),
    "zero batch": (lambda p: training(p, "--batch", "0"), "--batch-size: must be 1 or more, or -1, not 0"),
    "no gpu": (lambda p: training(p, "--device", "77"), "--device 77"),
    "frozen too much": (lambda p: training(p, "--freeze", "99"), "--freeze 99"),
    "missing weights": (lambda p: training(p, "--weights", "absent.pt"), "absent.pt"),
    "all images corrupt": (all_images_corrupt, "none of the 12 images can be read"),
    "project is a file": (lambda p: training(p, "--project", p.write("runs", "a file")), "--project"),
    "nothing to resume": (lambda p: ["train", "--resume"], "--resume"),
    "resume stripped": (lambda p: ["train", "--resume", str(p.weights)], "--weights"),
    "hostile pickle": (hostile_pickle, "allow-list"),
    "truncated weights": (truncated_weights, "half.pt"),
    "web page as weights": (lambda p: detection(p, "--weights", p.write("page.pt", WEB_PAGE)), "page.pt"),
    "weights of another shape": (weights_of_another_shape, "model.0.conv.weight"),
    "onnx not yet": (lambda p: detection(p, "--weights", p.write("m.onnx", "x")), "m.onnx"),
    "truncated image": (truncated_image, "cut.jpg"),
    "missing source": (lambda p: detection(p, "--source", "absent/*.jpg"), "absent/*.jpg"),
    "empty source": (empty_source, "empty"),
    "threshold out of range": (lambda p: detection(p, "--conf-thres", "25"), "--conf-thres"),
    "nothing trained yet": (lambda p: ["detect", "--source", str(p.image)], "--weights"),
    "other number of classes": (edited("[light, dark]", "[light, dark, grey]", validation), "3"),
    "no test split": (lambda p: validation(p, "--task", "test"), "test"),
    "unknown val task": (lambda p: validation(p, "--task", "tets"), "tets"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line(name: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    mistake, told = MISTAKES[name]
    check_mistake(mistake(place), told, place, capfd)


def test_there_are_at_least_25() -> None:
    assert len(MISTAKES) >= 25
