"""The import paths that scripts written for YOLOv5 use keep working."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

NAMES = {
    "utils.general": (
        "LOGGER Profile check_dataset check_file check_img_size check_imshow check_requirements check_yaml colorstr "
        "cv2 increment_path init_seeds make_divisible non_max_suppression one_cycle print_args scale_boxes "
        "scale_segments strip_optimizer xywh2xyxy xywhn2xyxy xyxy2xywh xyxy2xywhn xyn2xy"
    ),
    "utils.torch_utils": (
        "EarlyStopping ModelEMA de_parallel fuse_conv_and_bn initialize_weights intersect_dicts model_info "
        "select_device smart_inference_mode smart_optimizer time_sync"
    ),
    "utils.dataloaders": (
        "IMG_FORMATS VID_FORMATS LoadImages LoadImagesAndLabels LoadScreenshots LoadStreams create_dataloader"
    ),
    "utils.augmentations": "letterbox random_perspective",
    "utils.plots": "Annotator colors save_one_box plot_images plot_results",
    "utils.metrics": "ap_per_class bbox_iou box_iou ConfusionMatrix fitness",
    "utils.loss": "ComputeLoss FocalLoss",
    "utils.segment.general": (
        "crop_mask mask_iou masks2segments masks_iou process_mask process_mask_native process_mask_upsample scale_image"
    ),
    "utils.segment.loss": "ComputeLoss",
    "utils.segment.metrics": "ap_per_class_box_and_mask fitness",
    "utils.segment.plots": "plot_images_and_masks plot_results_with_masks",
    "utils.segment.dataloaders": "create_dataloader polygon2mask polygons2masks polygons2masks_overlap",
    "utils.segment.augmentations": "random_perspective",
    "models.common": (
        "DetectMultiBackend Conv DWConv Bottleneck BottleneckCSP C3 C3x C3Ghost C3TR C3SPP SPP SPPF Focus GhostConv "
        "GhostBottleneck CrossConv Contract Expand Concat DWConvTranspose2d MobileNetV2_Block conv_bn_relu_maxpool "
        "RepVGGBlock SEBlock CBAM Proto AutoShape Detections"
    ),
    "models.experimental": "attempt_load",
    "models.yolo": "Model DetectionModel SegmentationModel Detect Segment parse_model",
}


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in NAMES.items() for n in names.split()])
def test_name_is_importable(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is not None


def test_check_img_size_and_make_divisible() -> None:
    from utils.general import check_img_size, make_divisible

    assert check_img_size(640, s=32) == 640
    assert check_img_size([641, 32], s=32) == [672, 32]
    assert check_img_size(10, s=32, floor=64) == 64
    assert make_divisible(19.2, 8) == 24


def test_check_requirements_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    from utils.general import check_requirements

    assert check_requirements(["numpy>=1.26", "torch"])
    assert not check_requirements("a-package-that-is-not-there>=1")
    assert "pip install a-package-that-is-not-there" in capsys.readouterr().err


def test_print_args_logs_the_callers_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    from utils.general import print_args

    def detect(source: str, imgsz: int) -> None:
        print_args()

    detect("a.jpg", 320)
    assert "source=a.jpg, imgsz=320" in capsys.readouterr().out


def test_random_perspective_moves_image_and_boxes_alike() -> None:
    from utils.augmentations import random_perspective

    image = np.full((100, 100, 3), 114, np.uint8)
    image[30:60, 20:70] = 255
    targets = np.array([[2, 20, 30, 70, 60]], np.float32)
    for _ in range(5):
        moved, rows = random_perspective(image, targets, degrees=0, translate=0.1, scale=0.3, shear=0)
        ys, xs = np.where(moved[..., 0] > 185)
        assert rows[0, 0] == 2
        np.testing.assert_allclose(rows[0, 1:], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.5)
