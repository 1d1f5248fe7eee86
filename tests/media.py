"""Videos, folders of pictures and networks for tests of prediction."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float, codec: str = "MJPG") -> Path:
    """Write `frames` (h, w, 3), all of one size, as a video file."""
    writer = None
    for frame in frames:
        height, width = frame.shape[:2]
        writer = writer or cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
        assert writer.isOpened()
        writer.write(frame)
    assert writer is not None, "a video has frames"
    writer.release()
    return path


def pixels(path: Path) -> np.ndarray:
    """The pixels of an image file just as they are stored: with alpha, or of one channel."""
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an HTTP server of this machine that gives the files of `folder`, and logs nothing."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def save_untrained(path: Path, names: dict[int, str], cfg: str = "yolov5n_MobileNetv2.yaml") -> Path:
    """The checkpoint of an untrained network with raised confidences, so that it sees something everywhere.

    A segmenter's masks are decided: its mask coefficients are large.
    """
    import torch

    from models.checkpoints.checkpoint import Checkpoint, save_checkpoint
    from models.configs import load_cfg
    from models.yolo import model_of

    torch.manual_seed(0)
    model, first_mask = model_of({**load_cfg(cfg), "nc": len(names)}), 5 + len(names)
    with torch.no_grad():
        for conv in model.head.m:
            conv.bias.view(model.head.na, -1)[:, 4:first_mask] = 2.0
            conv.weight.view(model.head.na, model.head.no, -1)[:, first_mask:] *= 20
    save_checkpoint(path, Checkpoint(model.task, model.yaml, names, model.state_dict()))
    return path
