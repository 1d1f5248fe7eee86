from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.data.rasterize import rasterize
from utils.ops import masks
from utils.ops.boxes import known_placement
from utils.ops.letterbox import letterbox
from utils.ops.masks import (
    BoxMask,
    box_mask_iou,
    box_masks,
    crop_mask,
    mask_iou,
    mask_to_polygon,
    paste_mask,
    process_mask,
    process_mask_native,
)


@pytest.fixture
def reference(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "masks.npz"))


def _tensors(file: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(file[name]) for name in ("protos", "coeff", "boxes"))


@pytest.mark.parametrize("chunk", [1, 1 << 30])
def test_reference_masks(reference: dict[str, np.ndarray], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "CHUNK_BYTES", chunk)
    inputs, shape, native = _tensors(reference), reference["shape"].tolist(), reference["native_shape"].tolist()
    assert np.array_equal(process_mask(*inputs, shape), reference["process_mask"])
    assert np.array_equal(process_mask(*inputs, shape, upsample=True), reference["process_mask_up"])
    assert np.array_equal(process_mask_native(*inputs, native), reference["process_mask_native"])


def test_no_detections() -> None:
    protos, none = torch.randn(4, 10, 10), torch.zeros(0, 4)
    assert process_mask(protos, none, none, (40, 40)).shape == (0, 10, 10)
    assert process_mask(protos, none, none, (40, 40), upsample=True).shape == (0, 40, 40)
    assert process_mask_native(protos, none, none, (30, 50)).shape == (0, 30, 50)
    assert box_masks(protos, none, none, (30, 50), (40, 40)) == []


def test_half_precision() -> None:
    torch.manual_seed(0)
    protos, coefficients = torch.randn(4, 10, 10).half(), torch.randn(3, 4).half()
    boxes = torch.tensor([[0.0, 0.0, 40.0, 40.0]]).repeat(3, 1)
    expected = process_mask(protos.float(), coefficients.float(), boxes, (40, 40))
    assert torch.equal(process_mask(protos, coefficients, boxes, (40, 40)), expected)
    for box_mask, mask in zip(box_masks(protos, coefficients, boxes, (40, 40), (40, 40)), expected, strict=True):
        assert np.mean(box_mask.pixels[2::4, 2::4] == mask.numpy()) > 0.8  # between two centres


def whole_masks(masks: np.ndarray) -> list[BoxMask]:
    """(n, H, W) as masks in boxes of the whole picture."""
    return [BoxMask(0, 0, mask.astype(bool)) for mask in masks]


def test_crop_keeps_values_and_is_exclusive_below_and_on_the_right() -> None:
    cropped = crop_mask(torch.full((2, 4, 5), 7.0), torch.tensor([[1.0, 1.0, 3.0, 2.0], [0.5, -3.0, 9.0, 1.5]]))
    assert cropped[0].tolist() == [[0] * 5, [0, 7, 7, 0, 0], [0] * 5, [0] * 5]
    assert cropped[1].tolist() == [[0, 7, 7, 7, 7], [0, 7, 7, 7, 7], [0] * 5, [0] * 5]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_iou_is_that_of_pycocotools(kind: type) -> None:
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    a, b = (rng.random((n, 30, 40)) < rng.random((n, 1, 1)) for n in (6, 9))
    encoded = [[coco.encode(np.asfortranarray(m, np.uint8)) for m in stack] for stack in (a, b)]
    expected = coco.iou(*encoded, [0] * len(b))
    found = mask_iou(torch.from_numpy(a.astype(kind)), torch.from_numpy(b.astype(kind)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(box_mask_iou(whole_masks(a), whole_masks(b)), expected, rtol=1e-6)


def test_iou_of_empty_masks() -> None:
    empty, full = torch.zeros(2, 3, 3), torch.ones(1, 3, 3)
    assert mask_iou(empty, torch.cat((empty, full))).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert mask_iou(empty[:0], full).shape == (0, 1)
    nothing = BoxMask(1, 1, np.zeros((0, 2), bool))
    truth = whole_masks(np.stack((np.zeros((3, 3), bool), np.ones((3, 3), bool))))
    assert box_mask_iou(truth, [nothing]).tolist() == [[0], [0]]
    assert box_mask_iou(truth, []).shape == (2, 0)
    assert box_mask_iou(truth[:0], [nothing]).shape == (0, 1)


def test_iou_of_patches_here_and_there() -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros((5, 40, 60), bool)
    boxed = []
    for mask in truth:
        y, x, h, w = rng.integers(0, 20, 4)
        mask[y : y + h, x : x + w] = rng.random((h, w)) < 0.7
    for _ in range(12):
        y, x, h, w = rng.integers(0, 20, 4)
        boxed.append(BoxMask(int(x), int(y), rng.random((h, w)) < 0.7))
    whole = torch.from_numpy(np.stack([paste_mask(box_mask, truth.shape[1:]) for box_mask in boxed]))
    found = box_mask_iou(whole_masks(truth), boxed)
    np.testing.assert_array_equal(found.T, box_mask_iou(boxed, whole_masks(truth)))
    assert (found > 0).sum() > 10
    assert (found == 0).sum() > 10
    np.testing.assert_allclose(found, mask_iou(torch.from_numpy(truth), whole), rtol=1e-6)


def test_paste() -> None:
    pasted = paste_mask(BoxMask(2, 1, np.array([[1, 0, 1]], bool)), (3, 6))
    assert pasted.astype(int).tolist() == [[0] * 6, [0, 0, 1, 0, 1, 0], [0] * 6]


def _by_hand(protos, coefficients, box, size, input_shape, placement, retina) -> np.ndarray:
    """(H, W) bool in float64, a loop over pixels: their centres through the letterbox to the prototypes."""
    (ratio_w, ratio_h), (pad_w, pad_h) = known_placement(input_shape, size, placement)
    logits = np.tensordot(coefficients.numpy().astype(np.float64), protos.numpy().astype(np.float64), 1)
    mh, mw = logits.shape
    result = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            if not (box[0] <= column + 0.5 < box[2] and box[1] <= row + 0.5 < box[3]):
                continue
            x, y = (column + 0.5) * ratio_w + pad_w, (row + 0.5) * ratio_h + pad_h
            if not retina:
                x, y = int(x) + 0.5, int(y) + 0.5
            u = min(max(x * mw / input_shape[1] - 0.5, 0), mw - 1)
            v = min(max(y * mh / input_shape[0] - 0.5, 0), mh - 1)
            i, j = min(int(v), mh - 2), min(int(u), mw - 2)
            a, b = v - i, u - j
            upper = (1 - b) * logits[i, j] + b * logits[i, j + 1]
            lower = (1 - b) * logits[i + 1, j] + b * logits[i + 1, j + 1]
            result[row, column] = (1 - a) * upper + a * lower > 0
    return result


@pytest.mark.parametrize("retina", [False, True])
@pytest.mark.parametrize(
    ("size", "placement"),
    [
        ((37, 64), None),  # letterbox above and below
        ((90, 50), None),  # on the sides
        ((150, 200), None),  # larger than the input
        ((20, 25), ((1.6, 1.28), (0.0, 0.0))),  # stretched
        ((31, 41), ((0.5, 0.5), (3.5, 10.5))),
    ],
)
def test_patches_are_those_of_float64_pixel_by_pixel(size, placement, retina) -> None:
    torch.manual_seed(0)
    protos, coefficients = torch.randn(6, 8, 16), torch.randn(7, 6)
    scale = torch.tensor([size[1], size[0]] * 2)
    boxes = torch.tensor(
        [
            [0.0, 0.0, 1.0, 1.0],
            [0.13, 0.21, 0.74, 0.63],
            [-0.4, 0.3, 0.5, 1.7],  # beyond the picture
            [0.9, 0.9, 0.905, 0.95],  # thin
            [0.5, 0.5, 0.5, 0.5],
            [1.2, 0.2, 1.5, 0.6],  # outside
            [0.7, 0.4, 0.2, 0.6],  # inside out
        ]
    )
    boxes = boxes * scale
    boxed = box_masks(protos, coefficients, boxes, size, (32, 64), placement, retina)
    for box, row, box_mask in zip(boxes.tolist(), coefficients, boxed, strict=True):
        expected = _by_hand(protos, row, box, size, (32, 64), placement, retina)
        assert box_mask.pixels.dtype == bool
        assert np.array_equal(paste_mask(box_mask, size), expected)
    assert boxed[0].pixels.shape == size
    assert not any(box_mask.pixels.size for box_mask in boxed[4:])


@pytest.mark.parametrize("retina", [False, True])
def test_a_mask_finds_its_way_back_through_the_letterbox(retina: bool) -> None:
    """A disc drawn in the original, seen by the network's input, comes back as the same disc."""
    rows, columns = np.mgrid[:300, :420] + 0.5
    disc = np.hypot(rows - 130, columns - 260) < 90
    seen = letterbox(np.repeat(disc[:, :, None] * np.uint8(255), 3, 2), 640, (0, 0, 0), auto=False)
    small = torch.from_numpy(seen.image[:, :, 0].astype(np.float32) / 255)
    protos = torch.nn.functional.avg_pool2d(small[None, None], 4)[0] - 0.5
    boxes = torch.tensor([[165.0, 35.0, 355.0, 225.0]])
    (ratio_w, ratio_h), pad = seen.ratio, seen.pad
    for placement in (None, ((ratio_h, ratio_w), pad)):
        (box_mask,) = box_masks(protos, torch.ones(1, 1), boxes, disc.shape, (640, 640), placement, retina)
        assert box_mask_iou(whole_masks(disc[None]), [box_mask])[0, 0] > 0.99


def test_prediction_at_the_networks_resolution_shows_its_pixels() -> None:
    """Without `retina`, all pixels of the original that fall into one of the input's are alike."""
    torch.manual_seed(0)
    inputs = torch.randn(3, 8, 8), torch.randn(1, 3), torch.tensor([[0.0, 0.0, 160.0, 160.0]]), (160, 160), (32, 32)
    (coarse,), (fine,) = box_masks(*inputs), box_masks(*inputs, retina=True)
    blocks = coarse.pixels.reshape(32, 5, 32, 5).sum((1, 3))
    assert set(np.unique(blocks)) == {0, 25}
    assert not np.array_equal(coarse.pixels, fine.pixels)
    assert np.array_equal(coarse.pixels[2::5, 2::5], fine.pixels[2::5, 2::5])  # the centres


def test_many_masks_of_a_large_picture_take_the_pixels_of_their_boxes() -> None:
    import tracemalloc

    torch.manual_seed(0)
    corner = torch.rand(1000, 2) * torch.tensor([3700, 2000])
    inputs = torch.randn(32, 160, 160), torch.randn(1000, 32), torch.cat((corner, corner + 100), 1)
    tracemalloc.start()
    boxed = box_masks(*inputs, (2160, 3840), (640, 640))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(box_mask.pixels.size for box_mask in boxed) == pytest.approx(1000 * 100 * 100, rel=0.01)
    assert peak < 30e6  # as whole pictures they would have 8 gigabytes


SHAPES = {
    "pixel": ["#"],
    "line": ["#####"],
    "corner": ["##.", "###", ".##"],
    "touching at a corner": ["##..", "##..", "..##", "..##"],
    "two parts": ["##.#", "##.#"],
    "hole": ["####", "#..#", "####"],
    "hole at a corner": ["###.", "#.#.", "####", "..##"],
    "part in a hole": ["#####", "#...#", "#.#.#", "#...#", "#####"],
    "chessboard": ["#.#.", ".#.#", "#.#."],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_outline_of_a_shape_gives_its_pixels_again(shape: str) -> None:
    pixels = np.array([[cell == "#" for cell in line] for line in SHAPES[shape]])
    outline = mask_to_polygon(BoxMask(3, 2, pixels))
    assert outline.dtype == np.float32
    size = (pixels.shape[0] + 4, pixels.shape[1] + 5)
    assert np.array_equal(rasterize([outline], size)[0], paste_mask(BoxMask(3, 2, pixels), size))


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.9])
def test_outlines_of_noise_give_its_pixels_again(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels = rng.random(rng.integers(1, 20, 2)) < share
        outline = mask_to_polygon(BoxMask(0, 0, pixels))
        if outline is None:
            assert not pixels.any()
        else:
            assert np.array_equal(rasterize([outline], pixels.shape)[0], pixels)


def test_outline_of_a_mask_gives_its_pixels_in_pycocotools() -> None:
    """And so to others who read polygons: no part of it grows or is lost."""
    from pycocotools import mask as coco

    rows, columns = np.mgrid[:60, :80]
    pixels = (np.hypot(rows - 25, columns - 30) < 20) | (np.hypot(rows - 45, columns - 65) < 9)
    outline = mask_to_polygon(BoxMask(0, 0, pixels))
    encoded = coco.merge(coco.frPyObjects([outline.ravel().tolist()], *pixels.shape))
    drawn = coco.decode(encoded).astype(bool)
    assert (drawn & pixels).sum() / (drawn | pixels).sum() > 0.99


def test_outline_has_corners_only() -> None:
    outline = mask_to_polygon(BoxMask(10, 20, np.ones((30, 40), bool)))
    assert sorted(outline.tolist()) == [[10, 20], [10, 50], [50, 20], [50, 50]]
    two = mask_to_polygon(BoxMask(0, 0, np.array([[1, 0, 1]], bool)))
    x, y = two.T.astype(np.float64)
    assert abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2 == 2  # the way there and back has no area


def test_an_empty_mask_has_no_outline() -> None:
    assert mask_to_polygon(BoxMask(0, 0, np.zeros((4, 5), bool))) is None
    assert mask_to_polygon(BoxMask(0, 0, np.zeros((0, 5), bool))) is None
