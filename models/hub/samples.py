"""What ``python hubconf.py --model yolov5n`` does: a network, the sample photographs in every form, and the results."""

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
    """Load `model`, find objects in `sample_pictures`, print what was found, and save the drawings.

    `model` is one of `names`, which tell for each network whether it has published weights, or the path of a
    checkpoint or an exported file. Raises `UserError` for anything else.
    """
    if model in names:
        network = make_network(model, pretrained=names[model], device=device)
        if not names[model]:
            LOGGER.warning(f"{model} has no published weights and starts from random ones; what it finds means nothing")
    elif Path(model).suffix or Path(model).exists():
        network = load_network(model, device=device)
    else:
        raise UserError(
            f"--model '{model}' is no network of hubconf.py{nearest(model, names)}; give a name such as yolov5n or "
            "yolov5n_MobileNetv2, or the path of your own weights: best.pt"
        )
    results = network(sample_pictures(), size=imgsz)
    results.print()
    results.save(save_dir=save_dir, exist_ok=exist_ok)
    return results


def sample_pictures() -> list[Any]:
    """The project's photographs in each form that a network of `torch.hub` takes, and a picture with nothing in it."""
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
