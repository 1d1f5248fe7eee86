"""Declared downloads, from file:// addresses into a folder that appears when it is complete."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from utils.data.recipe import Item, Recipe, fetch, read_recipe
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
    assert read_recipe({"download": "https://x/y.zip"}, None).items == (Item("https://x/y.zip"),)
    assert read_recipe({"download": "bash get.sh"}, None).is_script
    assert read_recipe({"download": "https://x/y.zip; rm -rf z"}, None).is_script
    fetch(Recipe(items=(Item("http://127.0.0.1:9/x", splits=("test",)),)), tmp_path / "set", ("train",), {})
    assert not (tmp_path / "set").exists()
