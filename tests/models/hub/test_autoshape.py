"""Pictures in, boxes out: the geometry by hand, the network a stub or a tiny one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from models.common import AutoShape as Listed
from models.hub import AutoShape
from models.loading import load_model
from utils.errors import UserError


class Stub(nn.Module):
    """Sees two overlapping boxes and one apart in every image; remembers what it was given."""

    task = "detect"
    names = {0: "a", 1: "b", 2: "c"}  # noqa: RUF012
    stride = torch.tensor([8.0, 16.0, 32.0])
    # xywh pixels of the input, objectness, three classes
    candidates = (
        (160.0, 160.0, 64.0, 64.0, 1.0, 0.9, 0.6, 0.0),
        (164.0, 160.0, 64.0, 64.0, 1.0, 0.0, 0.8, 0.0),
        (40.0, 160.0, 32.0, 32.0, 1.0, 0.0, 0.0, 0.3),
    )

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.given: list[Tensor] = []
        self.augmented = False

    def forward(self, x: Tensor, augment: bool = False) -> Any:
        self.given.append(x)
        self.augmented = augment
        return torch.tensor(self.candidates).expand(len(x), -1, -1).clone(), None


@pytest.fixture
def stub() -> Stub:
    return Stub()


def test_boxes_are_pixels_of_the_picture(stub: Stub) -> None:
    """200 × 400 fits into 320 at 0.8: 160 × 320, no border; the picture is red, in channel 0."""
    picture = np.zeros((200, 400, 3), np.uint8)
    picture[..., 0] = 255
    found = AutoShape(stub)(picture, size=320)
    (given,) = stub.given
    assert given.shape == (1, 3, 160, 320)
    assert given.mean((0, 2, 3)).tolist() == [1, 0, 0]
    # x 128..192, 132..196, 24..56 and y 128..192, 144..176, all over 0.8; the picture's height is 200
    expected = [[160, 160, 240, 200, 0.9, 0], [165, 160, 245, 200, 0.8, 1], [30, 180, 70, 200, 0.3, 2]]
    assert torch.allclose(found.xyxy[0], torch.tensor(expected, dtype=torch.float32))
    assert found.s == (1, 3, 160, 320)
    assert found.names == Stub.names
    assert all(t > 0 for t in found.t)


def test_attributes_are_what_suppression_gets(stub: Stub) -> None:
    model = AutoShape(stub)
    picture = np.zeros((320, 320, 3), np.uint8)

    def classes(**attributes: Any) -> list[int]:
        for name, value in attributes.items():
            setattr(model, name, value)
        found = model(picture, size=320).pred[0][:, 5].int().tolist()
        for name in attributes:
            delattr(model, name)
        return found

    assert classes() == [0, 1, 2]
    assert classes(conf=0.5) == [0, 1]
    assert classes(agnostic=True) == [0, 2]
    assert classes(agnostic=True, iou=0.95) == [0, 1, 2]  # the two overlap by 60 / 68
    assert classes(multi_label=True, iou=0.95) == [0, 1, 1, 2]
    assert classes(classes=[1, 2]) == [1, 2]
    assert classes(max_det=1) == [0]


def test_size(stub: Stub) -> None:
    model = AutoShape(stub)
    for size, shape in ((640, (480, 640)), (630, (480, 640)), ((320, 640), (320, 448)), ([96, 96], (96, 96))):
        model(np.zeros((300, 400, 3), np.uint8), size=size)
        assert stub.given[-1].shape == (1, 3, *shape)
    assert not stub.augmented
    model(np.zeros((300, 400, 3), np.uint8), augment=True)
    assert stub.augmented
    for size in ((1, 2, 3), 0):
        with pytest.raises(UserError, match="give the longer side in pixels"):
            model(np.zeros((8, 8, 3), np.uint8), size=size)


def test_a_list_goes_through_in_groups_of_one_shape(stub: Stub) -> None:
    """The border of a picture does not depend on its company, and the order of results is that of the list."""
    wide, tall = np.zeros((50, 100, 3), np.uint8), np.full((100, 50, 3), 255, np.uint8)
    found = AutoShape(stub)([wide, tall, *[wide] * 33], size=320)
    assert [tuple(x.shape) for x in stub.given] == [(32, 3, 160, 320), (2, 3, 160, 320), (1, 3, 320, 160)]
    assert found.n == 35
    assert found.s == (35, 3, 320, 320)
    assert found.pred[0].tolist() == found.pred[34].tolist() != found.pred[1].tolist()
    assert found.pred[1][0, :4].tolist() == pytest.approx([40, 40, 50, 60])  # 128..160 and 128..192 over 3.2
    assert AutoShape(stub)([]).n == 0


def test_files_of_one_size_get_that_size(stub: Stub) -> None:
    """An exported file is no PyTorch module with parameters and takes one size, unless it is dynamic."""
    stub.pt, stub.dynamic = False, False  # type: ignore[assignment]
    AutoShape(stub)(np.zeros((50, 100, 3), np.uint8), size=320)
    stub.dynamic = True  # type: ignore[assignment]
    AutoShape(stub)(np.zeros((50, 100, 3), np.uint8), size=320)
    assert [tuple(x.shape[2:]) for x in stub.given] == [(320, 320), (160, 320)]


def test_a_tensor_passes_straight_through(make_weights: Callable[..., Path]) -> None:
    network = load_model(make_weights())
    images = torch.rand(2, 3, 64, 96)
    output = AutoShape(network)(images)
    with torch.no_grad():
        assert torch.equal(output[0], network(images)[0])
    assert output[0].shape == (2, 2 * (16 * 24 + 8 * 12), 7)  # two anchors a cell, strides 4 and 8


def test_kinds_of_input_give_equal_boxes(make_weights: Callable[..., Path], tmp_path: Path) -> None:
    model = AutoShape(load_model(make_weights()))
    model.conf = 0.01
    rgb = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])
    expected = model(rgb, size=64).pred[0]
    assert len(expected) > 1
    expected[:, :4] += 0  # a result may be changed in place
    other = rgb.transpose(1, 0, 2)[:, :20]
    alone = [tmp_path / "a.png", Image.fromarray(rgb), cv2.imread(str(tmp_path / "a.png"))[..., ::-1], [rgb]]
    for given in alone:
        assert torch.equal(model(given, size=64).pred[0], expected)
    together = model([other, *alone[:3]], size=64)
    assert together.files == ["image0.jpg", "a.jpg", "image2.jpg", "image3.jpg"]
    for rows in together.pred[1:]:
        assert torch.allclose(rows, expected, atol=1e-4)  # another batch size may round otherwise


def test_precision_of_the_network_is_that_of_its_input(make_weights: Callable[..., Path]) -> None:
    network = load_model(make_weights()).double()
    found = AutoShape(network)(np.zeros((64, 64, 3), np.uint8), size=64)
    assert found.pred[0].dtype == torch.float32


def test_segmenters_are_refused_by_name(make_weights: Callable[..., Path]) -> None:
    with pytest.raises(
        UserError, match=r"task 'segment'.* run segment/predict.py, or load the network with autoshape=False$"
    ):
        AutoShape(load_model(make_weights(head="Segment")))


def test_the_name_in_common_is_the_same_class() -> None:
    assert Listed is AutoShape
