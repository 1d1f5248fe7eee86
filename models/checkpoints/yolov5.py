"""Checkpoints of YOLOv5: the network description, names and weights in the objects that YOLOv5 pickled."""

from __future__ import annotations

from typing import Any

import torch

from models.checkpoints.decoder import Decoder
from models.checkpoints.unpickler import PickledObject
from utils.errors import UserError

_TASKS = {"Detect": "detect", "Segment": "segment"}  # class of the network's last module → task
_CFG_KEYS = ("nc", "ch", "depth_multiple", "width_multiple", "activation", "inplace", "anchors", "backbone",
             "head")  # fmt: skip
_MAX_MODULES = 50_000


def yolov5_fields(tree: Any, decoder: Decoder, source: str) -> dict[str, Any]:
    """The fields of a `Checkpoint` in `tree`, the content of a file that YOLOv5's training or export wrote.

    `state_dict` and `ema` keep their stored precision (half in published files) and share memory with the file.
    Raises `UserError` for a file that holds no detector or segmenter.
    """
    content = {"model": tree} if isinstance(tree, PickledObject) else tree  # torch.save(model) without a dict around it
    if not isinstance(content, dict) or not isinstance(content.get("model"), PickledObject):
        raise UserError(f"{source} is {_description(content, decoder)}")
    model, ema = _unwrapped(content["model"]), content.get("ema")
    attributes = model.attributes
    task, head = _task_and_head(model, source)
    cfg = decoder.decode(attributes.get("yaml"))
    if not isinstance(cfg, dict) or not {"backbone", "head"} <= cfg.keys():
        raise UserError(f"{source} does not hold the YAML of its network (class {model.path}), so it cannot be rebuilt")
    names = _names(decoder.decode(attributes.get("names", head.attributes.get("names"))), head, source)
    plain = {key: decoder.decode(content.get(key)) for key in ("updates", "epoch", "best_fitness", "opt", "date")}
    hyp = decoder.decode(attributes.get("hyp"))
    return {
        "task": task,
        "cfg": {key: cfg[key] for key in _CFG_KEYS if key in cfg} | {"nc": len(names)},
        "names": names,
        "state_dict": state_dict_of(model, decoder),
        "ema": state_dict_of(_unwrapped(ema), decoder) if isinstance(ema, PickledObject) else None,
        "ema_updates": int(_number(plain["updates"]) or 0),
        "epoch": int(_number(plain["epoch"], default=-1)),
        "best_fitness": _number(plain["best_fitness"]),
        "hyp": hyp if isinstance(hyp, dict) else None,
        "opt": plain["opt"] if isinstance(plain["opt"], dict) else None,
        "date": plain["date"] if isinstance(plain["date"], str) else "",
    }


def state_dict_of(module: PickledObject, decoder: Decoder) -> dict[str, torch.Tensor]:
    """The tensors of a pickled `torch.nn.Module` under the names and in the order that its ``state_dict()`` would give.

    Raises `UserError` for modules that contain each other in a circle.
    """
    tensors: dict[str, torch.Tensor] = {}
    visited = 0

    def visit(node: PickledObject, prefix: str, depth: int) -> None:
        nonlocal visited
        visited += 1
        if depth > 100 or visited > _MAX_MODULES:
            raise decoder.damaged("its modules are nested without end")
        transient = decoder.decode(node.attributes.get("_non_persistent_buffers_set")) or ()
        for group in ("_parameters", "_buffers"):
            for name, tensor in _children(node, group).items():
                if decoder.is_tensor(tensor) and not (group == "_buffers" and name in transient):
                    tensors[f"{prefix}{name}"] = decoder.decode(tensor)
        for name, child in _children(node, "_modules").items():
            if isinstance(child, PickledObject):
                visit(child, f"{prefix}{name}.", depth + 1)

    visit(module, "", 0)
    return tensors


def _children(module: PickledObject, group: str) -> dict[str, Any]:
    found = module.attributes.get(group)
    return found if isinstance(found, dict) else {}


def _unwrapped(model: PickledObject) -> PickledObject:
    """The network inside ``DataParallel`` or ``DistributedDataParallel``."""
    inner = _children(model, "_modules").get("module")
    return inner if model.path.startswith("torch.nn.parallel.") and isinstance(inner, PickledObject) else model


def _task_and_head(model: PickledObject, source: str) -> tuple[str, PickledObject]:
    rows = _children(model, "_modules").get("model")
    layers = list(_children(rows, "_modules").values()) if isinstance(rows, PickledObject) else []
    head = layers[-1] if layers else None
    name = head.path.rpartition(".")[2] if isinstance(head, PickledObject) else ""
    if not isinstance(head, PickledObject) or name not in _TASKS:
        what = f"ends in {name}" if name else f"is a {model.path}"
        raise UserError(f"{source} holds a network that {what}; expected a YOLOv5 detector or segmenter")
    return _TASKS[name], head


def _names(names: Any, head: PickledObject, source: str) -> dict[int, str]:
    """Class names as a dict, from a list, a dict, or (where there are none) the head's number of classes."""
    nc = head.attributes.get("nc")
    if not isinstance(nc, int) or not 0 < nc < 100_000:
        raise UserError(f"{source}: the number of classes of its head is missing or impossible")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        return {i: f"class{i}" for i in range(nc)}
    if nc != len(names):
        raise UserError(f"{source}: {len(names)} class names, but a head of {nc} classes")
    if not all(isinstance(key, int) and isinstance(name, (str, int)) for key, name in names.items()):
        raise UserError(f"{source}: the class names are not strings, or their keys are not class numbers")
    return {key: str(name) for key, name in names.items()}


def _number(value: Any, default: float | None = None) -> Any:
    """The number in `value`, a number or an array of one element; `default` for anything else, and for numbers that
    are far too large to be a count or a fitness."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return value if isinstance(value, (int, float)) and abs(value) < 1e15 else default


def _description(content: Any, decoder: Decoder) -> str:
    """What the file holds instead of a YOLOv5 checkpoint."""
    if not isinstance(content, dict):
        return f"not a YOLOv5 checkpoint: it holds a {type(content).__name__}"
    tensors = [name for name, value in content.items() if decoder.is_tensor(value)]
    if tensors:
        return (
            f"a plain state dict ({len(tensors)} tensors, the first is '{tensors[0]}') without the description of a "
            "network; expected a YOLOv5 checkpoint"
        )
    keys = ", ".join(map(str, list(content)[:8])) or "nothing"
    return f"not a YOLOv5 checkpoint: it holds {keys}, but no 'model' with its YAML"
