from __future__ import annotations

import json
import os
import socket

import numpy as np
import pytest

from tests.utils.data.pictures import make_index
from utils import distributed
from utils.data.images import cache, memory
from utils.data.images.cache import DiskCache, RamCache, cached
from utils.data.images.reader import ImageFiles
from utils.errors import UserError

SHAPES = [(60, 80), (120, 160), (100, 50), (30, 20)]


@pytest.fixture(params=[True, False], ids=["training", "validation"])
def files(request, tmp_path):
    return ImageFiles(make_index(tmp_path, SHAPES), (64, 64), request.param)


def test_sizes_are_those_of_what_is_read(files):
    for i in range(4):
        assert files.read(i).shape == (*files.stored[i], 3)
    small = (30, 20) if files.training else (64, 43)  # training does not enlarge
    assert tuple(files.stored[3]) == small
    assert tuple(files.stored[1]) == (48, 64)


@pytest.mark.parametrize(("kind", "made"), [("ram", RamCache), ("disk", DiskCache), ("", ImageFiles)])
def test_a_cache_gives_the_same_pixels(files, kind, made):
    found = cached(files, kind)
    assert isinstance(found, made)
    for i in range(4):
        np.testing.assert_array_equal(found.read(i), files.read(i))


def test_ram_cache_reads_no_file_twice(files):
    found = cached(files, "ram")
    expected = files.read(2)
    os.unlink(files.index.path(2))
    np.testing.assert_array_equal(found.read(2), expected)
    assert found.read(2).base is not None  # a view, no copy


def test_disk_cache_is_used_and_renewed(files, tmp_path):
    first = DiskCache(files)
    assert first.path(0).is_file()
    assert first.path(0).parent.parent == tmp_path
    np.save(first.path(0), np.zeros((48, 64, 3), np.uint8))
    again = DiskCache(files)
    assert not again.read(0).any()  # taken as it is
    os.utime(files.index.path(0), (2e9, 2e9))  # the image is younger now
    np.testing.assert_array_equal(DiskCache(files).read(0), files.read(0))
    again.path(1).unlink()
    again.path(2).write_bytes(b"broken")
    np.save(again.path(3), np.zeros((5, 5, 3), np.uint8))
    for i in (1, 2, 3):
        np.testing.assert_array_equal(again.read(i), files.read(i))


def damaged_npz(path):
    np.savez(path.with_suffix(".npz"), a=np.zeros(3))
    path.with_suffix(".npz").replace(path)


def huge_header(path):
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        damaged_npz,
        huge_header,
        lambda path: np.save(path, np.load(path).astype(np.float64)),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["empty", "npz", "huge", "f64", "cut", "folder"],
)
def test_a_hostile_disk_cache_is_not_trusted(files, damage, capsys):
    first = DiskCache(files)
    damage(first.path(0))
    np.testing.assert_array_equal(first.read(0), files.read(0))
    if first.path(0).is_dir():
        with pytest.raises(UserError, match="a folder has that name"):
            DiskCache(files)
        return
    capsys.readouterr()
    np.testing.assert_array_equal(np.load(DiskCache(files).path(0)), files.read(0))
    assert f"{first.path(0)} is damaged and is made anew" in capsys.readouterr().out


def test_no_room_means_no_cache_and_says_so(files, monkeypatch, capsys):
    monkeypatch.setattr(cache, "available_memory", lambda: 1000)
    assert cached(files, "ram", "train: ") is files
    assert "train: images are not cached in RAM: they need 0.0 GiB, 0.0 GiB are available" in capsys.readouterr().err
    monkeypatch.setattr(cache, "available_memory", lambda: None)
    assert isinstance(cached(files, "ram"), RamCache)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert cached(files, "disk") is files
    assert "not cached on disk" in capsys.readouterr().err


def test_a_broken_image_is_named_while_caching(files):
    with open(files.index.path(1), "wb") as file:
        file.write(b"nothing")
    for kind in ("ram", "disk"):
        with pytest.raises(UserError, match=r"001\.png"):
            cached(files, kind)


def test_a_folder_that_cannot_be_written_is_named(files, tmp_path):
    DiskCache(files).path(0).unlink()
    folder = tmp_path / DiskCache(files).path(0).parent.name
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(UserError, match=r"cannot cache images in .*leave out --cache"):
        DiskCache(files)


def test_an_unknown_kind_is_refused(files):
    with pytest.raises(UserError, match="--cache takes ram or disk, not 'tape'"):
        cached(files, "tape")


# --- several processes ------------------------------------------------------------------------------------------------


class Reads:
    """Counts what is decoded."""

    def __init__(self, files):
        self.files, self.seen = files, []

    def __getattr__(self, name):
        return getattr(self.files, name)

    def read(self, i):
        self.seen.append(i)
        return self.files.read(i)


def two_processes(monkeypatch, work):
    """`work()` in this process (0) and in a forked one (1), whose `machine_gather` exchange values; both results."""
    here, there = socket.socketpair()
    child = os.fork()
    me, connection = (1, there) if child == 0 else (0, here)
    reader, writer = connection.makefile("r"), connection.makefile("w")

    def gather(value):
        writer.write(json.dumps(value) + "\n")
        writer.flush()
        other = json.loads(reader.readline())
        return [other, value] if me else [value, other]

    for module in (cache, distributed):  # the second is imported where it is needed
        monkeypatch.setattr(module, "machine_gather", gather)
        monkeypatch.setattr(module, "rank", lambda: me)
    monkeypatch.setattr(cache, "barrier", lambda: gather(None))
    (here if me else there).close()  # so that each learns of the other's end
    try:
        results = gather(work())
    finally:
        if child == 0:
            os._exit(0)
    os.waitpid(child, 0)
    return results


needs_sharing = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's")


@needs_sharing
def test_processes_of_a_machine_fill_one_cache(files, monkeypatch):
    counted = Reads(files)

    def work():
        found = cached(counted, "ram", shared=True)
        seen = sorted(counted.seen)
        same = all((found.read(i) == files.read(i)).all() for i in range(4))
        return [seen, bool(same), type(found._bytes).__name__]

    assert two_processes(monkeypatch, work) == [[[0, 2], True, "MachineBytes"], [[1, 3], True, "MachineBytes"]]


@needs_sharing
def test_memory_shared_by_a_machine_has_no_name_and_reaches_spawned_workers():
    block = memory.machine_bytes(1000)
    block.array[:] = 7
    other = memory.MachineBytes(*block.__getstate__())
    other.array[3] = 9
    assert block.array[:5].tolist() == [7, 7, 7, 9, 7]
    with pytest.raises(OSError, match="another file"):
        memory.MachineBytes(block.__getstate__()[0], 999)
    assert memory.machine_bytes(0) is None


@pytest.mark.parametrize(("room", "kind"), [(2.5, "RamCache"), (1.5, "ImageFiles")])
def test_where_memory_cannot_be_shared_there_must_be_room_for_all(files, monkeypatch, room, kind):
    """As on other systems; each process then has its own."""
    needed = int(files.stored.prod(1).sum()) * 3
    monkeypatch.setattr(cache, "available_memory", lambda: int(room * needed))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert two_processes(monkeypatch, lambda: type(cached(files, "ram", shared=True)).__name__) == [kind, kind]


def test_too_little_memory_for_one_copy_means_none(files, monkeypatch, capsys):
    monkeypatch.setattr(cache, "available_memory", lambda: 1000)
    work = lambda: type(cached(files, "ram", "train: ", shared=True)).__name__  # noqa: E731
    assert two_processes(monkeypatch, work) == ["ImageFiles", "ImageFiles"]
    assert capsys.readouterr().err.count("not cached in RAM") == 1  # of this process; the other has its own


def test_processes_share_the_work_of_a_disk_cache(files, monkeypatch):
    counted = Reads(files)

    def work():
        found = cached(counted, "disk", shared=True)
        return [sorted(counted.seen), all(found.path(i).is_file() for i in range(4))]

    assert two_processes(monkeypatch, work) == [[[0, 2], True], [[1, 3], True]]
