from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from tests.utils.data.pictures import GREY, make_index, make_shapes
from utils.data.dataset import DetectionDataset, rectangles
from utils.data.images.reader import RecentImages
from utils.data.rasterize import MaskFormat
from utils.data.sampling import BatchPlan, SampleRequest
from utils.errors import UserError
from utils.ops.boxes import scale_boxes, xywhn2xyxy
from utils.ops.letterbox import letterbox

SHAPES = [(60, 80), (120, 160), (100, 50), (30, 20), (90, 90), (64, 200), (333, 500), (150, 70)] * 2


@pytest.fixture
def index(tmp_path):
    return make_index(tmp_path, SHAPES)


# --- validation -------------------------------------------------------------------------------------------------------


def plain_letterbox(path, size, shape):
    """YOLOv5's steps for a validation image: fit the longer side by area or bilinearly, then pad to `shape`."""
    image = cv2.imread(path)
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    if ratio != 1:
        target = min(int(np.ceil(width * ratio - 1e-6)), size), min(int(np.ceil(height * ratio - 1e-6)), size)
        image = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR if ratio > 1 else cv2.INTER_AREA)
    scaled = image.shape[:2]
    image, _, pad = letterbox(image, tuple(shape), auto=False, scaleup=False)
    return image, (scaled[0] / height, scaled[1] / width), pad


@pytest.mark.parametrize("rect", [False, True])
def test_validation_samples_are_yolov5s(index, rect):
    dataset = DetectionDataset(index, 96, rect=rect, batch_size=4, pad=0.5)
    for i, sample in enumerate(dataset):
        shape = dataset.batch_shapes[i // 4] if rect else (96, 96)
        image, ratio, pad = plain_letterbox(sample.path, 96, shape)
        assert sample.image.shape == (3, *shape)
        np.testing.assert_array_equal(sample.image, image.transpose(2, 0, 1)[::-1])  # RGB
        assert sample.shapes == (tuple(dataset.index.shapes[i]), (ratio, pad))
        rows = dataset.index.label_slice(i)
        height, width = (r * s for r, s in zip(ratio, dataset.index.shapes[i], strict=True))
        np.testing.assert_allclose(
            sample.instances.boxes, xywhn2xyxy(dataset.index.boxes[rows], width, height, *pad), atol=1e-3
        )
        assert sample.instances.classes.tolist() == dataset.index.classes[rows].tolist()


def test_boxes_find_their_way_back_to_the_original(index):
    dataset = DetectionDataset(index, (96, 160), rect=True, batch_size=4, pad=0.5)
    for i, sample in enumerate(dataset):
        (height, width), ratio_pad = sample.shapes
        back = scale_boxes(sample.image.shape[1:], sample.instances.boxes.copy(), (height, width), ratio_pad)
        expected = xywhn2xyxy(dataset.index.boxes[dataset.index.label_slice(i)], width, height)
        # parts of pixels count as pixels when an image is fitted, so width and height differ a little in their ratio
        np.testing.assert_allclose(back, expected, atol=0.02 * max(height, width))


def test_rectangles_are_yolov5s():
    """Its rule for square sizes, by cases: all wide, all tall, or some of each."""
    rng = np.random.default_rng(0)
    shapes = rng.integers(50, 900, (203, 2))
    shapes = shapes[np.argsort(shapes[:, 0] / shapes[:, 1])]
    for size, pad in ((640, 0.5), (320, 0.0)):
        found = rectangles(shapes, (size, size), 16, 32, pad)
        for b in range(13):
            aspect = (shapes[:, 0] / shapes[:, 1])[b * 16 : (b + 1) * 16]
            share = [aspect.max(), 1] if aspect.max() < 1 else [1, 1 / aspect.min()] if aspect.min() > 1 else [1, 1]
            expected = np.ceil(np.array(share) * size / 32 + pad).astype(int) * 32
            assert found[b].tolist() == expected.tolist()


def test_rectangles_hold_their_images_for_any_size(index):
    for imgsz in ((96, 96), (96, 192), (160, 64)):
        dataset = DetectionDataset(index, imgsz, rect=True, batch_size=4)
        sizes = {}
        for i, sample in enumerate(dataset):
            sizes.setdefault(i // 4, set()).add(sample.image.shape[1:])
            assert all(side % 32 == 0 for side in sample.image.shape[1:])
            (height, width), ((ratio_h, ratio_w), (pad_w, pad_h)) = sample.shapes
            assert pad_w >= 0
            assert pad_h >= 0
            assert height * ratio_h <= imgsz[0]
            assert width * ratio_w <= imgsz[1]
        assert all(len(s) == 1 for s in sizes.values())
        assert (dataset.batch_shapes <= np.ceil(np.array(imgsz) / 32) * 32).all()


def test_sorted_by_aspect_ratio(index):
    aspect = DetectionDataset(index, 96, rect=True).index.shapes
    aspect = aspect[:, 0] / aspect[:, 1]
    assert (np.diff(aspect) >= 0).all()


def test_polygons_follow_their_boxes(tmp_path):
    index = make_index(tmp_path, SHAPES, polygons=True)
    for augment in (False, True):
        for sample in DetectionDataset(index, 96, augment=augment, hyp={"degrees": 10.0}):
            for box, outline in zip(sample.instances.boxes, sample.instances.polygons, strict=True):
                np.testing.assert_allclose(box, [*outline.min(0), *outline.max(0)], atol=1e-3)


# --- training ---------------------------------------------------------------------------------------------------------


def requests(dataset, epoch=0):
    pool = dataset.images_at_hand if dataset.mosaic else None
    plan = BatchPlan(dataset.epoch_indices, 4, shuffle=True, mosaic_pool=pool)
    plan.epoch = epoch
    return [request for batch in plan for request in batch]


@pytest.mark.parametrize("imgsz", [96, (64, 160)])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_training_samples(index, imgsz, mosaic):
    dataset = DetectionDataset(index, imgsz, augment=True, hyp={"mosaic": mosaic, "mixup": 0.3})
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    total = 0
    for request in requests(dataset):
        sample = dataset[request]
        assert sample.image.shape == (3, height, width)
        assert sample.image.dtype == np.uint8
        assert sample.shapes is None
        assert sample.path == index.path(request.image)
        boxes = sample.instances.boxes
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= width).all()
        assert (boxes[:, [1, 3]] <= height).all()
        total += len(boxes)
    assert total > 20


def test_no_augmentation_is_the_letterbox(index):
    neutral = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "mosaic"), 0.0)
    training = DetectionDataset(index, 96, augment=True, hyp=neutral)
    for sample, plain in zip(training, DetectionDataset(index, 96), strict=True):
        np.testing.assert_allclose(sample.instances.boxes, plain.instances.boxes, atol=0.51)  # borders of x.5 pixels
        assert (np.abs(sample.image.astype(int) - plain.image).mean((0, 2)) < 25).all()


def test_a_sample_that_does_not_fit_is_refused(index, monkeypatch):
    """OpenCV would write it elsewhere, and the batch would keep the pixels of an earlier one."""
    dataset = DetectionDataset(index, 96)
    letterboxed = dataset._letterboxed
    small = np.zeros((64, 96, 3), np.uint8)
    monkeypatch.setattr(dataset, "_letterboxed", lambda i, size: (small, *letterboxed(i, size)[1:]))
    with pytest.raises(ValueError, match=r"a sample \(64, 96, 3\) does not fit into \(3, 96, 96\)"):
        dataset[0]


def test_rect_training_has_no_mosaics(index):
    dataset = DetectionDataset(index, 96, augment=True, rect=True, batch_size=4)
    assert not dataset.mosaic
    for i, request in enumerate(BatchPlan(dataset.epoch_indices, 4)):
        batch = dataset.batch(request)
        assert batch.images.shape[2:] == tuple(dataset.batch_shapes[i])


def test_samples_depend_on_their_ticket_only(index):
    """Not on what was made before, nor on what the pool holds."""
    first, second = (DetectionDataset(index, 96, augment=True, seed=3) for _ in range(2))
    orders = requests(first, 0) + requests(first, 1)
    ahead = [first[request] for request in orders]
    for request, expected in reversed(list(zip(orders, ahead, strict=True))):
        found = second[request]
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.instances.boxes, expected.instances.boxes)
    other = DetectionDataset(index, 96, augment=True, seed=4)
    assert not np.array_equal(other[orders[0]].image, ahead[0].image)


def test_asked_by_number_an_image_looks_different_each_time(index):
    dataset = DetectionDataset(index, 96, augment=True)
    assert not np.array_equal(dataset[0].image, dataset[0].image)
    assert dataset[-1].path == index.path(len(index) - 1)
    with pytest.raises(IndexError):
        dataset[len(index)]


def test_a_mosaic_costs_one_decode_once_the_pool_is_warm(tmp_path):
    """The pool holds a quarter of the data set; nearly all images of the mosaics are found in it."""
    index = make_index(tmp_path, [(60, 80)] * 120)
    dataset = DetectionDataset(index, 80, augment=True, pool_bytes=30 * 60 * 80 * 3)
    assert dataset.images_at_hand == 27
    plan = BatchPlan(dataset.epoch_indices, 8, shuffle=True, mosaic_pool=dataset.images_at_hand)
    for epoch in range(3):
        before = dataset._images.reads
        plan.epoch = epoch
        for batch in plan:
            dataset.batch(batch)
        reads = dataset._images.reads - before
    assert dataset._images.nbytes <= 30 * 60 * 80 * 3
    assert reads <= 120


def test_the_sample_made_last_leaves_the_pool_last(index):
    dataset = DetectionDataset(index, 96, augment=True, hyp={"mosaic": 0.0})
    for i in (0, 1, 2, 0):
        dataset[i]
    assert list(dataset._images._kept) == [1, 2, 0]


def test_what_fits_the_pool_is_decoded_once(index):
    dataset = DetectionDataset(index, 96, augment=True)
    for epoch in range(3):
        for request in requests(dataset, epoch):
            dataset[request]
    assert isinstance(dataset._images, RecentImages)
    assert dataset._images.reads == len(index)


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("augment", [False, True])
def test_caches_change_nothing(index, cache, augment):
    plain, fast = (DetectionDataset(index, 96, augment=augment, cache=c) for c in ("", cache))
    for i in range(len(index)):
        request = SampleRequest(i, (0, i), tuple(range(7)))
        np.testing.assert_array_equal(plain[request].image, fast[request].image)


@pytest.mark.parametrize("cache", ["", "ram"])
def test_what_is_kept_is_never_written_to(index, cache):
    hyp = {"mixup": 0.5, "degrees": 10.0, "hsv_v": 0.9}
    dataset = DetectionDataset(index, 96, augment=True, hyp=hyp, cache=cache)
    for request in requests(dataset, 0) + requests(dataset, 1):
        dataset[request]
    for i in range(len(index)):
        np.testing.assert_array_equal(dataset.source_image(i).image, dataset._files.read(i))


def test_a_broken_image_is_named(index):
    with open(index.path(3), "wb") as file:
        file.write(b"\x89PNG")
    for augment in (False, True):
        with pytest.raises(UserError, match=r"cannot decode image '.*003\.png'"):
            DetectionDataset(index, 96, augment=augment)[SampleRequest(3, (0, 0), (1,) * 7)]


def test_pickles_small(index):
    """What a spawned worker is sent has no pixels in it."""
    dataset = DetectionDataset(index, 96, augment=True)
    for i in range(len(index)):
        dataset[i]
    assert dataset._images.nbytes > 200_000
    copy = pickle.dumps(dataset)
    assert len(copy) < 20_000
    request = SampleRequest(1, (5, 5), (1, 2, 3, 4, 5, 6, 7))
    np.testing.assert_array_equal(pickle.loads(copy)[request].image, dataset[request].image)


def test_batch_matches_its_samples(index):
    dataset = DetectionDataset(index, 96, augment=True)
    orders = requests(dataset)[:4]
    batch = dataset.batch(orders)
    for i, request in enumerate(orders):
        sample = dataset[request]
        np.testing.assert_array_equal(batch.images[i].numpy(), sample.image)
        rows = batch.targets[batch.targets[:, 0] == i].numpy()
        assert rows[:, 1].tolist() == sample.instances.classes.tolist()
        np.testing.assert_allclose(rows[:, 2:], sample.instances.to_xywhn((96, 96)), atol=1e-6)
    assert dataset.batch(orders, quads=True).images.shape == (1, 3, 192, 192)


def test_unknown_gains_are_refused(index):
    with pytest.raises(UserError, match="unknown hyper-parameter 'mosiac'"):
        DetectionDataset(index, 96, hyp={"mosiac": 1.0})


def test_grey_surrounds_what_is_letterboxed(index):
    sample = DetectionDataset(index, 96)[0]  # 60 x 80: 12 rows above and below
    assert (sample.image[:, :12] == GREY).all()
    assert (sample.image[:, -12:] == GREY).all()


# --- masks ------------------------------------------------------------------------------------------------------------

STILL = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "mosaic"), 0.0)
VIEWS = {
    "letterboxed": (False, {}),
    "still": (True, STILL),
    "flipped": (True, {**STILL, "fliplr": 1.0, "flipud": 1.0}),
    "shifted and zoomed": (True, {**STILL, "translate": 0.3, "scale": 0.5}),
    "turned and sheared": (True, {**STILL, "degrees": 40.0, "shear": 8.0}),
    "perspective": (True, {**STILL, "perspective": 0.001}),
    "mosaic": (True, {**STILL, "mosaic": 1.0, "scale": 0.5, "translate": 0.2, "fliplr": 0.5}),
    "mosaic with everything": (
        True,
        {**STILL, "mosaic": 1.0, "degrees": 20.0, "shear": 4.0, "perspective": 3e-4, "scale": 0.3, "flipud": 0.5},
    ),
    "copies": (True, {**STILL, "mosaic": 1.0, "copy_paste": 1.0, "degrees": 10.0}),
}


@pytest.fixture
def white_shapes(tmp_path):
    return make_shapes(tmp_path, [(120, 160), (160, 120), (128, 128), (100, 200), (140, 90), (150, 150)] * 2)


def check_masks(images, stacks):
    """White pixels are masks and masks are white pixels, but for half a pixel at the edges; returns how many."""
    total = 0
    for image, stack in zip(images, stacks, strict=True):
        mask = stack.numpy().max(0, initial=0)
        white = (image[0].numpy() > 127).astype(np.uint8) * (image[0].numpy() != GREY)
        near = np.ones((3, 3), np.uint8)
        # a piece below two pixels at the rim is no object any more
        lost = (white > cv2.dilate(mask, near)).sum()
        extra = (cv2.erode(mask, near) > white).sum()
        assert max(lost, extra) <= 0.01 * mask.sum() + 12
        assert abs(int(white.sum()) - int(mask.sum())) <= 0.04 * mask.sum() + 12
        total += int(mask.sum())
    return total


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("view", VIEWS)
def test_masks_lie_on_their_objects(white_shapes, view, overlap):
    augment, hyp = VIEWS[view]
    masks = MaskFormat(1, overlap)
    dataset = DetectionDataset(white_shapes, 160, augment=augment, hyp=hyp, masks=masks, rect=view == "letterboxed")
    batch = dataset.batch(requests(dataset) if augment else [SampleRequest(i, (0, i)) for i in range(12)])
    stacks = batch.mask_stacks(overlap)
    assert sum(map(len, stacks)) == len(batch.targets)
    assert check_masks(batch.images, stacks) > 8_000
    if overlap:
        return
    boxes = xywhn2xyxy(batch.targets[:, 2:].numpy(), *batch.images.shape[:1:-1])
    for mask, box in zip(batch.masks.numpy(), boxes, strict=True):
        ys, xs = mask.nonzero()
        if len(ys) > 30:  # a sharp tip may pass between centres
            np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], box, atol=3)


def test_masks_of_quads_and_of_mixed_pictures(white_shapes):
    dataset = DetectionDataset(white_shapes, 160, augment=True, hyp={**STILL, "mosaic": 1.0}, masks=MaskFormat(1))
    batch = dataset.batch(requests(dataset), quads=True)
    assert batch.masks.shape == (3, 320, 320)
    check_masks(batch.images, batch.mask_stacks(True))
    mixed = DetectionDataset(
        white_shapes, 160, augment=True, hyp={**STILL, "mosaic": 1.0, "mixup": 1.0}, masks=MaskFormat(2, False)
    )
    batch = mixed.batch(requests(mixed))
    inside = np.concatenate([image[0].numpy()[::2, ::2][stack.numpy().max(0) > 0] for image, stack in
                             zip(batch.images, batch.mask_stacks(False), strict=True) if len(stack)])  # fmt: skip
    assert np.percentile(inside, 5) > 90  # half of white at the least


def test_masks_are_coarse_by_their_ratio(white_shapes):
    for ratio in (1, 2, 4, 8):
        batch = DetectionDataset(white_shapes, 96, masks=MaskFormat(ratio)).batch([SampleRequest(0, (0,))])
        assert batch.masks.shape == (1, 96 // ratio, 96 // ratio)
        assert len(batch.polygons) == len(batch.targets)


def test_outlines_of_plain_samples_are_in_pixels_of_the_input(white_shapes):
    dataset = DetectionDataset(white_shapes, 96, rect=True, batch_size=4)
    batch = dataset.batch([SampleRequest(i, (0, i)) for i in range(4)])
    size = batch.images.shape[:1:-1]
    for box, outline in zip(xywhn2xyxy(batch.targets[:, 2:].numpy(), *size), batch.polygons, strict=True):
        np.testing.assert_allclose([*outline.min(0), *outline.max(0)], box, atol=0.02)
    assert DetectionDataset(white_shapes, 96, augment=True).batch([SampleRequest(0, (0, 0), (1,) * 7)]).polygons is None


def test_masks_that_do_not_fit_the_input(white_shapes, index):
    with pytest.raises(UserError, match="--mask-ratio 5 does not divide the input of 96x96 pixels"):
        DetectionDataset(white_shapes, 96, masks=MaskFormat(5))
    DetectionDataset(white_shapes, 192, masks=MaskFormat(64))
    with pytest.raises(UserError, match="--mask-ratio 64 does not divide"):
        DetectionDataset(white_shapes, 192, masks=MaskFormat(64), rect=True, batch_size=1)
    with pytest.raises(ValueError, match="polygons"):
        DetectionDataset(index, 96, masks=MaskFormat())
