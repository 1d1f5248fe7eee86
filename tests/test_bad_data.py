"""Bad data given to the commands: one clear line, nothing else on stderr, a non-zero exit code, nothing half-written.

What lies behind it is tested nearer by: YAML in tests/utils/test_yamls.py and tests/utils/data/test_spec.py, labels in
test_labels.py, headers in images/test_headers.py, caches in test_index.py and images/test_cache.py, archives in
test_recipe.py, COCO and VOC in test_convert.py.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.test_mistakes import COMMANDS, Place, detection, place, training, validation
from utils.cli import run_command

__all__ = ["place"]  # the fixture


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"\0" * 100) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def encoded(suffix: str, shape: tuple[int, ...] = (64, 64, 3)) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


def flipped(data: bytes, *positions: int) -> bytes:
    changed = bytearray(data)
    for position in positions:
        changed[position] ^= 0xFF
    return bytes(changed)


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(500)


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and lines on stderr (also those that C libraries write) of a command."""
    command, *words = words
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: COMMANDS[command](words))
    code = stop.value.code
    return (code if isinstance(code, int) else 1), capfd.readouterr().err.splitlines()


def files_below(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if not p.is_dir() and p.suffix != ".cache"}


# --- pictures that detect.py is given ---------------------------------------------------------------------------------

BROKEN_PICTURES: dict[str, tuple[bytes, str]] = {
    "bomb60000.png": (png(60000, 60000), "claims 60000x60000 pixels"),
    "bomb30000.png": (png(30000, 30000), "claims 30000x30000 pixels"),
    "header0.png": (png(0, 0), "claims 0x0 pixels"),
    "idat_corrupt.png": (flipped(encoded(".png"), 5000, 6000), "checksum of its chunk IDAT"),
    "cut.png": (encoded(".png")[:3000], "truncated PNG"),
    "headless.png": (b"\x89PNG\r\n\x1a\n", "truncated PNG"),
    "bmp_huge.bmp": (bmp(60000, 60000), "claims 60000x60000 pixels"),
    "cut.bmp": (encoded(".bmp")[:3000], "image file is truncated"),
    "tiff_huge.tif": (
        b"II*\0" + struct.pack("<IHHHIIHHII", 8, 2, 256, 4, 1, 60000, 257, 4, 1, 60000) + bytes(99),
        "claims 60000x60000 pixels",
    ),
    "tiff_empty.tif": (b"II*\0\x08\0\0\0\0\0" + bytes(99), "TIFF without a size"),
    "pfm_huge.pfm": (b"PF\n60000 60000\n-1.0\n" + bytes(500), "claims 60000x60000 pixels"),
    "pfm_nan.pfm": (b"PF\nnan 60\n-1.0\n" + bytes(500), "not an image of a known format"),
    "webp_huge.webp": (b"RIFF\0\0\0\0WEBPVP8X\n" + bytes(7) + b"\xff\xff\x00" * 2 + bytes(99), "claims 65536x65536"),
    "page.jpg": (b"<!DOCTYPE html>", "not an image of a known format"),
    "empty.jpg": (b"", "empty"),
    "zeros.jpg": (bytes(5000), "not an image of a known format"),
    "gif.png": (b"GIF89a" + bytes(100), "not an image of a known format"),
    "line\nerror: fake\x1b[2J.png": (b"nothing", "not an image of a known format"),
}


@pytest.mark.parametrize("name", BROKEN_PICTURES)
def test_a_broken_picture_is_passed_over(name: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    content, told = BROKEN_PICTURES[name]
    Path("s").mkdir()
    Path("s", name).write_bytes(content)
    shutil.copy(place.image, "s/good.png")
    code, err = run([*detection(place), "--source", "s"], capfd)
    assert code == 1
    assert len(err) == 2, err
    assert err[0].startswith("warning: s/")
    assert told in err[0]
    assert err[1].startswith("error: 1 of 2 sources could not be read")
    assert not any(p.suffix in (".tmp", ".part") for p in files_below(place.folder))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("tall.png", (10000, 1)), ("wide.png", (10, 20000)), ("wide.bmp", (1, 3000)), ("long.png", (65000, 10)),
     ("wide.jpg", (12, 65500)), ("grey.tif", (40, 60)), ("16.png", (40, 60))],
)  # fmt: skip
def test_an_odd_picture_is_good(
    name: str, shape: tuple[int, int], place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    image = np.zeros(shape, np.uint16 if name == "16.png" else np.uint8)
    Path(name).write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
    assert run([*detection(place), "--source", name, "--name", "odd"], capfd) == (0, [])
    assert Path("runs/detect/odd", name).is_file()


def pipe_as_picture(place: Place) -> str:
    os.mkfifo("s.png")
    return "s.png"


def device_as_picture(place: Place) -> str:
    Path("s.png").symlink_to("/dev/zero")
    return "s.png"


def list_with_nul(place: Place) -> str:
    return place.write("l.txt", "a.png\nb\0.png\n")


def list_with_long_names(place: Place) -> str:
    return place.write("l.txt", "x" * 5000 + ".png\n")


def list_in_utf16(place: Place) -> str:
    Path("l.txt").write_bytes("a.png\n".encode("utf-16"))
    return "l.txt"


def list_of_a_list(place: Place) -> str:
    place.write("m.txt", "a.png\n")
    return place.write("l.txt", "m.txt\n")


def list_of_pipes(place: Place) -> str:
    os.mkfifo("p.png")
    return place.write("l.txt", "p.png\n")


def list_of_folders(place: Place) -> str:
    Path("folder.png").mkdir()
    return place.write("l.txt", "folder.png\n")


def link_to_itself(place: Place) -> str:
    Path("s.png").symlink_to("s.png")
    return "s.png"


def home_of_nobody(place: Place) -> str:
    return "~nobody-of-this-name/a.png"


SOURCES: dict[Callable[[Place], str], str] = {
    pipe_as_picture: "source 's.png' is neither a file nor a folder",
    device_as_picture: "source 's.png' is neither a file nor a folder",
    list_with_nul: "l.txt:2: not a list of image paths",
    list_with_long_names: "1 of 1 sources could not be read",
    list_in_utf16: "l.txt: not a UTF-8 list",
    list_of_a_list: "a list cannot hold another list",
    list_of_pipes: "1 of 1 sources could not be read",
    list_of_folders: "no image or video in",
    link_to_itself: "source 's.png' does not exist",
    home_of_nobody: "source '~nobody-of-this-name/a.png' does not exist",
}


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.__name__)
def test_bad_sources(source: Callable[[Place], str], place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    given = source(place)
    before = files_below(place.folder)
    code, err = run([*detection(place), "--source", given], capfd)
    assert code == 1
    assert [line for line in err if not line.startswith("warning: ")] == err[-1:], err
    assert err[-1].startswith("error: ")
    assert SOURCES[source] in err[-1]
    assert files_below(place.folder) == before


# --- data sets --------------------------------------------------------------------------------------------------------


def edited(old: str, new: str) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        place.edit_yaml(old, new)
        return training(place)

    return make


def yaml_of(content: bytes) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        place.yaml.write_bytes(content)
        return training(place)

    return make


def label_of(content: bytes) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        place.label.write_bytes(content)
        return training(place)

    return make


def instead_of_label(make_one: Callable[[Path], object]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        place.label.unlink()
        make_one(place.label)
        return training(place)

    return make


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**10)


def listed(content: bytes) -> Callable[[Place], list[str]]:
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
DATA: dict[str, tuple[Callable[[Place], list[str]], str]] = {
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
    words = make(place)
    before = files_below(place.folder)
    code, err = run(words, capfd)
    assert code == 1
    assert [line for line in err if not line.startswith(("warning: ", "libpng "))] == err[-1:], err
    assert err[-1].startswith("error: ")
    assert told in err[-1]
    assert files_below(place.folder) == before


def test_a_wrong_limit_of_pixels(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOv5_MAX_IMAGE_PIXELS", "lots")
    told = "error: the environment variable YOLOv5_MAX_IMAGE_PIXELS is a number of pixels, not 'lots'"
    assert run(training(place), capfd) == (1, [told])


def test_a_bad_picture_among_good_ones_is_left_out(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    folder = place.data / "images" / "val"
    for number, (content, _) in enumerate(BROKEN_PICTURES.values()):
        (folder / f"bad{number:02}.png").write_bytes(content)
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "zero.png").symlink_to("/dev/zero")
    code, err = run(validation(place, "--no-plots"), capfd)
    assert code == 0
    told = "\n".join(err)
    assert "the image is left out" in told
    assert f"{len(BROKEN_PICTURES) + 4 - 10} more broken images are left out" in told
    assert all(line.startswith("warning: ") for line in err), err


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_of(words: list[str], folder: Path) -> tuple[int, float, str]:
    """Exit code, peak of memory in GB and stderr of a Python process."""
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    with process.stderr:
        err = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024 / 1e9, err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("a.png", 10_000), ("a.jpg", 13_400)])
def test_a_large_picture_is_good_and_takes_less_than_2_gb(name: str, side: int, place: Place) -> None:
    cv2.imwrite(name, np.zeros((side, side, 3), np.uint8))
    script = str(Path(__file__).resolve().parents[1] / "detect.py")
    words = [script, "--weights", str(place.weights), "--img", "64", "--source", name]
    code, peak, err = peak_of(words, place.folder)
    assert (code, err) == (0, "")
    assert peak < 2


@pytest.mark.slow
def test_large_pictures_are_decoded_one_after_another(tmp_path: Path) -> None:
    """Four threads index; the memory of their pictures does not add up."""
    (tmp_path / "images").mkdir()
    data = cv2.imencode(".tif", np.zeros((12_000, 12_000, 3), np.uint8), [cv2.IMWRITE_TIFF_COMPRESSION, 8])[1]
    for number in range(4):
        (tmp_path / "images" / f"{number}.tif").write_bytes(data.tobytes())
    program = (
        "from utils.data.indexing import scan; scan.CHUNK = 1\n"
        "from utils.data.index import build_index\n"
        "assert len(build_index(['images'], 1, cache=False, require_labels=False)) == 4"
    )
    code, peak, err = peak_of(["-c", program], tmp_path)
    assert (code, err) == (0, "")
    assert peak < 2
