"""Bad data given to the commands: one clear line, nothing else on stderr, a non-zero exit code, nothing half-written.

What lies behind it is tested nearer by: YAML in tests/utils/test_yamls.py and tests/utils/data/test_spec.py, labels in
test_labels.py, headers in images/test_headers.py, caches in test_index.py and images/test_cache.py, archives in
test_recipe.py, COCO and VOC in test_convert.py.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.measuring import run_process
from tests.mistakes import (
    Mistake,
    Place,
    check_mistake,
    edited,
    label_of,
    place,
    run,
    training,
    validation,
)
from tests.utils.data.images.image_bytes import BROKEN, png

__all__ = ["place"]  # the fixture
ROOT = Path(__file__).resolve().parents[1]


# --- data sets --------------------------------------------------------------------------------------------------------


def yaml_of(content: bytes) -> Mistake:
    def make(place: Place) -> list[str]:
        place.yaml.write_bytes(content)
        return training(place)

    return make


def instead_of_label(make_one: Callable[[Path], object]) -> Mistake:
    def make(place: Place) -> list[str]:
        place.label.unlink()
        make_one(place.label)
        return training(place)

    return make


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**10)


def listed(content: bytes) -> Mistake:
    def make(place: Place) -> list[str]:
        (place.data / "train.txt").write_bytes(content)
        place.edit_yaml("train: images/train", "train: train.txt")
        return training(place)

    return make


def unreadable_yaml(place: Place) -> list[str]:
    place.yaml.unlink()
    os.mkfifo(place.yaml)
    return training(place)


def yaml_is_a_folder(place: Place) -> list[str]:
    return [*training(place), "--data", str(place.data)]


def picture_with_valid_checksums_cut_short(place: Place) -> list[str]:
    (place.data / "images" / "val" / "3.png").write_bytes(png(96, 96, b"\0" * 3000))
    return validation(place)


def all_pictures_are_pipes(place: Place) -> list[str]:
    for file in (place.data / "images" / "train").iterdir():
        file.unlink()
        os.mkfifo(file)
    return training(place)


def all_validation_pictures_are_bombs(place: Place) -> list[str]:
    for file in (place.data / "images" / "val").iterdir():
        file.write_bytes(png(60000, 60000))
    return validation(place)


def labels_are_a_file(place: Place) -> list[str]:
    shutil.rmtree(place.data / "labels" / "train")
    (place.data / "labels" / "train").write_text("0 .5 .5 .2 .2")
    return training(place)


def images_are_a_loop(place: Place) -> list[str]:
    shutil.rmtree(place.data / "images" / "train")
    (place.data / "images" / "train").symlink_to("train")
    return training(place)


def image_folder_without_images(place: Place) -> list[str]:
    for file in (place.data / "images" / "train").iterdir():
        file.rename(file.with_suffix(".text"))
    return training(place)


NAMES = "[light, dark]"
LAUGHS = "\na: &a [1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{f'*{before},' * 8}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
SPLITS = "download: [{url: 'file:///x', splits: 3}]\n"
DATA: dict[str, tuple[Mistake, str]] = {
    "yaml_deep_nest": (edited(NAMES, "[" * 5000), "tiny.yaml:4: lists and mappings are nested more than 50 deep"),
    "yaml_bad_date": (edited(NAMES, "[2024-13-45]"), "tiny.yaml:4: '2024-13-45' is not a valid timestamp"),
    "yaml_bad_int_tag": (edited(NAMES, "[!!int abc]"), "tiny.yaml:4: 'abc' is not a valid int"),
    "yaml_bad_bin": (edited(NAMES, "[0b_]"), "'0b_' is not a valid int"),
    "yaml_bad_timestamp": (edited(NAMES, "!!timestamp x"), "'x' is not a valid timestamp"),
    "yaml_laughs": (edited(NAMES, LAUGHS), "there are more than 200000 values"),
    "yaml_nc_1e7": (edited(f"names: {NAMES}", "nc: 10000000"), "nc is the number of classes, 1 to 50000"),
    "yaml_nc_huge": (edited(f"names: {NAMES}", "nc: " + "9" * 300), "is out of range"),
    "yaml_nc_negative": (edited(f"names: {NAMES}", "nc: -2"), "nc is the number of classes"),
    "yaml_train_long": (edited("images/train", "a" * 5000), "not found or incomplete"),
    "yaml_path_long": (edited("path: .", "path: " + "a" * 300), "not found or incomplete"),
    "yaml_path_home": (edited("path: .", "path: ~nobody-of-this-name/x"), "not found or incomplete"),
    "yaml_path_list": (edited("path: .", "path: [a]"), "tiny.yaml:1: 'path' is the folder of the data set"),
    "yaml_train_dict": (edited("images/train", "{a: b}"), "tiny.yaml:2: 'train' is a path or a list of paths"),
    "yaml_names_nested": (edited(NAMES, "[[light], [dark]]"), "tiny.yaml:4: class name ['light'] is no text"),
    "yaml_names_newline": (edited(NAMES, '["li\\nght", dark]'), "holds a line break"),
    "yaml_names_surrogate": (edited(NAMES, '["\\ud800", dark]'), "half of a surrogate pair"),
    "yaml_nul": (edited("names:", "\0names:"), "tiny.yaml:4: not valid YAML: character 0x0 is not allowed"),
    "yaml_nul_escaped": (edited("images/train", '"a\\0b"'), "tiny.yaml:2: the text holds NUL"),
    "yaml_empty": (yaml_of(b""), "tiny.yaml: expected 'key: value' lines, found nothing"),
    "yaml_two_documents": (edited("names:", "---\nnames:"), "tiny.yaml:4: not valid YAML: expected a single document"),
    "yaml_utf16": (yaml_of("path: .".encode("utf-16")), "tiny.yaml: not a UTF-8 text file"),
    "yaml_huge": (yaml_of(b"path: ." + b" " * (5 << 20)), "the file has 5242887 bytes, and 4194304 are the most"),
    "yaml_pipe": (unreadable_yaml, "tiny.yaml"),
    "yaml_folder": (yaml_is_a_folder, "not found"),
    "yaml_download_splits": (edited("names:", f"{SPLITS}names:"), "tiny.yaml:4: 'splits'"),
    "yaml_download_badurl": (edited("names:", "download: 'http://[::1/a.zip'\nnames:"), "tiny.yaml:4: cannot fetch"),
    "label_fifo": (instead_of_label(os.mkfifo), "labels/train/3.txt': it is a pipe or a device, not a regular file"),
    "label_devzero": (instead_of_label(lambda p: p.symlink_to("/dev/zero")), "3.txt': it is a pipe or a device"),
    "label_folder": (instead_of_label(lambda p: p.mkdir()), "3.txt': Is a directory"),
    "label_loop": (instead_of_label(lambda p: p.symlink_to(p)), "3.txt': Too many levels of symbolic links"),
    "label_ff": (label_of(b"\xff" * 100), "3.txt:1: "),
    "label_utf16": (label_of("0 .5 .5 .2 .2".encode("utf-16")), "3.txt: UTF-16 text"),
    "label_200k": (label_of(b"0 .5 .5 .2 .2 .3 .4\n" * 200_000), "3.txt: 200000 objects, and 50000 are the most"),
    "label_huge": (instead_of_label(sparse), "3.txt': the file has 10000000000 bytes"),
    "label_1e400": (label_of(b"0 .5 .5 1e400 .2"), "3.txt:1: value inf is not finite"),
    "label_1e300": (label_of(b"0 .5 .5 .2 .2 .1 1e300"), "3.txt:1: value 1e+300 is far beyond 0..1"),
    "label_underscore": (label_of(b"0 .5 .5 .2_1 .2"), "3.txt:1: '.2_1' is not a number"),
    "label_huge_line": (label_of(b"0 " * 1_000_000), "3.txt:1: 1000000 values"),
    "trainlist_nul": (listed(b"images/train/0.png\nb\0.png\n"), "train.txt:2: not a list of image paths"),
    "trainlist_absent": (listed(b"images/train/77.png\n"), "images/train/77.png (the first image in "),
    "trainlist_empty": (listed(b"\n\n"), "train.txt (an empty list)"),
    "trainlist_binary": (listed(bytes(range(128, 256))), "train.txt: not a UTF-8 list"),
    "trainimg_fifo": (all_pictures_are_pipes, "none of the 12 images can be read"),
    "valimg_cut_short": (picture_with_valid_checksums_cut_short, "cannot decode image"),
    "valimg_bomb60000": (all_validation_pictures_are_bombs, "none of the 6 images can be read"),
    "labels_file": (labels_are_a_file, "Not a directory"),
    "images_loop": (images_are_a_loop, "not found or incomplete"),
    "images_of_no_kind": (image_folder_without_images, "no images in"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_bad_data(name: str, place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOv5_DATASETS_DIR", str(place.folder / "sets"))
    make, told = DATA[name]
    assert check_mistake(make(place), told, place, capfd) == 1


def test_a_wrong_limit_of_pixels(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOv5_MAX_IMAGE_PIXELS", "lots")
    told = "error: the environment variable YOLOv5_MAX_IMAGE_PIXELS is a number of pixels, not 'lots'"
    assert run(training(place), capfd) == (1, [told])


def test_a_bad_picture_among_good_ones_is_left_out(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    folder = place.data / "images" / "val"
    for number, (content, _) in enumerate(BROKEN.values()):
        (folder / f"bad{number:02}.png").write_bytes(content)
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "zero.png").symlink_to("/dev/zero")
    code, err = run(validation(place, "--no-plots"), capfd)
    assert code == 0
    told = "\n".join(err)
    assert "the image is left out" in told
    assert f"{len(BROKEN) + 4 - 10} more broken images are left out" in told
    assert all(line.startswith("warning: ") for line in err), err


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_of(words: list[str], folder: Path) -> float:
    """Peak of memory in GB of a Python process that ends well and has nothing to complain about."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder)}
    finished = run_process([sys.executable, *words], environment=environment, cwd=folder)
    assert finished.errors == ""
    return finished.peak_mb / 1000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("a.png", 10_000), ("a.jpg", 13_400)])
def test_a_large_picture_is_good_and_takes_less_than_2_gb(name: str, side: int, place: Place) -> None:
    cv2.imwrite(name, np.zeros((side, side, 3), np.uint8))
    words = [str(ROOT / "detect.py"), "--weights", str(place.weights), "--img", "64", "--source", name]
    assert peak_of(words, place.folder) < 2


@pytest.mark.slow
def test_large_pictures_are_decoded_one_after_another(tmp_path: Path) -> None:
    """Four threads index; the memory of their pictures does not add up."""
    (tmp_path / "images").mkdir()
    data = cv2.imencode(".tif", np.zeros((12_000, 12_000, 3), np.uint8), [cv2.IMWRITE_TIFF_COMPRESSION, 8])[1]
    for number in range(4):
        (tmp_path / "images" / f"{number}.tif").write_bytes(data.tobytes())
    program = (
        "from utils.data.indexing import scan; scan.CHUNK = 1\n"
        "from utils.data.indexing.index import build_index\n"
        "assert len(build_index(['images'], 1, cache=False, require_labels=False)) == 4"
    )
    assert peak_of(["-c", program], tmp_path) < 2
