from __future__ import annotations

import numpy as np
import pytest

from utils.data.sampling import BatchPlan


def plan(count=100, batch_size=8, **options):
    return BatchPlan(lambda: np.arange(count), batch_size, **options)


def images(batches):
    return [request.image for batch in batches for request in batch]


def epoch(made, number):
    made.epoch = number
    return list(made)


def test_in_order_without_shuffling():
    made = plan(10, 4)
    assert [[t.image for t in batch] for batch in made] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(made) == 3
    assert len(plan(10, 4, drop_last=True)) == len(list(plan(10, 4, drop_last=True))) == 2


def test_every_epoch_has_every_image_once_in_a_new_order():
    made = plan(shuffle=True)
    orders = [images(epoch(made, e)) for e in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_function_of_seed_and_epoch_only():
    one, two = (plan(shuffle=True, mosaic_pool=20, workers=2) for _ in range(2))
    list(one), epoch(one, 1)  # what went before does not matter
    assert epoch(one, 2) == epoch(two, 2)
    assert epoch(one, 2) != epoch(plan(shuffle=True, mosaic_pool=20, workers=2, seed=1), 2)


def test_keys_are_never_used_twice():
    made = plan(shuffle=True)
    keys = [t.key for e in range(3) for batch in epoch(made, e) for t in batch]
    ranks = [t.key for r in (0, 1) for batch in plan(rank=r, world=2) for t in batch]
    assert len(set(keys)) == len(keys) == 300
    assert len(set(ranks)) == len(ranks)


@pytest.mark.parametrize("count", [96, 97, 100, 5])
def test_ranks_share_the_epoch_in_equal_steps(count):
    shares = [list(plan(count, 8, shuffle=True, rank=r, world=3)) for r in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(batch) == 8 for share in shares for batch in share)
    assert {i for share in shares for i in images(share)} == set(range(count))
    assert len(shares[0]) == len(plan(count, 8, rank=0, world=3)) == -(-count // 24)


@pytest.mark.parametrize("count", [96, 97, 100, 5])
def test_uneven_ranks_share_each_image_once(count):
    plans = [plan(count, 8, rank=r, world=3, even=False) for r in range(3)]
    shares = [list(each) for each in plans]
    assert [len(each) for each in plans] == [len(share) for share in shares]
    assert sorted(i for share in shares for i in images(share)) == list(range(count))
    alone = [images([batch]) for batch in plan(count, 8)]
    assert [[images([batch]) for batch in share] for share in shares] == [alone[r::3] for r in range(3)]


def test_order_is_asked_for_each_epoch():
    order = np.arange(10)
    made = BatchPlan(lambda: order, 5)
    order[:] = 3
    assert images(made) == [3] * 10


def test_mosaics_are_of_recent_images_of_the_same_worker():
    made = plan(200, 8, shuffle=True, mosaic_pool=16, workers=3)
    previous, current = epoch(made, 4), epoch(made, 5)
    distances = set()
    for worker in range(3):
        line = images(previous[worker::3])
        for batch in current[worker::3]:
            for request in batch:
                assert len(request.mosaic_indices) == 7
                assert set(request.mosaic_indices) <= set(line[-16:])
                distances |= {line[::-1].index(other) + 1 for other in request.mosaic_indices}
                line.append(request.image)
    assert distances == set(range(1, 17))


def test_mosaics_are_of_all_images_where_all_are_at_hand():
    made = plan(50, 10, shuffle=True, mosaic_pool=50)
    first = [set(t.mosaic_indices) for t in epoch(made, 0)[0]]
    assert len(set().union(*first)) > 25


@pytest.mark.parametrize(("mosaic_pool", "workers"), [(12, 1), (25, 2), (1000, 1)])
def test_every_image_is_drawn_equally_often(mosaic_pool, workers):
    """As in YOLOv5: uniform. Three of a mosaic and four of a second one, over 200 epochs of 60 images."""
    made = plan(60, 6, shuffle=True, mosaic_pool=mosaic_pool, workers=workers)
    drawn = np.array([t.mosaic_indices for e in range(200) for batch in epoch(made, e) for t in batch])
    counts = np.bincount(drawn.ravel(), minlength=60)
    assert counts.sum() == 200 * 60 * 7
    assert np.abs(counts / (200 * 7) - 1).max() < 0.15
    meetings = np.zeros((60, 60))
    for e in range(200):
        for batch in epoch(made, e):
            for request in batch:
                meetings[request.image, list(request.mosaic_indices)] += 1
    np.fill_diagonal(meetings, np.nan)
    assert np.nanmin(meetings) > 0  # anyone meets anyone
    assert np.nanstd(meetings) / np.nanmean(meetings) < 0.35


def test_no_mosaic_indices_without_mosaic():
    assert {t.mosaic_indices for batch in plan() for t in batch} == {()}


def test_fewer_batches_than_workers():
    assert len(list(plan(5, 4, shuffle=True, mosaic_pool=3, workers=8))) == 2
