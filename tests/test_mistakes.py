"""Deliberate mistakes: each gives one clear line on stderr, a non-zero exit code, and leaves nothing half-written."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from tests.mistakes import Place, check_mistake, detection, place, training, validation

__all__ = ["place"]  # the fixture


def missing_data(place: Place) -> list[str]:
    return [*training(place), "--data", "nowhere.yaml"]


def missing_split(place: Place) -> list[str]:
    place.edit_yaml("images/train", "images/tarin")
    return training(place)


def no_val_split(place: Place) -> list[str]:
    place.edit_yaml("val: images/val\n", "")
    return training(place)


def class_out_of_range(place: Place) -> list[str]:
    place.label.write_text("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n")
    return training(place)


def negative_class(place: Place) -> list[str]:
    place.label.write_text("-1 0.5 0.5 0.2 0.2\n")
    return training(place)


def nan_label(place: Place) -> list[str]:
    place.label.write_text("0 0.5 nan 0.2 0.2\n")
    return training(place)


def word_in_label(place: Place) -> list[str]:
    place.label.write_text("0 0.5 0.5 0.2 0.2\nlight 0.5 0.5 0.2 0.2\n")
    return training(place)


def four_columns(place: Place) -> list[str]:
    place.label.write_text("0 0.5 0.5 0.2\n")
    return training(place)


def no_labels(place: Place) -> list[str]:
    shutil.rmtree(place.data / "labels" / "train")
    return training(place)


def labels_in_pixels(place: Place) -> list[str]:
    for file in (place.data / "labels" / "train").glob("*.txt"):
        file.write_text("0 48 40 20 30\n")
    return training(place)


def unknown_data_key(place: Place) -> list[str]:
    place.edit_yaml("names:", "nmaes:")
    return training(place)


def wrong_count_of_names(place: Place) -> list[str]:
    place.edit_yaml("names:", "nc: 5\nnames:")
    return training(place)


def broken_yaml(place: Place) -> list[str]:
    place.edit_yaml("[light, dark]", "[light, dark")
    return training(place)


def unknown_module(place: Place) -> list[str]:
    rows = "backbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, MobilNetV2_Block, [16, 1, 1]]\nhead:\n"
    cfg = place.write("net.yaml", f"nc: 2\nanchors: 3\n{rows}  - [[1], 1, Detect, [nc, anchors]]\n")
    return [*training(place), "--cfg", cfg]


def channel_clash(place: Place) -> list[str]:
    rows = (
        "backbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, Conv, [16, 3, 2]]\nhead:\n  - [[0, 1], 1, Concat, [1]]\n"
    )
    cfg = place.write("net.yaml", f"nc: 2\nanchors: 3\n{rows}  - [[2], 1, Detect, [nc, anchors]]\n")
    return [*training(place), "--cfg", cfg]


def unknown_activation(place: Place) -> list[str]:
    rows = "backbone:\n  - [-1, 1, Conv, [16, 3, 2, None, 1, 1, ReLUU]]\nhead:\n"
    cfg = place.write("net.yaml", f"nc: 2\nanchors: 3\n{rows}  - [[0], 1, Detect, [nc, anchors]]\n")
    return [*training(place), "--cfg", cfg]


def unknown_hyp(place: Place) -> list[str]:
    return [*training(place), "--hyp", place.write("h.yaml", "lr0: 0.01\nmosiac: 1.0\n")]


def hyp_out_of_range(place: Place) -> list[str]:
    return [*training(place), "--hyp", place.write("h.yaml", "lr0: 0.01\nmosaic: 2.0\n")]


def unknown_flag(place: Place) -> list[str]:
    return training(place, "--epocs", "3")


def refused_flag(place: Place) -> list[str]:
    return training(place, "--bucket", "gs://x")


def zero_epochs(place: Place) -> list[str]:
    return [*training(place), "--epochs", "0"]


def zero_batch(place: Place) -> list[str]:
    return [*training(place), "--batch", "0"]


def no_gpu(place: Place) -> list[str]:
    return [*training(place), "--device", "77"]


def frozen_too_much(place: Place) -> list[str]:
    return training(place, "--freeze", "99")


def missing_weights(place: Place) -> list[str]:
    return training(place, "--weights", "absent.pt")


def all_images_corrupt(place: Place) -> list[str]:
    for file in (place.data / "images" / "train").iterdir():
        file.write_bytes(b"no picture")
    return training(place)


def project_is_a_file(place: Place) -> list[str]:
    return training(place, "--project", place.write("runs", "a file"))


def nothing_to_resume(place: Place) -> list[str]:
    return ["train", "--resume"]


def resume_stripped(place: Place) -> list[str]:
    return ["train", "--resume", str(place.weights)]


class Attack:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("owned"),))


def hostile_pickle(place: Place) -> list[str]:
    with zipfile.ZipFile("evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": Attack()}))
        archive.writestr("archive/version", "3")
    return [*detection(place), "--weights", "evil.pt"]


def truncated_weights(place: Place) -> list[str]:
    data = place.weights.read_bytes()
    Path("half.pt").write_bytes(data[: len(data) // 2])
    return [*detection(place), "--weights", "half.pt"]


def web_page_as_weights(place: Place) -> list[str]:
    return [*detection(place), "--weights", place.write("page.pt", "<!DOCTYPE html><html>404</html>")]


def weights_of_another_shape(place: Place) -> list[str]:
    checkpoint = load_checkpoint(place.weights)
    key = "model.0.conv.weight"
    checkpoint.state_dict[key] = torch.zeros(9, 9, 1, 1)
    save_checkpoint(Path("shape.pt"), checkpoint)
    return [*detection(place), "--weights", "shape.pt"]


def onnx_not_yet(place: Place) -> list[str]:
    return [*detection(place), "--weights", place.write("m.onnx", "x")]


def truncated_image(place: Place) -> list[str]:
    ok, data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))
    assert ok
    Path("cut.jpg").write_bytes(data.tobytes()[: len(data) // 2])
    return [*detection(place), "--source", "cut.jpg"]


def missing_source(place: Place) -> list[str]:
    return [*detection(place), "--source", "absent/*.jpg"]


def empty_source(place: Place) -> list[str]:
    Path("empty").mkdir()
    return [*detection(place), "--source", "empty"]


def threshold_out_of_range(place: Place) -> list[str]:
    return detection(place, "--conf-thres", "25")


def nothing_trained_yet(place: Place) -> list[str]:
    return ["detect", "--source", str(place.image)]


def other_number_of_classes(place: Place) -> list[str]:
    place.edit_yaml("[light, dark]", "[light, dark, grey]")
    return validation(place)


def no_test_split(place: Place) -> list[str]:
    return validation(place, "--task", "test")


def unknown_val_task(place: Place) -> list[str]:
    return validation(place, "--task", "tets")


MISTAKES: dict[Callable[[Place], list[str]], str] = {
    missing_data: "nowhere.yaml",
    missing_split: "tarin",
    no_val_split: "val",
    class_out_of_range: "3.txt:3: class 7, but nc is 2 (0 to 1)",
    negative_class: "3.txt:1",
    nan_label: "3.txt:1",
    word_in_label: "3.txt:2",
    four_columns: "3.txt:1",
    no_labels: "labels",
    labels_in_pixels: "normalised",
    unknown_data_key: "unknown key 'nmaes' (did you mean 'names'?)",
    wrong_count_of_names: "nc",
    broken_yaml: "tiny.yaml:",
    unknown_module: "MobileNetV2_Block",
    channel_clash: "row 2",
    unknown_activation: "ReLUU",
    unknown_hyp: "h.yaml:2: unknown hyper-parameter 'mosiac' (did you mean 'mosaic'?)",
    hyp_out_of_range: "h.yaml:2: mosaic is 2",
    unknown_flag: "unknown argument '--epocs' (did you mean '--epochs'?)",
    refused_flag: "--bucket is not supported",
    zero_epochs: "--epochs: must be 1 or more, not 0",
    zero_batch: "--batch-size: must be 1 or more, or -1, not 0",
    no_gpu: "--device 77",
    frozen_too_much: "--freeze 99",
    missing_weights: "absent.pt",
    all_images_corrupt: "none of the 12 images can be read",
    project_is_a_file: "--project",
    nothing_to_resume: "--resume",
    resume_stripped: "--weights",
    hostile_pickle: "allow-list",
    truncated_weights: "half.pt",
    web_page_as_weights: "page.pt",
    weights_of_another_shape: "model.0.conv.weight",
    onnx_not_yet: "m.onnx",
    truncated_image: "cut.jpg",
    missing_source: "absent/*.jpg",
    empty_source: "empty",
    threshold_out_of_range: "--conf-thres",
    nothing_trained_yet: "--weights",
    other_number_of_classes: "3",
    no_test_split: "test",
    unknown_val_task: "tets",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_one_clear_line(
    mistake: Callable[[Place], list[str]], place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    check_mistake(mistake(place), MISTAKES[mistake], place, capsys)


def test_there_are_at_least_25() -> None:
    assert len(MISTAKES) >= 25
