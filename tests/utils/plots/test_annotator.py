"""Where boxes and labels land, and that labels can be read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from utils.ops.masks import BoxMask
from utils.plots.annotator import Annotator, Colors, colors, contrasting
from utils.plots.fonts import text_mask

BLUE = (250, 10, 20)


def blank(height: int = 200, width: int = 300) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def plate(image: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The box (x1, y1, x2, y2) of pixels of exactly `color`."""
    rows, columns = np.nonzero((image == color).all(2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_box_lies_on_its_corners_and_nowhere_else() -> None:
    image = blank()
    Annotator(image, line_width=1).box_label((50.4, 60.6, 150, 120), color=BLUE)
    changed = (image != 128).any(2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (50, 61, 150, 120)
    assert not changed[62:120, 51:150].any()
    assert (image[61, 60] == BLUE).all()


def test_drawn_in_place_and_returned() -> None:
    image = blank()
    annotator = Annotator(image)
    annotator.box_label((5, 5, 50, 50), "a", BLUE)
    assert annotator.result() is image
    assert (image != 128).any()


def test_read_only_or_strided_arrays_and_pil_images_are_copied() -> None:
    flipped = blank()[:, ::-1]
    frozen = blank()
    frozen.flags.writeable = False
    red = Image.new("RGB", (60, 40), (255, 0, 0))
    for image in (flipped, frozen, red):
        annotator = Annotator(image)
        annotator.box_label((5, 5, 30, 30), "a", BLUE)
        assert annotator.result() is not image
    assert (flipped == 128).all()
    assert (Annotator(red).result() == (0, 0, 255)).all()  # BGR


@pytest.mark.parametrize("box", [(100, 100, 200, 150), (100, 1, 200, 50), (280, 100, 299, 150), (-40, 190, 20, 240)])
@pytest.mark.parametrize("label", ["person 0.87", "é 0.5"])
def test_label_is_whole_inside_the_picture(box: tuple[int, ...], label: str) -> None:
    free = Annotator(blank(400, 600), line_width=2)
    free.box_label((200, 200, 260, 240), label, BLUE)
    image = blank()
    annotator = Annotator(image, line_width=2)
    annotator.box_label(box, label, BLUE)
    assert contrasting(BLUE) == (255, 255, 255)
    assert (free.im > 200).all(2).sum() == (image > 200).all(2).sum() > 10  # every pixel of the letters is there


def test_label_stands_above_the_box_or_inside_where_there_is_no_room() -> None:
    above, inside = blank(), blank()
    Annotator(above, line_width=2).box_label((50, 100, 250, 150), "abc", BLUE)
    Annotator(inside, line_width=2).box_label((50, 12, 250, 150), "abc", BLUE)
    assert plate(above, BLUE)[1] < 90
    assert (above[110:148, 60:240] == 128).all()
    assert (inside[:10] == 128).all()
    assert (inside[13:28, 53:80] == BLUE).all(2).mean() > 0.3


def test_label_longer_than_the_picture_begins_at_its_edge() -> None:
    image = blank(60, 40)
    Annotator(image, line_width=2).box_label((20, 30, 38, 50), "a very long label", BLUE)
    assert (image[:20, 0] == BLUE).all(1).any()


@pytest.mark.parametrize("i", range(40))
def test_text_contrasts_with_every_class_colour(i: int) -> None:
    """WCAG 2 asks for a ratio of 4.5; black or white always reaches it on one side."""

    def luminance(color: tuple[int, ...]) -> float:
        b, g, r = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    color = colors(i, bgr=True)
    a, b = sorted((luminance(color), luminance(contrasting(color))))
    assert (b + 0.05) / (a + 0.05) >= 4.5


def test_colours_are_distinct_stable_and_reversible() -> None:
    table = [colors(i) for i in range(80)]
    assert len(set(table)) == 80
    nearest = min(np.abs(np.subtract(a, b)).sum() for k, a in enumerate(table[:20]) for b in table[:k])
    assert nearest > 30
    assert colors(7, bgr=True) == colors(7)[::-1] == Colors()(7.0, True)  # type: ignore[arg-type]


def disc(radius: int) -> np.ndarray:
    ys, xs = np.ogrid[: 2 * radius, : 2 * radius]
    return (xs - radius + 0.5) ** 2 + (ys - radius + 0.5) ** 2 < radius**2


def test_masks_blend_their_own_pixels_and_have_a_rim() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    before, box_mask = image.copy(), BoxMask(40, 50, disc(30))
    Annotator(image, line_width=2).masks([box_mask], [BLUE], alpha=0.4)
    whole = np.zeros((200, 300), bool)
    whole[50:110, 40:100] = box_mask.pixels
    assert (image[~whole] == before[~whole]).all()
    moved = [np.roll(whole, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
    rim = whole & ~np.all(moved, 0)
    assert (image[rim] == BLUE).all()
    blend = np.rint(0.6 * before + 0.4 * np.array(BLUE))
    inner = whole & ~rim
    np.testing.assert_allclose(image[inner], blend[inner], atol=1)
    assert inner.sum() > 2000
    thick = before.copy()
    Annotator(thick, line_width=8).masks([box_mask], [BLUE], alpha=0.4)
    assert (thick[~whole] == before[~whole]).all()
    assert np.pi * (30**2 - 26**2) < (thick == BLUE).all(2).sum() < np.pi * (30**2 - 25**2)  # 4 to 5 pixels, inwards


@pytest.mark.parametrize(("left", "top"), [(-20, -30), (280, 190), (-70, 20), (400, 20), (20, -60), (20, 200)])
def test_masks_are_cut_by_the_picture(left: int, top: int) -> None:
    image = blank()
    Annotator(image, line_width=1).masks([BoxMask(left, top, np.ones((60, 60), bool))], [BLUE], alpha=1.0)
    expected = np.zeros((200, 300), bool)
    expected[max(0, top) : max(0, top + 60), max(0, left) : max(0, left + 60)] = True
    np.testing.assert_array_equal((image == BLUE).all(2), expected)


def test_masks_lie_above_one_another_in_their_order_and_may_be_empty() -> None:
    image = blank()
    red = (0, 0, 255)
    boxed = [BoxMask(10, 10, np.ones((20, 20), bool)), BoxMask(0, 0, np.ones((0, 0), bool))]
    Annotator(image, line_width=1).masks([*boxed, BoxMask(20, 20, np.ones((20, 20), bool))], [BLUE, BLUE, red], 1.0)
    assert (image[15, 15] == BLUE).all()
    assert (image[25, 25] == red).all()
    assert (image[:10] == 128).all()


def test_text_with_anchor_and_lines() -> None:
    image = blank()
    annotator = Annotator(image, font_size=20)
    annotator.text((10, 100), "one\ntwo", (255, 255, 255), anchor="bottom")
    rows = np.nonzero((image > 200).all(2).any(1))[0]
    height = text_mask("one", 20).shape[0]
    assert rows.min() >= 100 - 2 * height
    assert rows.max() < 100
    assert (image[100 - height : 100] > 200).any()
    assert (image[100 - 2 * height : 100 - height] > 200).any()


def test_box_style_text_and_rectangle() -> None:
    image = blank()
    annotator = Annotator(image, font_size=20)
    annotator.text((10, 10), "word", BLUE, box_style=True)
    assert (image == BLUE).all(2).sum() > 100
    annotator.rectangle((100, 100, 140, 130), fill=(1, 2, 3), outline=None)
    assert (image[100:131, 100:141] == (1, 2, 3)).all()
    annotator.rectangle((100, 100, 140, 130), outline=(9, 8, 7))
    assert (image[100, 110] == (9, 8, 7)).all()
    assert (image[115, 120] == (1, 2, 3)).all()


def test_line_and_text_grow_with_the_picture() -> None:
    small, large = Annotator(blank(200, 300)), Annotator(blank(2000, 3000))
    assert (small.lw, large.lw) == (2, 8)
    assert small.font_size == 16
    assert large.font_size == 64
    assert Annotator(blank(2000, 3000), line_width=1).font_size == 20
