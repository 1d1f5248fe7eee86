"""The index of a split: what is in it, what is refused, and how much memory it takes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.data.indexing.index import ImageIndex, build_index
from utils.errors import UserError


def make_split(root: Path, labels: dict[str, str | None], size: tuple[int, int] = (40, 60)) -> Path:
    """A folder of pictures with these label texts (None: no file)."""
    images, texts = root / "images" / "train", root / "labels" / "train"
    images.mkdir(parents=True, exist_ok=True)
    texts.mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        cv2.imwrite(str(images / f"{name}.png"), np.full((*size, 3), 90, np.uint8))
        if text is not None:
            (texts / f"{name}.txt").write_text(text)
    return images


def sample(polygons: bool = False) -> ImageIndex:
    """Three images with 2, 0 and 1 objects."""
    return ImageIndex.from_arrays(
        ["a.jpg", "büro/b.jpg", "c.jpg"],
        np.array([[10, 20], [30, 40], [50, 60]]),
        [2, 0, 1],
        np.array([1, 2, 1]),
        np.arange(12).reshape(3, 4) / 12,
        np.arange(20).reshape(10, 2) if polygons else None,
        [3, 4, 3] if polygons else None,
    )


def test_arrays_are_what_was_given() -> None:
    index = sample(polygons=True)
    assert len(index) == 3
    assert index.paths == ["a.jpg", "büro/b.jpg", "c.jpg"]
    assert index.path(-1) == "c.jpg"
    assert index.label_slice(0) == slice(0, 2)
    assert index.label_slice(1) == slice(2, 2)
    np.testing.assert_array_equal(index.polygon(1), np.arange(6, 14).reshape(4, 2))
    assert [a.dtype.name for a in (index.shapes, index.classes, index.boxes, index.offsets)] == [
        "int32", "float32", "float32", "int64",
    ]  # fmt: skip
    with pytest.raises(IndexError):
        index.path(3)
    with pytest.raises(ValueError, match="without polygons"):
        sample().polygon(0)
    with pytest.raises(ValueError, match="disagree"):
        ImageIndex.from_arrays(["a"], np.ones((1, 2)), [2], np.zeros(1), np.zeros((1, 4)))


@pytest.mark.parametrize("chosen", [[2, 0], [1], [0, 0, 2], [], np.array([True, False, True]), np.array([-1])])
def test_select(chosen) -> None:
    index = sample(polygons=True)
    part = index.select(chosen)
    expected = (
        np.flatnonzero(chosen)
        if isinstance(chosen, np.ndarray) and chosen.dtype == np.bool_
        else [i % 3 for i in chosen]
    )
    assert part.paths == [index.path(i) for i in expected]
    for new, old in enumerate(expected):
        np.testing.assert_array_equal(part.shapes[new], index.shapes[old])
        for name in ("classes", "boxes"):
            np.testing.assert_array_equal(
                getattr(part, name)[part.label_slice(new)], getattr(index, name)[index.label_slice(old)]
            )
        for j, k in zip(
            range(*part.label_slice(new).indices(99)), range(*index.label_slice(old).indices(99)), strict=True
        ):
            np.testing.assert_array_equal(part.polygon(j), index.polygon(k))


def test_statistics_by_hand() -> None:
    index = sample()
    assert index.image_of.tolist() == [0, 0, 2]
    assert index.class_counts(4).tolist() == [0, 2, 1, 0]
    np.testing.assert_allclose(index.class_weights(4), np.array([1, 1 / 2, 1, 1]) / 3.5)
    np.testing.assert_allclose(index.image_weights(np.array([0.0, 0.3, 0.5, 9.0])), [0.8, 0.0, 0.3])
    assert index.as_single_class().classes.tolist() == [0, 0, 0]
    assert index.classes.tolist() == [1, 2, 1]


def test_pickles_for_spawned_workers() -> None:
    copy = pickle.loads(pickle.dumps(sample(polygons=True)))
    assert copy.paths == sample().paths
    np.testing.assert_array_equal(copy.polygons, sample(polygons=True).polygons)


def test_memory_below_1_kb_an_image_at_ten_boxes() -> None:
    n = 1000
    paths = [f"/home/somebody/datasets/coco/images/train2017/{i:012d}.jpg" for i in range(n)]
    index = ImageIndex.from_arrays(paths, np.ones((n, 2)), [10] * n, np.zeros(10 * n), np.zeros((10 * n, 4)))
    # per image: path 62 + 8, shape 8, offset 8, ten times class 4 and box 16
    assert index.nbytes == n * (62 + 8 + 8 + 8 + 10 * 20) + 16
    assert index.nbytes / n < 1024


@pytest.mark.parametrize("polygons", [False, True])
def test_built_and_read_again(tmp_path: Path, polygons: bool, capsys) -> None:
    folder = make_split(tmp_path, {"a": "0 .5 .5 .2 .2\n1 .1 .1 .3 .1 .2 .3", "b": "", "c": None, "d": "1 .9 .5 .4 .2"})
    first = build_index([folder], 2, polygons=polygons, prefix="train: ")
    said = capsys.readouterr()
    assert "train: 4 images, 3 objects, 2 backgrounds (1 without a label file)" in said.out
    assert (
        f"train: 1 objects reach beyond their image and were clipped (first: {tmp_path}/labels/train/d.txt:1)"
        in said.err
    )
    second = build_index([folder], 2, polygons=polygons, prefix="train: ")
    again = capsys.readouterr()
    assert again.err == said.err  # warnings are not lost in the cache
    assert "reading labels" in said.out
    assert "reading labels" not in again.out
    assert first.paths == second.paths == [str(folder / f"{name}.png") for name in "abcd"]
    assert first.shapes.tolist() == [[40, 60]] * 4
    assert first.offsets.tolist() == [0, 2, 2, 2, 3]
    for name in ("shapes", "offsets", "classes", "boxes", "polygons", "polygon_offsets"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.polygons is not None) == polygons


def test_any_change_of_a_file_is_noticed(tmp_path: Path, capsys) -> None:
    folder = make_split(tmp_path, {"a": "0 .5 .5 .2 .2", "b": None})
    label = tmp_path / "labels" / "train" / "b.txt"
    assert len(build_index([folder], 1).classes) == 1
    label.write_text("0 .5 .5 .2 .2")
    assert len(build_index([folder], 1).classes) == 2
    label.write_text("0 .5 .5 .2 .2\n0 .1 .1 .1 .1")
    assert len(build_index([folder], 1).classes) == 3
    label.unlink()
    assert len(build_index([folder], 1).classes) == 1
    cv2.imwrite(str(folder / "b.png"), np.zeros((50, 70, 3), np.uint8))
    assert build_index([folder], 1).shapes.tolist() == [[40, 60], [50, 70]]
    (folder / "b.png").unlink()
    assert len(build_index([folder], 1)) == 1


def test_damaged_cache_is_made_anew(tmp_path: Path, capsys) -> None:
    folder = make_split(tmp_path, {"a": "0 .5 .5 .2 .2"})
    build_index([folder], 1)
    cache = tmp_path / "labels" / "train.boxes.cache"
    whole = cache.read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", b"rubbish", whole[:middle], whole[:middle] + b"\xff" * 40 + whole[middle + 40 :]):
        cache.write_bytes(damaged)
        assert build_index([folder], 1).classes.tolist() == [0]
        assert cache.read_bytes() == whole or len(cache.read_bytes()) == len(whole)


def test_without_cache_and_in_a_read_only_folder(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_split(tmp_path, {"a": "0 .5 .5 .2 .2"})
    build_index([folder], 1, cache=False)
    assert not list((tmp_path / "labels").glob("*.cache"))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)  # the tests may run as root, whom no mode bits stop
    assert len(build_index([folder], 1)) == 1
    assert "labels are read anew each time" in capsys.readouterr().out


def test_broken_images_are_named_counted_and_left_out(tmp_path: Path, capsys) -> None:
    folder = make_split(tmp_path, dict.fromkeys("abc", "0 .5 .5 .2 .2"))
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-30])
    for _ in range(2):
        index = build_index([folder], 1)
        said = capsys.readouterr()
        assert [Path(p).stem for p in index.paths] == ["a", "c"]
        assert len(index.classes) == 2
        assert "2 images, 2 objects, 0 backgrounds, 1 broken" in said.out
        assert f"{folder / 'b.png'} is a truncated PNG; the image is left out" in said.err
    for image in folder.iterdir():
        image.write_bytes(b"rubbish")
    with pytest.raises(UserError, match="none of the 3 images can be read"):
        build_index([folder], 1)


def test_many_broken_images_are_not_all_listed(tmp_path: Path, capsys) -> None:
    folder = make_split(tmp_path, {"good": "0 .5 .5 .2 .2"})
    for i in range(30):
        (folder / f"{i}.jpg").write_bytes(b"rubbish")
    assert len(build_index([folder], 1)) == 1
    said = capsys.readouterr().err
    assert said.count("left out") == 11
    assert "20 more broken images are left out" in said


@pytest.mark.parametrize("cached", [False, True])
def test_class_outside_the_names(tmp_path: Path, cached: bool) -> None:
    folder = make_split(tmp_path, {"a": "0 .5 .5 .2 .2", "b": "4 .5 .5 .2 .2\n\n7 .5 .5 .3 .3\n"})
    if cached:
        build_index([folder], 8)
    with pytest.raises(UserError, match=r"labels/train/b\.txt:3: class 7, but nc is 5 \(0 to 4\)"):
        build_index([folder], 5)
    with pytest.raises(UserError, match="names: cat, dog"):
        build_index([folder], 2, names={0: "cat", 1: "dog"})
    assert build_index([folder], 1, single_cls=True).classes.tolist() == [0, 0, 0]
    assert build_index([folder], None).classes.tolist() == [0, 4, 7]


def test_the_first_mistake_in_order_is_told(tmp_path: Path) -> None:
    labels: dict[str, str | None] = {f"{i:04d}": "0 .5 .5 .2 .2" for i in range(600)}
    labels["0300"], labels["0599"] = "0 .5 .5 nan .2", "0 .5"
    folder = make_split(tmp_path, labels, (10, 10))
    with pytest.raises(UserError, match=r"0300\.txt:1: value nan"):
        build_index([folder], 1)


def test_no_labels_at_all(tmp_path: Path) -> None:
    folder = make_split(tmp_path, {"a": None, "b": None})
    expected = (
        f"no labels found for 2 images: {folder / 'a.png'} would have its labels in {tmp_path}/labels/train/a.txt"
    )
    for _ in range(2):
        with pytest.raises(UserError) as error:
            build_index([folder], 1)
        assert str(error.value).startswith(expected)
    assert len(build_index([folder], 1, require_labels=False)) == 2
    (tmp_path / "labels" / "train" / "a.txt").touch()  # an empty file says: background
    assert len(build_index([folder], 1)) == 2


def test_labels_in_pixels(tmp_path: Path) -> None:
    folder = make_split(tmp_path, {"a": "0 30 20 10 10\n0 40 30 5 5"})
    with pytest.raises(UserError, match=r"all 2 objects lie outside .*a\.txt:1.*not in pixels"):
        build_index([folder], 1)


def test_several_sources_have_a_cache_of_their_own(tmp_path: Path) -> None:
    first = make_split(tmp_path / "1", {"a": "0 .5 .5 .2 .2"})
    second = make_split(tmp_path / "2", {"b": "0 .5 .5 .2 .2"})
    (tmp_path / "list.txt").write_text("./1/images/train/a.png\n./2/images/train/b.png\n")
    assert len(build_index([first, second], 1)) == len(build_index([tmp_path / "list.txt"], 1)) == 2
    assert len(build_index([first], 1)) == 1
    names = {p.name for p in tmp_path.rglob("*.cache")}
    assert {"train.boxes.cache", "list.boxes.cache"} < names
    assert len(names) == 3


def test_coco128(shared_data) -> None:
    """The figures of the data's README: 929 boxes, 126 labelled images, 2 backgrounds."""
    index = build_index([shared_data / "data/coco128/images/train2017"], 80, cache=False)
    counts = np.diff(index.offsets)
    assert (len(index), len(index.classes), int((counts > 0).sum())) == (128, 929, 126)
    assert index.class_counts(80)[0] == 254  # persons
    for i in range(0, 128, 16):
        assert tuple(index.shapes[i]) == cv2.imread(index.path(i)).shape[:2]


def _plain_array(arrays: dict, file: Path) -> None:
    with open(file, "wb") as stream:
        np.save(stream, np.zeros(3))


def _huge_header(arrays: dict, file: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("key.npy", header.getvalue())


def _inflating(arrays: dict, file: Path) -> None:
    np.savez_compressed(file.with_suffix(".npz"), **{**arrays, "key": np.zeros(10**7, np.uint8)})
    file.with_suffix(".npz").replace(file)


def _encrypted(arrays: dict, file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[6] |= 1  # the flag in the first local header, and in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(data)


def _with(file: Path, arrays: dict, **changes: np.ndarray | None) -> None:
    changed = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
    with open(file, "wb") as stream:
        np.savez(stream, **changed)


def _text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


HOSTILE: dict[str, Callable[[dict, Path], None]] = {
    "npy": _plain_array,
    "npy_huge_header": _huge_header,
    "zip_bomb_key": _inflating,
    "encrypted_flag": _encrypted,
    "noreport": lambda arrays, file: _with(file, arrays, report=None),
    "extra": lambda arrays, file: _with(file, arrays, evil=np.zeros(3)),
    "missing": lambda arrays, file: _with(file, arrays, boxes=None),
    "classes_nan": lambda arrays, file: _with(file, arrays, classes=np.full(3, np.nan, np.float32)),
    "classes_half": lambda arrays, file: _with(file, arrays, classes=np.full(3, 0.5, np.float32)),
    "classes_text": lambda arrays, file: _with(file, arrays, classes=np.array(["a", "b", "c"])),
    "offsets": lambda arrays, file: _with(file, arrays, offsets=arrays["offsets"][::-1].copy()),
    "short": lambda arrays, file: _with(file, arrays, boxes=arrays["boxes"][:1]),
    "flat_boxes": lambda arrays, file: _with(file, arrays, boxes=np.zeros(3, np.float32)),
    "boxes_nan": lambda arrays, file: _with(file, arrays, boxes=arrays["boxes"] * np.float32("nan")),
    "shapes0": lambda arrays, file: _with(file, arrays, shapes=arrays["shapes"] * 0),
    "shapes_none": lambda arrays, file: _with(file, arrays, shapes=np.zeros((0, 2), np.int32)),
    "report": lambda arrays, file: _with(file, arrays, report=_text("[0, 0] extra")),
    "report2": lambda arrays, file: _with(file, arrays, report=_text('[0, 0, [], {"clipped": 3}]')),
    "report3": lambda arrays, file: _with(file, arrays, report=_text("[" * 10**5)),
    "paths": lambda arrays, file: _with(file, arrays, path_bytes=arrays["path_bytes"][:-1]),
    "other_paths": lambda arrays, file: _with(file, arrays, path_bytes=arrays["path_bytes"][::-1].copy()),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_cache_is_made_anew_with_a_word(name: str, tmp_path: Path, capsys) -> None:
    folder = make_split(tmp_path, {"a": "0 .5 .5 .2 .2\n1 .1 .1 .1 .1", "b": "0 .5 .5 .4 .4"})
    good = build_index([folder], 2)
    cache = tmp_path / "labels" / "train.boxes.cache"
    with np.load(cache) as stored:
        arrays = {key: stored[key] for key in stored.files}
    HOSTILE[name](arrays, cache)
    capsys.readouterr()
    again = build_index([folder], 2)
    said = capsys.readouterr()
    assert f"{cache} is damaged" in said.out
    assert said.err == ""
    assert again.paths == good.paths
    for field in ("shapes", "offsets", "classes", "boxes"):
        np.testing.assert_array_equal(getattr(again, field), getattr(good, field))
    build_index([folder], 2)
    assert "damaged" not in capsys.readouterr().out


def test_the_limit_of_pixels_is_part_of_the_key(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_split(tmp_path, {"a": "0 .5 .5 .2 .2", "b": "0 .5 .5 .2 .2"})
    cv2.imwrite(str(folder / "b.png"), np.zeros((100, 100, 3), np.uint8))
    monkeypatch.setenv("YOLOv5_MAX_IMAGE_PIXELS", "5000")
    assert len(build_index([folder], 1)) == 1
    assert "b.png claims 100x100 pixels, more than 5000; set the environment variable" in capsys.readouterr().err
    monkeypatch.delenv("YOLOv5_MAX_IMAGE_PIXELS")
    assert len(build_index([folder], 1)) == 2
