"""The network as it is exported, before any toolchain: against the model itself, torchvision and hand arithmetic."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from engine.export.network import ExportNetwork, activation_of
from engine.export.suppression import select_by_loop
from models.export_metadata import ExportMetadata
from tests.engine.export.samples import (
    LAYOUTS,
    SIZE,
    answer,
    assert_close,
    fused,
    lively,
    metadata_for,
    noise,
    threshold_for,
)


def network(model: Any, metadata: ExportMetadata) -> ExportNetwork:
    return ExportNetwork(model, metadata, select_by_loop)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_layouts(model: Any, layout: str, dynamic: bool) -> None:
    images = noise(3)
    chosen = {"conf_thres": threshold_for(model, images, 60)} if layout == "nms" else {}
    metadata = metadata_for(model, layout, dynamic=dynamic, **chosen)
    expected = answer(model, images, metadata)
    assert_close(network(model, metadata)(images), expected)
    if layout == "nms":
        assert 3 < expected[1].min() < expected[1].max() < 60, "some suppressed, some not"
    if dynamic:
        images = noise(2, (32, 160))
        assert_close(network(model, metadata)(images), answer(model, images, metadata))


def test_the_weights_are_shared_and_the_model_stays_as_it_was(model: Any) -> None:
    before = copy.deepcopy(model.state_dict())
    made = network(model, metadata_for(model))
    made(noise(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {p.data_ptr() for p in made.parameters()} == {p.data_ptr() for p in model.parameters()}


def test_one_cell_by_hand() -> None:
    """A head that answers with constants: σ(0) = 1/2, so a centre lies mid-cell and a box has its anchor's size."""
    model = fused()
    for conv in model.head.m:
        conv.weight.zero_()
        conv.bias.zero_()
    boxes, scores = network(model, metadata_for(model, "separate"))(noise(1))
    h, w = SIZE
    cells, coarse = (h // 4) * (w // 4), (h // 8) * (w // 8)
    assert boxes.shape == (1, 2 * (cells + coarse), 4)
    assert boxes[0, 0].tolist() == [2, 2, 10, 13]  # the first cell of stride 4, first anchor
    assert boxes[0, w // 4 + 2].tolist() == [10, 6, 10, 13]  # second row, third column
    assert boxes[0, cells].tolist() == [2, 2, 16, 30]  # second anchor
    assert boxes[0, 2 * cells].tolist() == [4, 4, 30, 61]  # stride 8
    assert boxes[0, -1].tolist() == [w - 4, h - 4, 62, 45]
    assert scores.unique().tolist() == [0.25]


def test_half_precision_weights_keep_exact_anchors_and_decode_in_float32() -> None:
    """An anchor that half precision cannot hold, as AutoAnchor finds them."""
    model = lively().requires_grad_(False)
    model.head.anchors[0, 0, 0] = 37.3 / 4
    metadata = metadata_for(model.fuse(), "separate", half=True)
    assert metadata.anchors[0][0][0] == 37.3
    for conv in model.head.m:
        conv.weight.zero_()
        conv.bias.zero_()
    boxes, scores = network(copy.deepcopy(model).half(), metadata)(noise(1).half())
    assert (boxes.dtype, scores.dtype) == (torch.float32, torch.float32)
    assert boxes[0, 0].tolist() == pytest.approx([2, 2, 37.3, 13], abs=1e-4)


def test_raw_maps_of_half_precision_stay_half_precision() -> None:
    model = lively().fuse()
    metadata = metadata_for(model, "raw", half=True)
    assert {y.dtype for y in network(copy.deepcopy(model).half(), metadata)(noise(1).half())} == {torch.float16}


def test_one_class() -> None:
    model = fused(nc=1)
    images = noise(2)
    metadata = metadata_for(model, "nms", conf_thres=threshold_for(model, images, 30))
    assert_close(network(model, metadata)(images), answer(model, images, metadata))


def test_names_of_activations() -> None:
    assert activation_of(lively()) == "SiLU+ReLU6"  # C3 and Conv say more often SiLU than the block ReLU6
    assert activation_of(torch.nn.Conv2d(3, 3, 1)) == "Identity"
    assert activation_of(torch.nn.Sequential(torch.nn.Sigmoid(), torch.nn.Hardswish())) == "Hardswish"


def test_the_metadata_of_a_network() -> None:
    model = lively("Segment").fuse()
    metadata = metadata_for(model)
    assert (metadata.task, metadata.nm, metadata.strides, metadata.activation) == ("segment", 4, [4, 8], "SiLU+ReLU6")
    assert metadata.anchors == [[[10, 13], [16, 30]], [[30, 61], [62, 45]]]
    assert metadata.names == {0: "0", 1: "1", 2: "2"}
    assert metadata.outputs == ("output0", "output1")
