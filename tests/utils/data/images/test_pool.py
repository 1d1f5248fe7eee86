from __future__ import annotations

import pickle

import numpy as np

from utils.data.images.pool import Pool


class Numbers:
    """Image i is ten bytes of i."""

    def __init__(self):
        self.asked = []

    def read(self, i):
        self.asked.append(i)
        return np.full(10, i, np.uint8)


def test_keeps_the_last_images_within_its_bytes():
    source = Numbers()
    pool = Pool(source, max_bytes=30)
    for i in (1, 2, 3, 1, 2, 3):
        assert pool.read(i)[0] == i
    assert source.asked == [1, 2, 3]
    pool.read(4)
    assert pool.nbytes == 30
    pool.read(2), pool.read(1)  # 1 was the oldest
    assert source.asked == [1, 2, 3, 4, 1]


def test_a_refreshed_image_leaves_last():
    source = Numbers()
    pool = Pool(source, max_bytes=30)
    for i in (1, 2, 3):
        pool.read(i)
    pool.refresh(1), pool.refresh(99)
    pool.read(4), pool.read(1)
    assert source.asked == [1, 2, 3, 4]


def test_holds_one_image_however_large():
    pool = Pool(Numbers(), max_bytes=3)
    assert pool.read(5)[0] == pool.read(5)[0] == 5
    assert pool.reads == 1


def test_a_spawned_worker_starts_empty():
    pool = Pool(Numbers(), max_bytes=30)
    pool.read(1)
    copy = pickle.loads(pickle.dumps(pool))
    assert (copy.nbytes, copy.read(1)[0], copy.reads) == (0, 1, 2)
