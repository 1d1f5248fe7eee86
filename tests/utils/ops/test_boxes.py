from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.ops import boxes as B

KINDS = (np.asarray, torch.tensor)


@pytest.mark.parametrize("kind", KINDS)
def test_formats_by_hand(kind) -> None:
    corners = kind([[10.0, 20.0, 30.0, 60.0, 0.9]])
    centred = B.xyxy2xywh(corners)
    assert centred.tolist() == [[20.0, 40.0, 20.0, 40.0, pytest.approx(0.9)]]
    assert B.xywh2xyxy(centred).tolist() == corners.tolist()
    assert corners.tolist()[0][:4] == [10.0, 20.0, 30.0, 60.0], "the argument is left alone"
    assert type(centred) is type(corners)


@pytest.mark.parametrize("kind", KINDS)
def test_normalised_formats_by_hand(kind) -> None:
    normalised = kind([[0.5, 0.25, 0.2, 0.1]])
    corners = B.xywhn2xyxy(normalised, w=100, h=200, padw=3, padh=7)
    np.testing.assert_allclose(corners, [[43, 47, 63, 67]], rtol=1e-6)
    np.testing.assert_allclose(B.xyxy2xywhn(corners - kind([[3.0, 7, 3, 7]]), 100, 200), normalised, rtol=1e-6)
    np.testing.assert_allclose(B.xyn2xy(kind([[0.5, 0.25]]), 100, 200, 3, 7), [[53, 57]], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_clip_on_the_way_to_normalised(kind) -> None:
    corners = kind([[-10.0, 20.0, 50.0, 300.0]])
    np.testing.assert_allclose(B.xyxy2xywhn(corners, 100, 200, clip=True), [[0.25, 0.55, 0.5, 0.9]], rtol=1e-6)
    assert corners.tolist() == [[-10.0, 20.0, 50.0, 300.0]], "the argument is left alone"


@pytest.mark.parametrize("kind", KINDS)
def test_scale_boxes_undoes_a_placement_in_place(kind) -> None:
    original = np.array([[10.0, 20.0, 300.0, 200.0], [0.0, 0.0, 400.0, 250.0]])
    ratio, pad = (0.8, 0.75), (11.5, 4.0)  # height, width; x, y
    placed = kind(original * [0.75, 0.8, 0.75, 0.8] + [11.5, 4.0, 11.5, 4.0])
    answer = B.scale_boxes((640, 640), placed, (250, 400), (ratio, pad))
    assert answer is placed
    np.testing.assert_allclose(answer, original, rtol=1e-6, atol=1e-4)


def test_scale_boxes_cuts_to_the_image() -> None:
    box = torch.tensor([[-50.0, -50.0, 900.0, 900.0]])
    assert B.scale_boxes((640, 640), box, (320, 640, 3)).tolist() == [[0, 0, 640, 320]]


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes(kind) -> None:
    empty = kind(np.zeros((0, 4), np.float32))
    for function in (B.xyxy2xywh, B.xywh2xyxy, B.xywhn2xyxy, B.xyxy2xywhn):
        assert function(empty).shape == (0, 4)
    assert B.scale_boxes((640, 640), empty, (480, 640)).shape == (0, 4)
