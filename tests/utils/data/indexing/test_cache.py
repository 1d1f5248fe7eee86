"""The cache file: keys, names, and content that is never trusted."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from utils.data.indexing.cache import cache_path, fingerprint, from_npy, load_arrays, save_arrays


def test_key_depends_on_names_content_and_options(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    key = fingerprint([str(a)], [str(b)], True)
    assert key == fingerprint([str(a)], [str(b)], True)
    assert key != fingerprint([str(a)], [str(b)], False)
    assert key != fingerprint([str(b)], [str(a)], True)
    b.write_text("")  # an absent file is not an empty one
    assert key != fingerprint([str(a)], [str(b)], True)


def test_round_trip_and_wrong_key(tmp_path: Path) -> None:
    file = tmp_path / "x.cache"
    save_arrays(file, b"k" * 32, {"a": np.arange(5), "b": np.zeros((0, 4), np.float32)})
    stored = load_arrays(file, b"k" * 32)
    assert stored is not None
    assert set(stored) == {"a", "b"}
    np.testing.assert_array_equal(stored["a"], np.arange(5))
    assert stored["b"].shape == (0, 4)
    assert load_arrays(file, b"j" * 32) is None
    assert load_arrays(tmp_path / "absent", b"k" * 32) is None


def test_a_pickle_in_the_cache_is_not_opened(tmp_path: Path) -> None:
    """YOLOv5's own caches are pickles, and so may a hostile one be."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    file = tmp_path / "x.cache"
    with open(file, "wb") as stream:
        np.save(stream, np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(zipfile.BadZipFile):
        load_arrays(file, b"k")
    with open(file, "wb") as stream:
        np.savez(stream, key=np.frombuffer(b"k", np.uint8), a=np.array([Trap()], object))
    with pytest.raises(ValueError):
        load_arrays(file, b"k")
    assert not (tmp_path / "executed").exists()


def test_no_array_is_larger_than_its_file(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with pytest.raises(ValueError):
        from_npy(stream.getvalue() + b"\1" * 100)
    np.savez_compressed(tmp_path / "x.npz", key=np.zeros(10**6, np.uint8))
    with pytest.raises(ValueError, match="compressed"):
        load_arrays(tmp_path / "x.npz", b"k")


def test_file_names(tmp_path: Path) -> None:
    label = "/d/labels/train2017/1.txt"
    assert cache_path(["/d/images/train2017"], label, polygons=False) == Path("/d/labels/train2017.boxes.cache")
    assert cache_path(["/d/images/train2017"], label, polygons=True) == Path("/d/labels/train2017.polygons.cache")
    assert cache_path(["/d/val.txt"], label, polygons=False) == Path("/d/val.boxes.cache")
    two = cache_path(["/d/a", "/d/b"], label, polygons=False)
    assert two.parent == Path("/d/labels")
    assert two != cache_path(["/d/a", "/d/c"], label, polygons=False)
