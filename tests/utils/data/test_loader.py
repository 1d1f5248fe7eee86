from __future__ import annotations

import multiprocessing
import os
import time

import cv2
import numpy as np
import pytest
import torch

from tests.utils.data.pictures import make_index, make_shapes
from utils.data import loader as loader_module
from utils.data.indexing.index import ImageIndex
from utils.data.loader import create_loader
from utils.data.rasterize import MaskFormat
from utils.errors import UserError

SHAPES = [(60, 80), (80, 60), (50, 50), (40, 90)] * 6


@pytest.fixture
def index(tmp_path):
    return make_index(tmp_path, SHAPES)


@pytest.fixture
def _two_cores(monkeypatch):
    monkeypatch.setattr(loader_module, "_cores", lambda: 2)


def train(index, workers=0, **options):
    return create_loader(index, 64, 5, augment=True, shuffle=True, workers=workers, **options)


def same(one, two):
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and a.paths == b.paths
        for a, b in zip(one, two, strict=True)
    )


def test_batches(index):
    loader = train(index)
    batches = list(loader)
    assert len(loader) == len(batches) == 5
    assert [len(b) for b in batches] == [5, 5, 5, 5, 4]
    assert all(b.images.shape[1:] == (3, 64, 64) and b.images.dtype == torch.uint8 for b in batches)
    assert sorted(p for b in batches for p in b.paths) == index.paths
    assert all(b.targets[:, 0].max() < len(b) for b in batches if len(b.targets))
    assert loader.dataset.index is index
    assert loader.batch_size == 5


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize("workers", [0, 2])
def test_seed_and_epoch_decide(index, workers):
    one, two = (train(index, workers, seed=3) for _ in range(2))
    first, second = list(one), list(one)
    assert not same(first, second)  # epochs differ
    assert same(list(two), first)
    assert same(list(two), second)
    fresh = train(index, workers, seed=3)
    fresh.set_epoch(1)  # as after --resume
    assert same(list(fresh), second)
    assert not same(list(train(index, workers, seed=4)), first)


@pytest.mark.usefixtures("_two_cores")
def test_global_generators_are_left_alone(index):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(train(index, 2))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_batches_kept_are_not_overwritten(index, pause):
    """Memory between the processes is used again; what has been handed out must not change, however slow its user."""
    loader = create_loader(index, 64, 2, augment=True, shuffle=True, workers=2)
    for number in range(3):
        kept = []
        for batch in loader:
            kept.append(batch)
            time.sleep(pause)
        loader.plan.epoch = number
        assert same(kept, [loader.dataset.batch(requests) for requests in loader.plan])


@pytest.mark.usefixtures("_two_cores")
def test_an_epoch_broken_off_leaves_nothing_behind(index):
    loader = create_loader(index, 64, 2, augment=True, shuffle=True, workers=2)
    for steps in (1, 3, 12):
        kept = [batch for batch, _ in zip(loader, range(steps), strict=False)]
        loader.plan.epoch = loader.epoch - 1
        expected = [loader.dataset.batch(requests) for requests in loader.plan]
        assert same(kept, expected[:steps])


@pytest.mark.usefixtures("_two_cores")
def test_quads_and_rectangles_travel(index):
    for options in ({"quad": True, "augment": True}, {"rect": True, "pad": 0.5}):
        here, there = (create_loader(index, 64, 6, workers=w, **options) for w in (0, 1))
        assert same(list(there), list(here))


@pytest.mark.usefixtures("_two_cores")
def test_workers_survive_epochs(index):
    loader = train(index, 2)
    list(loader)
    pids = [w.pid for w in loader._batches._iterator._workers]
    next(iter(loader))  # an epoch broken off
    assert len(list(loader)) == 5
    assert [w.pid for w in loader._batches._iterator._workers] == pids
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_ends_it_with_one_line(index, workers):
    with open(index.path(7), "wb") as file:
        file.write(b"nothing")
    with pytest.raises(UserError) as caught:
        list(create_loader(index, 64, 5, workers=workers))
    assert str(caught.value).startswith(f"cannot decode image '{index.path(7)}'")
    assert "Traceback" not in str(caught.value)


@pytest.mark.usefixtures("_two_cores")
def test_a_spawned_worker_gives_the_same(index):
    """Python 3.14 no longer forks by default, and other systems never did."""
    expected = list(train(index, 1))
    default = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert same(list(train(index, 1, cache="ram")), expected)
    finally:
        multiprocessing.set_start_method(default, force=True)


def test_workers_are_capped(index, monkeypatch):
    monkeypatch.setattr(loader_module, "_cores", lambda: 2)
    assert train(index, 64).num_workers == 2
    assert create_loader(index, 64, 30, workers=64).num_workers == 1  # of one batch
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(loader_module, "_cores", lambda: 3)
    assert train(index, 64, rank=0).num_workers == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # four machines
    assert train(index, 64, rank=0).num_workers == 2


def test_importing_and_making_a_loader_leave_opencv_alone(index):
    before = cv2.getNumThreads()
    list(train(index))
    assert cv2.getNumThreads() == before


def test_ranks_share_the_images(index, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = [list(train(index, rank=r)) for r in (0, 1)]
    assert [len(b) for b in shares[0]] == [len(b) for b in shares[1]] == [5, 5, 5]
    assert {p for share in shares for b in share for p in b.paths} == set(index.paths)


def test_validation_rectangles(index):
    loader = create_loader(index, 64, 8, rect=True, pad=0.5, shuffle=True)
    shapes = [tuple(b.images.shape[2:]) for b in loader]
    assert shapes == [tuple(s) for s in loader.dataset.batch_shapes]
    assert len(set(shapes)) > 1
    order = [p for b in loader for p in b.paths]
    assert order == loader.dataset.index.paths  # not shuffled
    assert all(placement is not None for b in loader for placement in b.shapes)


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize(("workers", "count"), [(0, 10), (1, 10), (0, 24)])
def test_rectangles_of_several_processes_hold_their_images(tmp_path, monkeypatch, workers, count):
    """Batches that are filled up with the first images have the rectangle that all their images need."""
    index = make_index(tmp_path, [(30 + 7 * i, 300 - 7 * i) for i in range(count)], texture_of=white)
    monkeypatch.setenv("WORLD_SIZE", "2")
    hyp = "hyp.no-augmentation.yaml"
    loaders = [
        create_loader(index, 96, 4, rect=True, augment=True, hyp=hyp, workers=workers, rank=rank) for rank in (0, 1)
    ]
    shares = [list(loader) for loader in loaders]
    assert len(shares[0]) == len(shares[1]) == -(-count // 8)
    assert {path for share in shares for batch in share for path in batch.paths} == set(index.paths)
    for batch in (batch for share in shares for batch in share):
        sizes = [index.shapes[index.paths.index(path)] for path in batch.paths]
        for image, (height, width) in zip(batch.images, sizes, strict=True):
            expected = np.array([height, width]) * min(96 / height, 96 / width, 1)
            found = [int((image[0] > 200).any(axis).sum()) for axis in (1, 0)]
            assert np.abs(found - expected).max() <= 2, (found, expected)


def white(height, width, seed):
    return np.full((height, width, 3), 255, np.uint8)


def test_several_processes_validate_each_image_once(index, monkeypatch):
    options = {"rect": True, "pad": 0.5}
    alone = list(create_loader(index, 64, 5, workers=0, **options))
    monkeypatch.setenv("WORLD_SIZE", "2")
    loaders = [create_loader(index, 64, 5, workers=0, rank=rank, **options) for rank in (0, 1)]
    shares = [list(loader) for loader in loaders]
    assert [len(loader) for loader in loaders] == [3, 2]
    assert all(same(share, alone[rank::2]) for rank, share in enumerate(shares))


def test_image_weights_choose_the_images(index):
    loader = train(index, image_weights=True)
    loader.dataset.indices = np.full(len(index), 2)
    assert {p for b in loader for p in b.paths} == {index.path(2)}


def test_single_class(index):
    assert all((b.targets[:, 1] == 0).all() for b in train(index, single_cls=True))


def test_quads_are_a_quarter_as_many_of_twice_the_side(index):
    batches = list(create_loader(index, 64, 8, augment=True, quad=True, shuffle=True, workers=0))
    assert [tuple(b.images.shape) for b in batches] == [(2, 3, 128, 128)] * 3
    assert all(len(b.paths) == 2 for b in batches)


def test_drop_last_keeps_at_least_one_batch(index):
    assert [len(b) for b in train(index, drop_last=True)] == [5] * 4
    few = index.select([0, 1, 2])
    assert [len(b) for b in train(few, drop_last=True)] == [3]


def test_folders_are_indexed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"images/{i}.jpg"), np.full((40, 60, 3), 90, np.uint8))
        (tmp_path / f"labels/{i}.txt").write_text(f"{i} 0.5 0.5 0.2 0.4\n")
    for source in (tmp_path / "images", [str(tmp_path / "images")]):
        loader = create_loader(source, 64, 2, nc=3, workers=0)
        assert isinstance(loader.dataset.index, ImageIndex)
        assert sorted(t for b in loader for t in b.targets[:, 1].tolist()) == [0, 1, 2]
    with pytest.raises(UserError, match="class 2"):
        create_loader(tmp_path / "images", 64, 2, nc=2)


def test_a_batch_of_nothing_is_refused(index):
    with pytest.raises(UserError, match="--batch-size must be at least 1, not 0"):
        create_loader(index, 64, 0)


# --- masks ------------------------------------------------------------------------------------------------------------


def same_masks(one, two):
    return same(one, two) and all(torch.equal(a.masks, b.masks) for a, b in zip(one, two, strict=True))


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize("overlap", [True, False])
def test_masks_are_the_same_from_workers_and_caches(tmp_path, overlap):
    index = make_shapes(tmp_path, SHAPES)
    options = {"masks": MaskFormat(2, overlap), "hyp": {"copy_paste": 0.5}}
    here = list(train(index, 1, seed=5, **options))
    loader = create_loader(index, 64, 5, augment=True, shuffle=True, workers=0, seed=5, **options)
    assert same_masks(list(loader), here)
    for cache in ("ram", "disk"):
        assert same_masks(list(train(index, 1, seed=5, cache=cache, **options)), here)
    assert all(b.masks.shape == ((len(b) if overlap else len(b.targets)), 32, 32) for b in here)
    assert all(b.masks.any() for b in here)
    for batch in train(index, 2, seed=5, quad=True, **options):
        assert batch.masks.shape[1:] == (64, 64)
        assert [len(stack) for stack in batch.mask_stacks(overlap)] == torch.bincount(
            batch.targets[:, 0].long(), minlength=len(batch)
        ).tolist()


@pytest.mark.usefixtures("_two_cores")
def test_outlines_for_validation_come_from_workers_too(tmp_path):
    index = make_shapes(tmp_path, SHAPES)
    here, there = (
        list(create_loader(index, 64, 6, rect=True, pad=0.5, workers=workers, masks=MaskFormat(4)))
        for workers in (0, 2)
    )
    assert same_masks(here, there)
    for one, other in zip(here, there, strict=True):
        assert len(one.polygons) == len(other.polygons) == len(one.targets)
        assert all((a == b).all() for a, b in zip(one.polygons, other.polygons, strict=True))


def test_masks_with_single_class_and_image_weights(tmp_path):
    index = make_shapes(tmp_path, SHAPES)
    plain = list(create_loader(index, 64, 5, workers=0, masks=MaskFormat()))
    single = list(create_loader(index, 64, 5, workers=0, masks=MaskFormat(), single_cls=True))
    assert {c for b in plain for c in b.targets[:, 1].tolist()} == {0, 1, 2, 3}
    assert all((b.targets[:, 1] == 0).all() for b in single)
    assert all(torch.equal(a.masks, b.masks) for a, b in zip(plain, single, strict=True))
    weighted = train(index, masks=MaskFormat(), image_weights=True)
    weighted.dataset.indices = np.full(len(index), 1)
    assert all(len(b.masks) == len(b) and b.masks.any() for b in weighted)


def test_masks_read_outlines_from_files_with_boxes_and_polygons(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.full((64, 64, 3), 90, np.uint8))
    (tmp_path / "labels/a.txt").write_text("1 0.75 0.25 0.25 0.25\n0 0 0 0.5 0 0 0.5\n")
    batch = next(iter(create_loader(tmp_path / "images", 64, 1, workers=0, nc=2, masks=MaskFormat(8))))
    assert batch.targets[:, 1].tolist() == [1, 0]
    assert batch.masks[0, :5].tolist() == [
        [2, 2, 2, 0, 0, 0, 0, 0],
        [2, 2, 0, 0, 0, 1, 1, 0],
        [2, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
