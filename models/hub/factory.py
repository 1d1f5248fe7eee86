"""Builds the network that a `torch.hub` user asked for by file or by name."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from models.backends import DetectMultiBackend
from models.checkpoints.checkpoint import load_checkpoint
from models.checkpoints.state_dict import load_matching
from models.hub.autoshape import AutoShape
from models.loading import build_model
from models.weights import PUBLISHED, find_weights
from models.yolo import DetectionModel
from utils.devices import Device, select_one_device
from utils.errors import UserError

_CHECKPOINTS = (".pt", ".pth")


def load_network(path: str | Path, autoshape: bool = True, device: Device = None, trust: bool = False) -> nn.Module:
    """Load a checkpoint or an exported file, which is found as ``--weights`` is.

    With `autoshape` the result is an `AutoShape` whose batch norms are folded. Without, it is the network itself: that
    of a checkpoint is in evaluation mode and can be trained further after ``.train()``; that of an exported file is a
    `DetectMultiBackend`. `device` is as for ``--device``, and None takes the first GPU or else the CPU. For `trust` see
    `load_checkpoint`. Raises `UserError`.
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
    """Build the detector of this `name`, such as ``yolov5s``; `autoshape` and `device` are as for `load_network`.

    With `pretrained` it gets the published weights, which are fetched where they are not on disk; a name that has none
    is a `UserError`. Where the number of `channels` or `classes` differs from the published network's, the weights that
    fit are used and the others are random.
    """
    if pretrained and f"{name}.pt" not in PUBLISHED:
        raise UserError(
            f"there are no published weights for {name}; pass pretrained=False for random ones, or load 'custom' with "
            "the path= of your own"
        )
    if not pretrained:
        model = DetectionModel(f"{name}.yaml", ch=channels, nc=classes)
    else:
        file = find_weights(f"{name}.pt")
        checkpoint = load_checkpoint(file)
        if channels == 3 and classes == len(checkpoint.names):
            return load_network(file, autoshape, device)
        model = DetectionModel({**checkpoint.cfg, "ch": channels}, nc=classes)
        load_matching(model, checkpoint.weights, source=file)
        if classes == len(checkpoint.names):
            model.names = dict(checkpoint.names)
    where = select_one_device(device)
    return AutoShape(model).to(where) if autoshape else model.to(where)
