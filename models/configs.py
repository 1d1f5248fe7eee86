"""Network YAMLs: finds them by name, applies the scale that the name asks for, and checks their keys and values.

One file holds a family of networks: its ``scales:`` map letters to depth and width multiples, so that ``yolov5s.yaml``
means ``yolov5.yaml`` at scale s and ``yolov5n_MobileNetv2.yaml`` means ``yolov5_MobileNetv2.yaml`` at scale n. A file
with exactly the given name takes precedence, and YOLOv5's own keys ``depth_multiple`` and ``width_multiple`` work too.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from models.activations import make_activation
from models.budget import MOST_ANCHORS
from utils.errors import UserError, nearest
from utils.files import ROOT
from utils.logging import LOGGER
from utils.ops.class_names import MOST_CLASSES
from utils.yamls import line_of, load_yaml

KEYS = (
    "nc", "depth_multiple", "width_multiple", "scales", "anchors", "activation", "ch", "inplace", "backbone", "head",
)  # fmt: skip

MOST_MULTIPLE = 100  # for depth and width
MOST_CHANNELS = 10_000  # in an image
LARGEST_ANCHOR = 1 << 16  # pixels

_FOLDER = ROOT / "models"
_SIZED = re.compile(r"(?P<family>[A-Za-z]+\d+)(?P<scale>[nsmlx])(?P<rest>(?:[-_].*)?)")


class NetworkFile(NamedTuple):
    """The path of a YAML, and the scale letter that the given name asks for, if any."""

    path: Path
    scale: str | None


def load_cfg(cfg: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The description of a network as a new dict: rows, nc, anchors and both multiples.

    `cfg` is a path, a name that is looked up under ``models/``, or such a dict. Raises `UserError` where it is not
    found, has an unknown key, or has a value of the wrong kind.
    """
    if isinstance(cfg, Mapping):
        return _checked(deepcopy(dict(cfg)), None)
    path, scale = find_cfg(cfg)
    content = load_yaml(path)
    scales = content.pop("scales", {})
    if not isinstance(scales, Mapping) or not all(_is_pair(pair) for pair in scales.values()):
        raise UserError(f"{line_of(path, 'scales')}: scales must map letters to [depth_multiple, width_multiple]")
    if scale is not None:
        if scale not in scales:
            known = ", ".join(map(str, scales)) or "none"
            raise UserError(f"'{cfg}' asks for scale '{scale}' of {path}, whose scales are: {known}")
        content["depth_multiple"], content["width_multiple"] = scales[scale]
    return _checked(content, path)


def override(
    description: dict[str, Any], nc: int | None = None, anchors: float | Sequence[Sequence[float]] | None = None
) -> dict[str, Any]:
    """Replace `nc` and `anchors` in `description` where they are given, and log it. Raises as `load_cfg`."""
    if nc is not None and nc != description["nc"]:
        LOGGER.info(f"nc={description['nc']} of the network's YAML overridden with nc={nc}")
        description["nc"] = nc
    if anchors is not None:
        LOGGER.info(f"anchors of the network's YAML overridden with anchors={anchors}")
        if isinstance(anchors, (int, float)):
            description["anchors"] = round(anchors)  # a hyper-parameter file may say 3.0
        else:
            description["anchors"] = [list(level) for level in anchors]
    return load_cfg(description)


def find_cfg(name: str | Path) -> NetworkFile:
    """Find the YAML that `name` means. Raises `UserError` with the nearest known name where there is none."""
    given = Path(name).expanduser()
    if not given.suffix:
        given = given.with_name(given.name + ".yaml")
    if (path := _existing(given)) is not None:
        return NetworkFile(path, None)
    if sized := _SIZED.fullmatch(given.stem):
        family = given.with_name(sized["family"] + sized["rest"] + given.suffix)
        if (path := _existing(family)) is not None:
            return NetworkFile(path, sized["scale"])
    raise UserError(
        f"network '{name}' not found, neither as a path nor below {_FOLDER.name}/{nearest(given.name, known_cfgs())}"
    )


def known_cfgs() -> list[str]:
    """All names that `find_cfg` finds below ``models/``: families, and their members at each scale."""
    names = []
    for path in sorted(_FOLDER.rglob("*.yaml")):
        names.append(path.name)
        family = re.match(r"[A-Za-z]+\d+(?![nsmlx])", path.stem)
        if family and isinstance(scales := load_yaml(path).get("scales"), Mapping):
            names += [f"{family[0]}{scale}{path.name[family.end() :]}" for scale in scales]
    return names


def _existing(path: Path) -> Path | None:
    candidates = [path] if path.is_absolute() else [path, ROOT / path]
    if path.parent == Path("."):
        candidates += sorted(_FOLDER.rglob(path.name))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


# Checks --------------------------------------------------------------------------------------------------------------


def _checked(content: dict[str, Any], source: Path | None) -> dict[str, Any]:
    """`content` with its multiples filled in. Raises `UserError` where no network can be built from it."""

    def reject(key: str, what: str) -> NoReturn:
        where = line_of(source, key) if source else "network description"
        raise UserError(f"{where}: {what}")

    for key in content:
        if key not in KEYS:
            reject(key, f"unknown key '{key}'{nearest(str(key), KEYS)}")
    for key in ("nc", "anchors", "backbone", "head"):
        if key not in content:
            reject(key, f"key '{key}' is missing")
    for key in ("depth_multiple", "width_multiple"):
        if not _is_positive(content.setdefault(key, 1.0), MOST_MULTIPLE):
            reject(key, f"{key} must be a positive number up to {MOST_MULTIPLE}, not {reprlib.repr(content[key])}")
    for key, most in (("nc", MOST_CLASSES), ("ch", MOST_CHANNELS)):
        if key in content and not (_is_positive(content[key], most) and isinstance(content[key], int)):
            reject(key, f"{key} must be a positive whole number up to {most}, not {reprlib.repr(content[key])}")
    if not _are_anchors(content["anchors"]):
        reject(
            "anchors",
            f"anchors must be a number of anchors up to {MOST_ANCHORS}, or a list of 'w,h, w,h, …' in pixels for each "
            "output level",
        )
    for key in ("backbone", "head"):
        if not isinstance(content[key], list) or not content[key]:
            reject(key, f"{key} must be a list of rows [from, number, module, args]")
    if "activation" in content:
        try:
            make_activation(str(content["activation"]))
        except UserError as error:
            reject("activation", str(error))
    if not isinstance(content.get("inplace", True), bool):
        reject("inplace", f"inplace must be True or False, not {reprlib.repr(content['inplace'])}")
    return content


def _is_positive(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_positive(v, MOST_MULTIPLE) for v in value)


def _are_anchors(value: Any) -> bool:
    if isinstance(value, int):
        return _is_positive(value, MOST_ANCHORS)
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(level, list) and level and len(level) % 2 == 0 for level in value)
        and len({len(level) for level in value}) == 1
        and len(value[0]) <= 2 * MOST_ANCHORS
        and all(_is_positive(v, LARGEST_ANCHOR) for level in value for v in level)
    )
