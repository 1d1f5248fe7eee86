"""Declared downloads, from file:// addresses into a folder that appears when it is complete."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.data.recipe import DownloadItem, Recipe, fetch, read_recipe
from utils.data.spec import load_dataset
from utils.errors import UserError


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLOv5_DATASETS_DIR", str(tmp_path / "sets"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sets"


def make_zip(path: Path, *names: str) -> str:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path.as_uri()


def write_yaml(folder: Path, text: str) -> Path:
    file = folder / "my.yaml"
    file.write_text(f"path: set\ntrain: images/train\nval: images/val\nnames: [x]\n{text}")
    return file


def names_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_one_url_as_published_yamls_have_it(tmp_path: Path, sets: Path, capsys) -> None:
    """The archive has the data set's folder inside; it does not appear twice."""
    url = make_zip(tmp_path / "web/set.zip", "set/images/train/1.jpg", "set/images/val/2.jpg", "set/README.txt")
    file = write_yaml(tmp_path, f"download: {url}")
    with pytest.raises(UserError, match="or allow the download"):
        load_dataset(file, download=False)
    assert load_dataset(file).path == sets / "set"
    assert names_below(sets) == ["set/README.txt", "set/images/train/1.jpg", "set/images/val/2.jpg"]
    assert str(tmp_path / "datasets" / "set" / "images" / "train") in capsys.readouterr().out  # places tried
    (tmp_path / "web/set.zip").unlink()
    load_dataset(file)  # is there, nothing is fetched


def test_items_for_splits_into_folders(tmp_path: Path, sets: Path) -> None:
    labels = make_zip(tmp_path / "web/labels.zip", "labels/train/1.txt", "labels/val/2.txt")
    train = make_zip(tmp_path / "web/train.zip", "train/1.jpg")
    val = make_zip(tmp_path / "web/val.zip", "val/2.jpg")
    note = tmp_path / "web" / "note.txt"
    note.write_text("note")
    checksum = hashlib.sha256((tmp_path / "web/val.zip").read_bytes()).hexdigest()
    text = (
        f"download:\n  - {labels}\n  - url: {train}\n    into: images\n    splits: [train]\n"
        f"  - {{url: '{val}', into: images, splits: val, sha256: {checksum}}}\n"
        f"  - {{url: '{note.as_uri()}', into: docs}}\n"
    )
    file = write_yaml(tmp_path, text)
    load_dataset(file, need=("val",))
    assert names_below(sets) == [
        "set/docs/note.txt",
        "set/images/val/2.jpg",
        "set/labels/train/1.txt",
        "set/labels/val/2.txt",
    ]
    (sets / "set/labels/val/2.txt").write_text("mended by hand")
    (tmp_path / "web/val.zip").unlink()  # what is there is not fetched again
    load_dataset(file)
    assert "set/images/train/1.jpg" in names_below(sets)
    assert (sets / "set/labels/val/2.txt").read_text() == "mended by hand"
    assert [p.name for p in sets.iterdir()] == ["set"]


def test_interrupted_fetch_is_no_data_set_and_goes_on(tmp_path: Path, sets: Path) -> None:
    first = make_zip(tmp_path / "web/a.zip", "images/train/1.jpg", "images/val/2.jpg")
    second = (tmp_path / "web/b.zip").as_uri()
    file = write_yaml(tmp_path, f"download: [{first}, {second}]")
    with pytest.raises(UserError, match=rf"cannot fetch .*by hand, put b.zip into {sets}/set and start again"):
        load_dataset(file)
    assert not (sets / "set").exists()
    make_zip(tmp_path / "web/b.zip", "labels/train/1.txt")
    (tmp_path / "web/a.zip").unlink()  # it was unpacked, and is not asked for again
    load_dataset(file)
    assert names_below(sets) == ["set/images/train/1.jpg", "set/images/val/2.jpg", "set/labels/train/1.txt"]


def test_archives_brought_by_hand(tmp_path: Path, sets: Path) -> None:
    """What the error asks for works: the archives are laid into the data set's folder."""
    text = "download:\n  - http://127.0.0.1:9/set.zip\n  - http://127.0.0.1:9/more/labels.zip\n"
    file = write_yaml(tmp_path, text)
    with pytest.raises(UserError, match=rf"by hand, put set\.zip into {sets}/set and start again"):
        load_dataset(file)
    assert not list(sets.rglob("*"))  # nothing is left where nothing came
    make_zip(sets / "set.zip", "set/images/train/1.jpg", "set/images/val/2.jpg")
    make_zip(sets / "labels.zip", "labels/train/1.txt")
    (sets / "set").mkdir()
    for name in ("set.zip", "labels.zip"):
        (sets / name).rename(sets / "set" / name)
    load_dataset(file)
    assert names_below(sets / "set") == [
        "images/train/1.jpg", "images/val/2.jpg", "labels.zip", "labels/train/1.txt", "set.zip",
    ]  # fmt: skip


def test_wrong_checksum(tmp_path: Path, sets: Path) -> None:
    url = make_zip(tmp_path / "web/set.zip", "images/train/1.jpg")
    file = write_yaml(tmp_path, f"download:\n  - url: {url}\n    sha256: {'a' * 64}")
    with pytest.raises(UserError, match="is not the file expected"):
        load_dataset(file)
    assert not (sets / "set").exists()


def test_hostile_archive(tmp_path: Path, sets: Path) -> None:
    file = write_yaml(tmp_path, f"download: {make_zip(tmp_path / 'web/set.zip', '../../evil.jpg')}")
    with pytest.raises(UserError, match="would write outside"):
        load_dataset(file)
    assert not list(tmp_path.rglob("evil.jpg"))


def test_archive_that_lacks_the_split(tmp_path: Path, sets: Path) -> None:
    file = write_yaml(tmp_path, f"download: {make_zip(tmp_path / 'web/set.zip', 'images/train/1.jpg')}")
    with pytest.raises(UserError, match=r"incomplete \(val\); tried .*images/val"):
        load_dataset(file)


def test_voc_is_converted(tmp_path: Path, sets: Path) -> None:
    xml = (
        "<annotation><size><width>100</width><height>50</height></size><object><name>x</name><difficult>0</difficult>"
        "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>25</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "web").mkdir()
    with zipfile.ZipFile(tmp_path / "web/voc.zip", "w") as archive:
        for stem, split in (("a", "train"), ("b", "val")):
            archive.writestr(f"VOCdevkit/VOC2007/JPEGImages/{stem}.jpg", "picture")
            archive.writestr(f"VOCdevkit/VOC2007/Annotations/{stem}.xml", xml)
            archive.writestr(f"VOCdevkit/VOC2007/ImageSets/Main/{split}.txt", f"{stem}\n")
    file = tmp_path / "voc.yaml"
    file.write_text(
        "path: VOC\ntrain: images/train2007\nval: images/val2007\nnames: [x]\nconvert: voc\n"
        f"download: {(tmp_path / 'web/voc.zip').as_uri()}"
    )
    load_dataset(file)
    # 10..30 of 100 and 5..25 of 50, pixels counted from one
    assert (sets / "VOC/labels/train2007/a.txt").read_text() == "0 0.2 0.3 0.2 0.4\n"
    assert (sets / "VOC/images/val2007/b.jpg").read_text() == "picture"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("download:\n  - url: ftp://x/y", "my.yaml:6: a download needs a url"),
        ("download:\n  - http://x/y\n  - into: z", "my.yaml:7: a download needs a url"),
        (
            "download:\n  - url: http://x/y\n    in: z",
            "my.yaml:6: unknown key 'in' of a download (did you mean 'into'?)",
        ),
        ("download:\n  - {url: 'http://x/y', into: ../z}", "my.yaml:6: 'into' is a folder of the data set"),
        ("download:\n  - {url: 'http://x/y', into: /z}", "my.yaml:6: 'into' is a folder of the data set"),
        ("download:\n  - {url: 'http://x/y', sha256: abc}", "my.yaml:6: sha256 is 64 hexadecimal digits"),
        ("download: [3]", "my.yaml:5: a download is a URL or has the keys"),
    ],
)
def test_malformed_recipes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(write_yaml(tmp_path, text))
    assert message in str(error.value)


def test_recipes_are_read_and_nothing_else_happens(tmp_path: Path) -> None:
    assert read_recipe({}, None) == Recipe(place="data set")
    assert read_recipe({"download": "https://x/y.zip"}, None).items == (DownloadItem("https://x/y.zip"),)
    assert read_recipe({"download": "bash get.sh"}, None).is_script
    assert read_recipe({"download": "https://x/y.zip; rm -rf z"}, None).is_script
    fetch(Recipe(items=(DownloadItem("http://127.0.0.1:9/x", splits=("test",)),)), tmp_path / "set", ("train",), {})
    assert not (tmp_path / "set").exists()


def _zip(*members: tuple[str, bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name twice
            for name, data in members:
                archive.writestr(name, data)

    return make


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def _tar(size: int, kind: bytes) -> bytes:
    """A tar whose first header claims a name or attributes of `size` zeros."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT) + bytes(min(size, 30 << 20))


def _cut_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        entry = tarfile.TarInfo("images/train/0.png")
        entry.size = 100_000
        archive.addfile(entry, io.BytesIO(random.Random(0).randbytes(entry.size)))
    return stream.getvalue()


GOOD = ("images/train/0.png", b"0"), ("images/val/0.png", b"0")
HOSTILE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "file_vs_dir": ("a.zip", _zip(*GOOD, ("z/a", b"1"), ("z/a/b", b"2")), "holds 'z/a/b', which has no place"),
    "dir_vs_file": ("a.zip", _zip(*GOOD, ("z/a/b", b"2"), ("z/a", b"1")), "holds 'z/a', which has no place"),
    "image_vs_dir": ("a.zip", _zip(*GOOD, ("images/train/0.png/x", b"2")), "which has no place"),
    "file_over_dir": ("a.zip", _zip(*GOOD, ("z/a/", b""), ("z/a", b"1")), "holds 'z/a', which has no place"),
    "longname": ("a.zip", _zip(*GOOD, ("n" * 300 + ".txt", b"1")), "which has no place: File name too long"),
    "deep": ("a.zip", _zip(*GOOD, ("d/" * 1500 + "x", b"1")), "holds folders more than 50 deep"),
    "traversal": ("a.zip", _zip(*GOOD, ("../../out.txt", b"1")), "would write outside its folder"),
    "truncated": ("a.tar.gz", _bytes(_cut_tar()[:5000]), "is damaged"),
    "broken_gzip": ("a.tar.gz", _bytes(_cut_tar()[:500] + b"\0" * 300 + _cut_tar()[800:]), "is damaged"),
    "not_gzip": ("a.tar.gz", _bytes(b"\x1f\x8bgarbage" * 100), "is damaged"),
    "not_bzip2": ("a.tar.bz2", _bytes(b"BZh9garbage" * 100), "is damaged"),
    "not_xz": ("a.tar.xz", _bytes(b"\xfd7zXZ\0garbage" * 100), "is damaged"),
    "html": ("a.tar.gz", _bytes(b"<!DOCTYPE html><html>404</html>" * 50), "is damaged"),
    "empty": ("a.zip", _bytes(b""), "is damaged"),
    "longlink_bomb": ("a.tar.gz", _bytes(gzip.compress(_tar(30 << 20, tarfile.GNUTYPE_LONGNAME))), "is damaged"),
    "pax_bomb": ("a.tar.gz", _bytes(gzip.compress(_tar(30 << 20, tarfile.XHDTYPE))), "is damaged"),
    "negative_size": ("a.tar", _bytes(_tar(0, b"0")[:124] + b"-0000000001\0" + _tar(0, b"0")[136:]), "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_hostile_archive_leaves_nothing_behind(name: str, by_hand: bool, tmp_path: Path, sets: Path) -> None:
    file, make, told = HOSTILE[name]
    there = sets / "set" / file if by_hand else tmp_path / "web" / file
    there.parent.mkdir(parents=True)
    make(there)
    yaml = write_yaml(tmp_path, f"download: {(tmp_path / 'web' / file).as_uri()}")
    with pytest.raises(UserError, match=told) as error:
        load_dataset(yaml)
    assert len(str(error.value).splitlines()) == 1
    assert names_below(tmp_path) == sorted(["my.yaml", str(there.relative_to(tmp_path))])
    assert not list(tmp_path.rglob("*.partial"))


def test_a_second_process_waits_and_finds_the_data_set(tmp_path: Path, sets: Path, monkeypatch) -> None:
    url = make_zip(tmp_path / "web/set.zip", "images/train/1.jpg", "images/val/2.jpg")
    yaml = write_yaml(tmp_path, f"download: {url}")
    fetched = []
    monkeypatch.setattr("utils.data.spec.fetch", lambda *args: (time.sleep(0.1), fetched.append(1), fetch(*args)))
    threads = [threading.Thread(target=load_dataset, args=(yaml,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [1]
    assert names_below(sets) == ["set/images/train/1.jpg", "set/images/val/2.jpg"]


@pytest.mark.parametrize("splits", ["3", "null", "{a: 1}", "[trian]", "[[train]]"])
def test_splits_of_a_download(tmp_path: Path, splits: str) -> None:
    yaml = write_yaml(tmp_path, f"download:\n  - url: file:///x.zip\n    splits: {splits}\n")
    with pytest.raises(UserError, match=r"my.yaml:6: 'splits' lists some of train, val and test"):
        load_dataset(yaml)


@pytest.mark.parametrize("url", ["http://[::1/a.zip", "http://h:99999/a.zip", f"http://{'a' * 100}.com/a.zip"])
def test_odd_addresses(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"my.yaml:5: cannot fetch .*not an address"):
        load_dataset(write_yaml(tmp_path, f"download: '{url}'"))
