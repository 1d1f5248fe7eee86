"""Façade: names that scripts written for YOLOv5 import from ``utils.dataloaders``."""

from __future__ import annotations

from utils.data.indexing.image_files import IMG_FORMATS
from utils.data.indexing.labels import label_path
from utils.data.legacy import LoadImagesAndLabels, create_dataloader
from utils.data.sources.files import VID_FORMATS
from utils.data.sources.legacy import LoadImages, LoadScreenshots, LoadStreams

__all__ = [
    "IMG_FORMATS",
    "VID_FORMATS",
    "LoadImages",
    "LoadImagesAndLabels",
    "LoadScreenshots",
    "LoadStreams",
    "create_dataloader",
    "img2label_paths",
]


def img2label_paths(img_paths: list[str]) -> list[str]:
    """The label file of each image."""
    return [label_path(path) for path in img_paths]
