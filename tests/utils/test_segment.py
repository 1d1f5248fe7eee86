"""The façades of `utils.segment` that adapt arguments or results."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.utils.data.pictures import make_index

SQUARES = [
    np.array(points, np.float32)
    for points in ([[8, 8], [56, 8], [56, 56], [8, 56]], [[16, 16], [32, 16], [32, 40], [16, 40]])
]


def test_process_mask_upsample_enlarges_then_crops() -> None:
    from utils.segment.general import process_mask_upsample

    torch.manual_seed(0)
    protos, coefficients = torch.randn(4, 16, 24), torch.randn(2, 4)
    boxes = torch.tensor([[3.0, 5.0, 60.5, 41.2], [0.0, 0.0, 96.0, 64.0]])
    whole = (coefficients @ protos.flatten(1)).sigmoid().view(1, 2, 16, 24)
    whole = torch.nn.functional.interpolate(whole, (64, 96), mode="bilinear")[0] > 0.5
    whole[0, :5] = whole[0, 42:] = whole[0, :, :3] = whole[0, :, 61:] = False
    assert torch.equal(process_mask_upsample(protos, coefficients, boxes, (64, 96)), whole)


def test_masks_iou_is_the_diagonal() -> None:
    from utils.segment.general import mask_iou, masks_iou

    a, b = (torch.rand(2, 5, 100, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    torch.testing.assert_close(masks_iou(a, b), mask_iou(a, b).diagonal())


def test_masks2segments_have_every_part() -> None:
    from utils.segment.general import masks2segments

    masks = torch.zeros(2, 6, 8)
    masks[0, 1:3, 1:4] = masks[0, 4, 6] = 1
    outline, nothing = masks2segments(masks)
    assert (outline.min(0).tolist(), outline.max(0).tolist()) == ([1, 1], [7, 5])
    assert nothing.shape == (0, 2)


def test_scale_image_cuts_the_border_off() -> None:
    from utils.segment.general import scale_image

    masks = np.zeros((64, 64, 2), np.float32)
    masks[16:48, :32, 0] = 1  # the left half of a picture twice as wide as high
    scaled = scale_image((64, 64), masks, (100, 200, 3))
    assert scaled.shape == (100, 200, 2)
    assert scaled[:, :98, 0].min() == 1
    assert scaled[:, 102:].max() == 0
    assert scale_image((64, 64), masks[:, :, 0], (100, 200), ((0.32, 0.32), (0, 16))).shape == (100, 200, 1)


def test_metrics_of_boxes_and_masks() -> None:
    from utils.metrics import ap_per_class
    from utils.segment.metrics import ap_per_class_box_and_mask, fitness

    rng = np.random.default_rng(0)
    correct = rng.random((2, 40, 10)) < 0.5
    others = rng.random(40), rng.integers(0, 3, 40), rng.integers(0, 3, 30)
    results = ap_per_class_box_and_mask(correct[0], correct[1], *others, plot=False, names={})
    for name, own in (("boxes", correct[1]), ("masks", correct[0])):
        _, _, p, r, f1, ap, classes = ap_per_class(own, *others)
        for key, expected in (("p", p), ("r", r), ("f1", f1), ("ap", ap), ("ap_class", classes)):
            assert np.array_equal(results[name][key], expected)
    assert fitness([[1, 1, 0.5, 0.3, 1, 1, 0.4, 0.2]]) == pytest.approx([0.1 * 0.9 + 0.9 * 0.5])


def test_polygons_as_masks() -> None:
    from utils.segment.dataloaders import polygon2mask, polygons2masks, polygons2masks_overlap

    mask = polygon2mask((64, 72), [SQUARES[0].ravel()], color=3, downsample_ratio=2)
    assert mask.shape == (32, 36)
    assert np.array_equal(np.argwhere(mask == 3), np.argwhere(mask))
    assert np.argwhere(mask).min(0).tolist() == [4, 4]
    assert np.argwhere(mask).max(0).tolist() == [27, 27]
    stack = polygons2masks((64, 72), SQUARES[::-1], color=1, downsample_ratio=2)
    assert stack.sum((1, 2)).tolist() == [8 * 12, 24 * 24]
    layers, order = polygons2masks_overlap((64, 72), SQUARES[::-1], downsample_ratio=2)
    assert order.tolist() == [1, 0]
    assert np.bincount(layers.ravel())[1:].tolist() == [24 * 24 - 8 * 12, 8 * 12]


@pytest.mark.parametrize("overlap", [True, False])
def test_a_loader_of_masks(tmp_path, overlap: bool) -> None:
    from utils.segment.dataloaders import create_dataloader

    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    make_index(tmp_path / "images", [(64, 64), (64, 64)])
    for i in range(2):
        lines = [" ".join(f"{v:g}" for v in (0, *(points / 64).ravel())) for points in SQUARES[: 2 - i]]
        (tmp_path / f"labels/{i:03}.txt").write_text("\n".join(lines), encoding="utf-8")
    loader, _ = create_dataloader(
        str(tmp_path / "images"), 64, 2, 32, False, workers=0, mask_downsample_ratio=4, overlap_mask=overlap
    )
    images, targets, _, _, masks = next(iter(loader))
    assert len(images) == 2
    assert len(targets) == 3
    if overlap:
        assert [np.bincount(layer.ravel(), minlength=3)[1:].tolist() for layer in masks.numpy()] == [
            [120, 24],
            [144, 0],
        ]
    else:
        assert masks.sum((1, 2)).tolist() == [144, 24, 144]


def test_random_perspective_returns_the_outlines_too() -> None:
    from utils.segment.augmentations import random_perspective

    random.seed(0)
    boxes = np.array([[1, 8, 8, 56, 56], [2, 16, 16, 32, 40]], np.float32)
    image, rows, outlines = random_perspective(np.zeros((64, 64, 3), np.uint8), boxes, SQUARES, degrees=5, shear=2)
    assert image.shape == (64, 64, 3)
    assert rows[:, 0].tolist() == [1, 2]
    tight = [(*points.min(0), *points.max(0)) for points in outlines]
    np.testing.assert_allclose(tight, rows[:, 1:], atol=1e-4)
    assert random_perspective(image)[2] == []


@pytest.mark.parametrize("overlap", [True, False])
def test_plot_images_and_masks_takes_both_forms(tmp_path, overlap: bool) -> None:
    from utils.plots.mosaics import plot_images
    from utils.segment.dataloaders import polygons2masks, polygons2masks_overlap
    from utils.segment.plots import plot_images_and_masks

    images = torch.full((2, 3, 64, 64), 114, dtype=torch.uint8)
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.75, 0.75], [0, 1, 0.375, 0.4, 0.25, 0.3], [1, 0, 0.5, 0.5, 0.75, 0.75]])
    stack = polygons2masks((64, 64), [*SQUARES, SQUARES[0]], 1, 4)
    if overlap:
        masks = np.stack([polygons2masks_overlap((64, 64), own, 4)[0] for own in (SQUARES, SQUARES[:1])])
        stack[0] -= stack[1]  # what the smaller one hides
    else:
        masks = stack
    drawn = plot_images_and_masks(images, targets, masks, fname=tmp_path / "a.png").read_bytes()
    plain = plot_images(images, targets, fname=tmp_path / "b.png", masks=[stack[:2], stack[2:]]).read_bytes()
    assert drawn == plain
    assert drawn != plot_images(images, targets, fname=tmp_path / "c.png").read_bytes()
