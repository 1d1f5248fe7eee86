"""From a file or a name to the network that a `torch.hub` user asked for."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from models.backends import DetectMultiBackend
from models.checkpoints.format import load_checkpoint
from models.checkpoints.transfer import transfer
from models.hub.autoshape import AutoShape
from models.loading import build_model
from models.weights import PUBLISHED, find_weights
from models.yolo import DetectionModel
from utils.devices import Device, select_one_device
from utils.errors import UserError

_CHECKPOINTS = (".pt", ".pth")


def load_network(path: str | Path, autoshape: bool = True, device: Device = None, trust: bool = False) -> nn.Module:
    """The network of a checkpoint or exported file, found as ``--weights`` is.

    With `autoshape` an `AutoShape`, its batch norms folded. Without, the network itself: a checkpoint's in evaluation
    mode with all that training needs (``.train()`` and go on), an exported file's as `DetectMultiBackend`. `device` as
    ``--device``, None for the first GPU or else the CPU; trust: see `load_checkpoint`. Raises `UserError`.
    """
    where = select_one_device(device)
    if not autoshape and Path(path).suffix.lower() in _CHECKPOINTS:
        file = find_weights(path)
        return build_model(load_checkpoint(file, trust), file).eval().to(where)
    backend = DetectMultiBackend(path, device=where, trust=trust)
    if not autoshape:
        return backend
    return AutoShape(backend.model if backend.pt else backend).to(where)


def make_network(
    name: str,
    pretrained: bool = True,
    channels: int = 3,
    classes: int = 80,
    autoshape: bool = True,
    device: Device = None,
) -> nn.Module:
    """The detector that `name` means, such as ``yolov5s``; the rest as `load_network`.

    pretrained: with the published weights, which are fetched where they are not on disk; a `UserError` for a name that
    has none. Of a network with other numbers of input `channels` or `classes`, what fits is taken and the rest random.
    """
    if pretrained and f"{name}.pt" not in PUBLISHED:
        raise UserError(
            f"there are no published weights for {name}; pass pretrained=False for random ones, or load 'custom' with "
            "path= and your own"
        )
    if not pretrained:
        model = DetectionModel(f"{name}.yaml", ch=channels, nc=classes)
    else:
        file = find_weights(f"{name}.pt")
        checkpoint = load_checkpoint(file)
        if channels == 3 and classes == len(checkpoint.names):
            return load_network(file, autoshape, device)
        model = DetectionModel({**checkpoint.cfg, "ch": channels}, nc=classes)
        transfer(model, checkpoint.weights, source=file)
        if classes == len(checkpoint.names):
            model.names = dict(checkpoint.names)
    where = select_one_device(device)
    return AutoShape(model).to(where) if autoshape else model.to(where)
