from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.ops.boxes import scale_boxes
from utils.ops.letterbox import fit_sizes, letterbox, letterbox_chw


def test_reference_figures(golden: Path) -> None:
    file = np.load(golden / "letterbox.npz")
    assert len(file["rows"]) == 15
    for row in file["rows"]:
        case = dict(zip(file["columns"].tolist(), row, strict=True))
        original = int(case["h0"]), int(case["w0"])
        image, ratio, pad = letterbox(
            np.zeros((*original, 3), np.uint8), int(case["new_shape"]),
            auto=bool(case["auto"]), scaleup=bool(case["scaleup"]),
        )  # fmt: skip
        box = scale_boxes(image.shape[:2], np.array([[10.0, 20.0, 60.0, 90.0]]), original)
        found = [*image.shape[:2], *ratio, *pad, *box[0]]
        np.testing.assert_allclose(found, row[5:], rtol=1e-4, atol=1e-5, err_msg=str(case))


def test_content_and_border() -> None:
    image, ratio, pad = letterbox(np.full((50, 101, 3), 7, np.uint8), (200, 101), auto=False, color=(1, 2, 3))
    assert image.shape == (200, 101, 3)
    assert ratio == (1, 1)
    assert pad == (0, 75)
    assert (image[75:125] == 7).all()
    assert (image[:75] == (1, 2, 3)).all()
    assert (image[125:] == (1, 2, 3)).all()


def test_the_odd_pixel_goes_below() -> None:
    image, _, pad = letterbox(np.zeros((50, 101, 3), np.uint8), (101, 101), auto=False)
    assert pad == (0, 25.5)
    assert (image[25:75] == 0).all()
    assert (image[:25] == 114).all()
    assert (image[75:] == 114).all()


def test_stretch() -> None:
    image, ratio, pad = letterbox(np.zeros((50, 100, 3), np.uint8), (200, 300), auto=False, scaleFill=True)
    assert image.shape == (200, 300, 3)
    assert ratio == (3, 4)
    assert pad == (0, 0)


@pytest.mark.parametrize("stride", [32, 64])
def test_smallest_rectangle_is_a_multiple_of_the_stride(stride: int) -> None:
    image, *_ = letterbox(np.zeros((427, 640, 3), np.uint8), 640, stride=stride)
    assert image.shape == (448, 640, 3)


def test_an_image_that_fits_is_not_copied() -> None:
    original = np.zeros((64, 64, 3), np.uint8)
    assert letterbox(original, 64).image is original


@pytest.mark.parametrize("shape", [(10000, 1), (1, 10000), (10, 20000), (65000, 10)])
@pytest.mark.parametrize("auto", [False, True])
def test_at_least_one_pixel_remains(shape: tuple[int, int], auto: bool) -> None:
    image = letterbox(np.zeros((*shape, 3), np.uint8), 64, auto=auto).image
    assert max(image.shape[:2]) == 64
    assert (image == 0).any(), "something of the picture is left"


@pytest.mark.parametrize(
    ("shape", "size", "fitted"),
    [
        ((480, 640), (640, 640), (480, 640)),
        ((1080, 810), (640, 640), (640, 480)),
        ((500, 333), (640, 640), (640, 427)),  # 426.24 counts as 427
        ((375, 500), (640, 640), (480, 640)),  # 500 * (640 / 500) is 640.0000000000001 or so: not 641
        ((100, 100), (320, 640), (320, 320)),
        ((10, 1000), (64, 64), (1, 64)),
    ],
)
def test_fitted_sizes(shape, size, fitted):
    assert tuple(fit_sizes(np.array([shape], np.int32), size)[0]) == fitted


def test_fitted_sizes_touch_the_frame_and_never_exceed_it():
    shapes = np.random.default_rng(0).integers(10, 3000, (5000, 2)).astype(np.int32)
    for size in ((640, 640), (384, 672)):
        fitted = fit_sizes(shapes, size)
        assert (fitted <= size).all()
        assert (fitted == size).any(1).all()


def test_network_input_is_rgb_channels_first_letterboxed() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[:, :80, 2] = 255
    im = letterbox_chw(image, 64, 32, auto=True)
    assert im.shape == (3, 64, 64)  # 64x36 content, bordered to the next multiple of 32
    assert im.flags.c_contiguous
    assert im[:, 32, 5].tolist() == [255, 0, 0]
    assert im[:, 32, 60].tolist() == [0, 0, 0]
    assert im[:, 2, 5].tolist() == [114, 114, 114]
    assert letterbox_chw(image, (64, 128), 32, auto=True).shape == (3, 64, 128)
    assert letterbox_chw(image, 96, 32, auto=True).shape == (3, 64, 96)
    assert letterbox_chw(image, 96, 32, auto=False).shape == (3, 96, 96)
