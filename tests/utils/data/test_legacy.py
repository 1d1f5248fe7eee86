from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.utils.data.pictures import make_index
from utils.data.legacy import LoadImagesAndLabels, create_dataloader


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    index = make_index(tmp_path / "images", [(60, 80), (80, 60), (50, 50), (40, 90), (64, 64)])
    for i in range(len(index)):
        rows = np.concatenate((index.classes[:, None], index.boxes), 1)[index.label_slice(i)]
        np.savetxt(tmp_path / f"labels/{i:03}.txt", rows, fmt="%g")
    return tmp_path / "images"


def test_items_and_collation_are_those_of_yolov5(folder):
    dataset = LoadImagesAndLabels(str(folder), 64, 2)
    image, labels, path, shapes = dataset[1]
    assert image.shape == (3, 64, 64)
    assert labels.shape == (len(dataset.labels[1]), 6)
    assert path == dataset.img_files[1] == dataset.im_files[1]
    assert shapes[0] == (80, 60)
    assert dataset.shapes[1].tolist() == [60, 80]
    np.testing.assert_allclose(np.concatenate(dataset.labels)[:, 1:], dataset.index.boxes)
    images, targets, paths, _ = next(iter(DataLoader(dataset, 5, collate_fn=LoadImagesAndLabels.collate_fn)))
    assert images.shape == (5, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert len(paths) == 5
    assert torch.bincount(targets[:, 0].long(), minlength=5).tolist() == np.diff(dataset.index.offsets).tolist()


def test_augmented_workers_do_not_repeat_each_other(folder):
    """By number, through a loader of the user's: every epoch looks different, in each worker."""
    dataset = LoadImagesAndLabels(str(folder), 64, augment=True)
    loader = DataLoader(dataset, 1, num_workers=1, collate_fn=LoadImagesAndLabels.collate_fn)
    first, second = ([batch[0] for batch in loader] for _ in range(2))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_min_items_leaves_out_images(folder):
    dataset = LoadImagesAndLabels(str(folder), min_items=1)
    assert len(dataset) == 4
    assert all(len(rows) for rows in dataset.labels)


def test_create_dataloader(folder):
    loader, dataset = create_dataloader(str(folder), 64, 2, 32, rect=True, pad=0.5, workers=0, cache=True)
    assert loader.dataset is dataset
    total = 0
    for images, targets, paths, shapes in loader:
        assert len(images) == len(paths) == len(shapes)
        total += len(targets)
    assert total == len(dataset.index.classes)
