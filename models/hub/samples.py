"""Tries a network on the sample photographs, given in every form: the work of ``python hubconf.py --model yolov5n``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.hub.detections import Detections
from models.hub.factory import load_network, make_network
from utils.data.sources.image_io import read_image
from utils.devices import Device
from utils.errors import UserError, nearest
from utils.files import ROOT
from utils.logging import LOGGER


def run_on_samples(
    model: str,
    names: Mapping[str, bool],
    imgsz: int = 640,
    device: Device = "",
    save_dir: str | Path = "runs/detect/exp",
    exist_ok: bool = False,
) -> Detections:
    """Load `model`, detect objects in `sample_images`, print the detections, and save the drawings.

    `model` is one of `names`, which tell for each network whether it has published weights, or the path of a
    checkpoint or an exported file. Raises `UserError` for anything else.
    """
    if model in names:
        network = make_network(model, pretrained=names[model], device=device)
        if not names[model]:
            LOGGER.warning(f"{model} has no published weights, so its weights are random and so are its detections")
    elif Path(model).suffix or Path(model).exists():
        network = load_network(model, device=device)
    else:
        raise UserError(
            f"--model '{model}' is no network of hubconf.py{nearest(model, names)}; give a name such as yolov5n or "
            "yolov5n_MobileNetv2, or the path of your own weights: best.pt"
        )
    results = network(sample_images(), size=imgsz)
    results.print()
    results.save(save_dir=save_dir, exist_ok=exist_ok)
    return results


def sample_images() -> list[Any]:
    """The project's photographs in each form that a network of `torch.hub` takes, and an image without objects."""
    from PIL import Image

    astronaut, cat, coffee = (ROOT / "data" / "images" / f"{name}.jpg" for name in ("astronaut", "cat", "coffee"))
    pixels = np.ascontiguousarray(read_image(cat)[..., ::-1])  # RGB
    return [
        str(astronaut),
        cat,
        Image.open(coffee),
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1) / 255,
        np.zeros((480, 640, 3), np.uint8),
    ]
