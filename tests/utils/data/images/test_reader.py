from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from tests.utils.data.pictures import texture
from utils.data.images.reader import RecentImages, read_for_training, read_for_validation, read_reduced, shrink
from utils.errors import UserError


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / "ü.jpg"  # a name that some systems' cv2.imread cannot open
    path.write_bytes(cv2.imencode(".jpg", texture(480, 640, 1), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return str(path)


def area(image, size):
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def test_reads_any_name(jpeg):
    assert np.abs(read_reduced(jpeg).astype(int) - texture(480, 640, 1)).mean() < 2


@pytest.mark.parametrize("size", [(480, 640), (360, 480), (240, 320), (180, 240), (120, 160), (60, 80), (40, 54)])
def test_training_images_are_shrunk_without_aliasing(jpeg, size):
    found = read_for_training(jpeg, (480, 640), size)
    assert found.shape == (*size, 3)
    assert np.abs(found.astype(int) - area(read_reduced(jpeg), size)).mean() < 3


def test_training_images_are_never_enlarged(jpeg):
    np.testing.assert_array_equal(read_for_training(jpeg, (480, 640), (960, 1280)), read_reduced(jpeg))


def test_large_jpegs_are_decoded_at_reduced_scale(jpeg, monkeypatch):
    asked = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flag: asked.append(flag) or decode(data, flag))
    for size in ((480, 640), (241, 321), (240, 320), (121, 161), (120, 160), (60, 80)):
        read_for_training(jpeg, (480, 640), size)
    half, quarter, eighth = cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8
    assert asked == [cv2.IMREAD_COLOR, cv2.IMREAD_COLOR, half, half, quarter, eighth]


def test_one_pixel_stripes_of_a_png_become_grey(tmp_path):
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    cv2.imwrite(str(tmp_path / "a.png"), stripes)
    found = read_for_training(str(tmp_path / "a.png"), (400, 400), (70, 70))
    assert np.abs(found.astype(int) - 127.5).max() < 2


@pytest.mark.parametrize(
    ("size", "interpolation"), [((240, 320), cv2.INTER_AREA), ((960, 1280), cv2.INTER_LINEAR), ((480, 640), None)]
)
def test_validation_images_are_resampled_as_in_yolov5(jpeg, size, interpolation):
    full = cv2.imdecode(np.fromfile(jpeg, np.uint8), cv2.IMREAD_COLOR)
    expected = full if interpolation is None else cv2.resize(full, size[::-1], interpolation=interpolation)
    np.testing.assert_array_equal(read_for_validation(jpeg, (480, 640), size), expected)


def test_orientation_is_applied_at_every_scale(tmp_path):
    """An EXIF block that says: turn by 90 degrees. The file's 640 columns become rows."""
    data = cv2.imencode(".jpg", texture(480, 640, 2))[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    block = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:])
    assert read_reduced(str(path)).shape == (640, 480, 3)
    assert read_for_training(str(path), (640, 480), (320, 240)).shape == (320, 240, 3)
    assert read_for_validation(str(path), (640, 480), (320, 240)).shape == (320, 240, 3)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_broken_image_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    for read in (read_for_training, read_for_validation):
        with pytest.raises(UserError, match=r"cannot decode image '.*broken\.jpg'"):
            read(str(path), (10, 10), (10, 10))


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read image '.*gone\.jpg': No such file"):
        read_reduced(str(tmp_path / "gone.jpg"))


def test_an_image_that_changed_is_named(jpeg):
    for read in (read_for_training, read_for_validation):
        with pytest.raises(UserError, match=r"is 640x480 pixels, but was 640x500 when it was indexed"):
            read(jpeg, (500, 640), (500, 640))


def test_shrink_to_the_same_size_is_no_work():
    image = texture(20, 20, 0)
    assert shrink(image, (20, 20)) is image


# --- recent images ----------------------------------------------------------------------------------------------------


class Numbers:
    """Image i is ten bytes of i."""

    def __init__(self):
        self.asked = []

    def read(self, i):
        self.asked.append(i)
        return np.full(10, i, np.uint8)


def test_keeps_the_last_images_within_its_bytes():
    source = Numbers()
    recent = RecentImages(source, max_bytes=30)
    for i in (1, 2, 3, 1, 2, 3):
        assert recent.read(i)[0] == i
    assert source.asked == [1, 2, 3]
    recent.read(4)
    assert recent.nbytes == 30
    recent.read(2), recent.read(1)  # 1 was the oldest
    assert source.asked == [1, 2, 3, 4, 1]


def test_a_refreshed_image_leaves_last():
    source = Numbers()
    recent = RecentImages(source, max_bytes=30)
    for i in (1, 2, 3):
        recent.read(i)
    recent.refresh(1), recent.refresh(99)
    recent.read(4), recent.read(1)
    assert source.asked == [1, 2, 3, 4]


def test_holds_one_image_however_large():
    recent = RecentImages(Numbers(), max_bytes=3)
    assert recent.read(5)[0] == recent.read(5)[0] == 5
    assert recent.reads == 1


def test_a_spawned_worker_starts_empty():
    recent = RecentImages(Numbers(), max_bytes=30)
    recent.read(1)
    copy = pickle.loads(pickle.dumps(recent))
    assert (copy.nbytes, copy.read(1)[0], copy.reads) == (0, 1, 2)
