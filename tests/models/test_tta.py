"""Test-time augmentation: what goes out comes back to the same place."""

from __future__ import annotations

import pytest
import torch

from models.tta import VIEWS, TTAView, augment_images, clip_augmented, descale_boxes, scale_img


def test_views_are_yolov5s() -> None:
    assert [(v.scale, v.flip) for v in VIEWS] == [(1.0, False), (0.83, True), (0.67, False)]


@pytest.mark.parametrize(
    ("ratio", "same", "size"), [(0.83, False, (288, 352)), (0.67, False, (224, 288)), (0.67, True, (320, 416))]
)
def test_sizes_and_padding(ratio: float, same: bool, size: tuple[int, int]) -> None:
    y = scale_img(torch.zeros(1, 3, 320, 416), ratio, same, gs=32)
    assert tuple(y.shape[2:]) == size
    inside = y[..., : int(320 * ratio), : int(416 * ratio)]
    assert inside.abs().max() == 0
    assert y.sum().item() == pytest.approx(0.447 * (y.numel() - inside.numel()), rel=1e-4)


def test_unscaled_view_is_the_image_itself() -> None:
    x = torch.rand(1, 3, 64, 96)
    assert augment_images(x, TTAView(1.0, False), 32) is x
    assert torch.equal(augment_images(x, TTAView(1.0, True), 32), x.flip(3))


@pytest.mark.parametrize("view", VIEWS)
def test_a_bright_spot_comes_back(view: TTAView) -> None:
    image = torch.zeros(1, 1, 320, 416)
    image[..., 80:120, 300:340] = 1.0  # centre (320, 100)
    seen = augment_images(image, view, 32)[0, 0] * (
        augment_images(torch.ones_like(image), view, 32)[0, 0] == 1
    )  # without padding
    ys, xs = torch.meshgrid(*(torch.arange(n) + 0.5 for n in seen.shape), indexing="ij")
    x, y = (xs * seen).sum() / seen.sum(), (ys * seen).sum() / seen.sum()
    side = seen.sum().sqrt()
    decoded = torch.tensor([[[float(x), float(y), float(side), float(side), 0.5, 0.25]]])
    back = descale_boxes(decoded, view, 320, 416)[0, 0]
    torch.testing.assert_close(back, torch.tensor([320.0, 100.0, 40.0, 40.0, 0.5, 0.25]), rtol=0, atol=0.3)


def test_tails_by_counting() -> None:
    # 64 × 64 at strides 8, 16, 32 with three anchors: 192, 48, 12 predictions, finest first
    level = torch.cat([torch.full((n,), float(i)) for i, n in enumerate((192, 48, 12))]).view(1, -1, 1)
    first, middle, last = clip_augmented([level, level, level], 3)
    assert first.unique().tolist() == [0.0, 1.0]
    assert middle is level
    assert last.unique().tolist() == [1.0, 2.0]
    assert (first.shape[1], last.shape[1]) == (240, 60)
