"""How many of the project's files a reader has to follow to see how one batch is made.

A file counts if one of its functions is called while a loader without workers fetches one augmented batch. The batch
has mosaics, MixUp and single images, and no masks.

Before augmentation was gathered in fewer files, such a batch went through 16 files if all its images were at hand, and
through 20 if some had to be decoded. Now these are 11 and 14.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.footprint import files_called
from tests.utils.data.pictures import make_index
from utils.data.dataset import DetectionDataset
from utils.data.loader import Loader
from utils.data.sampling import BatchPlan

AT_HAND = {
    "utils/data/augment/camera.py",
    "utils/data/augment/pipeline.py",
    "utils/data/augment/tiles.py",
    "utils/data/batch.py",
    "utils/data/dataset.py",
    "utils/data/images/reader.py",
    "utils/data/indexing/index.py",
    "utils/data/instances.py",
    "utils/data/loader.py",
    "utils/data/sampling.py",
    "utils/ops/geometry.py",
}
DECODED = {"utils/data/images/decode.py", "utils/data/images/headers.py", "utils/files.py"}


@pytest.mark.parametrize("at_hand", [True, False], ids=["at hand", "decoded"])
def test_files_that_one_batch_goes_through(tmp_path: Path, at_hand: bool) -> None:
    """A new file here is a file more for everyone who wants to understand the loader: is it worth that?"""
    index = make_index(tmp_path, [(60, 80), (80, 60)] * 32)
    hyp = {"mosaic": 0.5, "mixup": 0.5}
    dataset = DetectionDataset(index, 64, augment=True, hyp=hyp, pool_bytes=2**20 if at_hand else 1)
    plan = BatchPlan(dataset.epoch_indices, 16, shuffle=True, mosaic_pool=dataset.images_at_hand)
    loader = Loader(dataset, plan, workers=0)
    for _ in range(2):  # epochs that warm up
        list(loader)
    batches = iter(loader)
    next(batches)
    found = files_called(lambda: next(batches))
    assert found == (AT_HAND if at_hand else AT_HAND | DECODED)
    assert len(found) <= (11 if at_hand else 14)
