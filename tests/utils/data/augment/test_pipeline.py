"""Every augmentation key of the hyper-parameter files, seen from outside: what it does to pixels and boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.utils.data.pictures import texture
from utils.data.augment.pipeline import augmented_image, change_color, draw_color_gains, draw_share, mixup
from utils.data.augment.tiles import AugmentedImage, SourceImage
from utils.data.instances import Instances
from utils.data.sampling import MOSAIC_INDICES
from utils.hyp import load_hyp

SIZE = (160, 160)
NEUTRAL = dict.fromkeys(
    ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "mosaic",
     "mixup", "copy_paste"),
    0.0,
)  # fmt: skip
BOX = (30, 40, 70, 100)
BACK, FRONT = (60, 60, 60), (40, 90, 200)  # BGR


def picture(i: int) -> SourceImage:
    """A dull picture with one coloured rectangle, a little wider in each; the class is the picture's number."""
    x1, y1, x2, y2 = BOX
    x2 += 4 * i
    image = np.full((*SIZE, 3), BACK, np.uint8)
    image[y1:y2, x1:x2] = FRONT
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    return SourceImage(
        image, SIZE, Instances(np.array([i], np.float32), np.array([[x1, y1, x2, y2]], np.float32), [corners])
    )


def view(seed=0, **keys):
    hyp = load_hyp({**NEUTRAL, **keys})
    return augmented_image(0, list(range(1, MOSAIC_INDICES + 1)), picture, SIZE, hyp, np.random.default_rng(seed))


def extent(image):
    """Box round the coloured pixels."""
    colored = image.max(2).astype(int) - image.min(2) > 60
    ys, xs = colored.nonzero()
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def hsv(image):
    """Of the coloured rectangle's middle."""
    x1, y1, x2, y2 = extent(image)
    return cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)


def test_all_zero_changes_nothing():
    found = view()
    np.testing.assert_array_equal(found.image, picture(0).image)
    assert found.instances.boxes.tolist() == [list(BOX)]


@pytest.mark.parametrize(
    "keys",
    [
        {"degrees": 25.0},
        {"translate": 0.2},
        {"scale": 0.4},
        {"shear": 15.0},
        {"perspective": 0.003},
        {"flipud": 1.0},
        {"fliplr": 1.0},
        {"degrees": 30.0, "translate": 0.1, "scale": 0.5, "shear": 8.0, "perspective": 0.0007, "fliplr": 0.5},
    ],
    ids=lambda keys: "+".join(keys),
)
def test_boxes_sit_on_their_objects(keys):
    """Whatever the view, the polygon's box is that of the coloured pixels, and it has moved."""
    moved = 0
    for seed in range(25):
        image, instances = view(seed, **keys)
        if len(instances):
            np.testing.assert_allclose(instances.boxes[0], extent(image), atol=1.6)
            moved += np.abs(instances.boxes[0] - BOX).max() > 3
    assert moved >= 18


def test_flips_mirror():
    assert view(fliplr=1.0).instances.boxes.tolist() == [[160 - 70, 40, 160 - 30, 100]]
    assert view(flipud=1.0).instances.boxes.tolist() == [[30, 160 - 100, 70, 160 - 40]]
    np.testing.assert_array_equal(view(fliplr=1.0).image, picture(0).image[:, ::-1])
    np.testing.assert_array_equal(view(flipud=1.0).image, picture(0).image[::-1])
    flipped = [view(seed, fliplr=0.25).instances.boxes[0, 0] == 90 for seed in range(400)]
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.06)


def test_scale_and_translate_have_their_range():
    zooms = [np.ptp(view(seed, scale=0.3).instances.boxes[0, [0, 2]]) / 40 for seed in range(200)]
    assert 0.68 < min(zooms) < 0.73
    assert 1.27 < max(zooms) < 1.32
    shifts = [view(seed, translate=0.1).instances.boxes[0, :2] - BOX[:2] for seed in range(200)]
    assert 15 <= np.max(shifts) <= 16.5
    assert -16.5 <= np.min(shifts) <= -15


@pytest.mark.parametrize(("key", "channel"), [("hsv_h", 0), ("hsv_s", 1), ("hsv_v", 2)])
def test_colours_change_their_own_channel(key, channel):
    before = hsv(picture(0).image)
    changes = np.array([hsv(view(seed, **{key: 0.2}).image) - before for seed in range(30)])
    assert np.ptp(changes[:, channel]) > (2 if channel == 0 else 40)
    assert np.abs(np.delete(changes, channel, 1)).max() <= 3


def test_mosaic_is_a_probability_and_shows_four_pictures():
    alone = view(3)
    seen = [len(np.unique(view(seed, mosaic=1.0).instances.classes)) for seed in range(60)]
    assert max(seen) == 4
    assert set(np.concatenate([view(s, mosaic=1.0).instances.classes for s in range(60)])) <= {0, 1, 2, 3}
    single = [np.array_equal(view(seed, mosaic=0.3).image, alone.image) for seed in range(300)]
    assert np.mean(single) == pytest.approx(0.7, abs=0.08)


def test_own_picture_takes_every_place_of_the_mosaic():
    """Its box, the narrowest of the four, appears on either side of the middle, up and down."""
    places = set()
    for seed in range(600):
        instances = view(seed, mosaic=1.0).instances
        for (x1, y1, x2, y2), label in zip(instances.boxes, instances.classes, strict=True):
            if label == 0 and x2 - x1 > 39 and y2 - y1 > 59:
                places.add((x1 + x2 > 160, y1 + y2 > 160))
    assert len(places) == 4


def test_mosaic_boxes_sit_on_their_objects():
    """With the strongest published gains and more; each object is looked for where its box is."""
    hyp = {**load_hyp("hyp.scratch-high.yaml"), "degrees": 30.0, "shear": 5.0, "perspective": 0.0005, "mixup": 0.0}
    checked = 0
    for seed in range(60):
        image, instances = view(seed, **{**hyp, "copy_paste": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0})
        colored = image.max(2).astype(int) - image.min(2) > 60
        for x1, y1, x2, y2 in instances.boxes:
            part = colored[round(y1) : round(y2), round(x1) : round(x2)]
            if min(x1, y1, 160 - x2, 160 - y2) > 1 and min(part.shape) > 10:
                assert part.mean() > 0.3  # a rectangle turned by 30 degrees fills half its box or so
            for rim in (part[:3], part[-3:], part[:, :3], part[:, -3:]):
                assert rim.any()  # and reaches all four sides of it
            checked += 1
    assert checked > 60


def test_mixup_blends_two_mosaics():
    plain, mixed = (view(1, mosaic=1.0, mixup=p) for p in (0.0, 1.0))
    assert set(mixed.instances.classes) > set(plain.instances.classes)
    assert set(mixed.instances.classes) & {3, 4, 5, 6, 7}
    faint = [np.unique(view(s, mosaic=1.0, mixup=1.0).image.reshape(-1, 3), axis=0).shape[0] for s in range(5)]
    full = [np.unique(view(s, mosaic=1.0).image.reshape(-1, 3), axis=0).shape[0] for s in range(5)]
    assert np.mean(faint) > 1.3 * np.mean(full)
    assert len(view(1, mosaic=0.0, mixup=1.0).instances) == 1  # only mosaics are mixed


def test_copy_paste_adds_objects():
    plain = sum(len(view(s, mosaic=1.0).instances) for s in range(40))
    more = sum(len(view(s, mosaic=1.0, copy_paste=0.75).instances) for s in range(40))
    assert more > 1.15 * plain


def test_without_mosaic_allowed_a_picture_stays_alone():
    hyp = load_hyp({**NEUTRAL, "mosaic": 1.0})
    found = augmented_image(0, [], picture, SIZE, hyp, np.random.default_rng(0), mosaic=False)
    np.testing.assert_array_equal(found.image, picture(0).image)


def test_equal_seeds_give_equal_views():
    hyp = load_hyp("hyp.scratch-high.yaml")
    one, two, other = (view(seed, **hyp) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.instances.boxes, two.instances.boxes)
    assert not np.array_equal(one.image, other.image)


# --- MixUp ------------------------------------------------------------------------------------------------------------


def textured(seed, classes):
    n = len(classes)
    instances = Instances(np.array(classes, np.float32), np.full((n, 4), seed, np.float32))
    return AugmentedImage(texture(40, 60, seed), instances)


def test_pixels_are_averaged_and_objects_joined():
    first, second = textured(1, [3, 4]), textured(2, [5])
    expected = 0.3 * first.image.astype(float) + 0.7 * second.image
    mixed = mixup(first, second, 0.3)
    assert np.abs(mixed.image - expected).max() <= 0.51
    assert mixed.instances.classes.tolist() == [3, 4, 5]
    assert mixed.instances.boxes[:, 0].tolist() == [1, 1, 2]


def test_shares_have_the_beta_distribution():
    rng = np.random.default_rng(0)
    shares = np.array([draw_share(rng) for _ in range(20_000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.002)
    assert shares.var() == pytest.approx(1 / (4 * 65), rel=0.03)  # ab / ((a + b)² (a + b + 1))


# --- colour -----------------------------------------------------------------------------------------------------------


def by_tables(image, gains):
    """Three lookup tables over the HSV channels, values cut to whole numbers."""
    levels = np.arange(256)
    tables = [levels * gains[0] % 180, (levels * gains[1]).clip(0, 255), (levels * gains[2]).clip(0, 255)]
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    changed = [t.astype(np.uint8)[c] for t, c in zip(tables, channels, strict=True)]
    return cv2.cvtColor(np.stack(changed, 2), cv2.COLOR_HSV2BGR)


@pytest.mark.parametrize(
    "gains",
    [
        (1.015, 1.0, 1.0),
        (0.985, 1.7, 0.6),
        (1.0, 0.3, 1.4),
        (1.0, 1.0, 1.39),
        (1.4, 1.2, 0.9),
        (1.9, 1.7, 1.4),
        (0.1, 1.0, 1.0),
    ],
)
def test_equals_lookup_tables_up_to_rounding(gains):
    image = texture(120, 160, 4)
    found = change_color(image, gains).astype(int)
    np.testing.assert_array_equal(image, texture(120, 160, 4))
    difference = np.abs(found - by_tables(image, gains))
    assert difference.mean() < 2.5  # rounding against cutting, half a step of hue, saturation and value each
    assert np.percentile(difference, 99) <= 8
    assert np.abs(found - image).mean() > (3 if gains[0] == 1.0 or abs(gains[0] - 1) > 0.1 else 0.5)


def test_a_part_of_an_image_is_changed_as_its_copy_is():
    """And in parts of all widths: what is taken as one long row comes back as it was."""
    image = texture(64, 160, 2)
    for width in (1, 31, 32, 77):
        part = image[5:50, 9 : 9 + width]
        found = change_color(part, (0.99, 1.3, 0.8))
        assert found.shape == part.shape
        np.testing.assert_array_equal(found, change_color(part.copy(), (0.99, 1.3, 0.8)))
        assert np.abs(found.astype(int) - by_tables(part, (0.99, 1.3, 0.8))).mean() < 2.5
    np.testing.assert_array_equal(image, texture(64, 160, 2))


def test_no_change_is_no_work():
    image = texture(20, 20, 0)
    assert change_color(image, (1.0, 1.0, 1.0)) is image


def test_grey_keeps_its_colour_but_not_its_brightness():
    grey = np.full((4, 4, 3), 114, np.uint8)
    assert (change_color(grey.copy(), (1.01, 1.5, 0.5)) == 57).all()
    assert (change_color(grey.copy(), (1.01, 1.5, 3.0)) == 255).all()


def test_hue_is_a_circle():
    violet = cv2.cvtColor(np.uint8([[[179, 200, 200]]]), cv2.COLOR_HSV2BGR)
    turned = cv2.cvtColor(change_color(violet, (1.05, 1.0, 1.0)), cv2.COLOR_BGR2HSV)
    assert int(turned[0, 0, 0]) in (7, 8)  # 179 * 1.05 = 187.95, less 180


@pytest.mark.parametrize(("key", "part"), [("hsv_h", 0), ("hsv_s", 1), ("hsv_v", 2)])
def test_each_gain_draws_its_own_factor(key, part):
    hyp = load_hyp({"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, key: 0.4})
    rng = np.random.default_rng(0)
    drawn = np.array([draw_color_gains(hyp, rng) for _ in range(3000)])
    assert drawn[:, part].min() == pytest.approx(0.6, abs=0.01)
    assert drawn[:, part].max() == pytest.approx(1.4, abs=0.01)
    assert drawn[:, part].mean() == pytest.approx(1.0, abs=0.02)
    assert (np.delete(drawn, part, 1) == 1).all()
