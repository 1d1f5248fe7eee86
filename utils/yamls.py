"""YAML files: safe loading, unknown keys refused, places named as ``file:line``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError, nearest
from utils.files import atomic_write


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. A missing file, bad syntax, a repeated key or another shape is a `UserError`."""
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found {type(content).__name__}")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line_number = key.start_mark.line + 1
            if key.value in seen:
                raise UserError(f"{path}:{line_number}: key '{key.value}' repeats line {seen[key.value]}; remove one")
            seen[key.value] = line_number
    return content


def read_text(path: str | Path) -> str:
    """A UTF-8 text file; a missing or unreadable one is a `UserError`."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})") from error


def save_yaml(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` in its own order, atomically."""
    with atomic_write(path, "w") as file:
        yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)


def line_of(path: str | Path, *keys: str | int) -> str:
    """``path:line`` of the entry reached through `keys` (mapping keys and list indices), or plain ``path``."""
    node = yaml.compose(read_text(path), Loader=yaml.SafeLoader)
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return f"{path}:{line}" if line else str(path)


def reject_unknown_keys(content: dict[str, Any], known: Iterable[str], path: str | Path) -> None:
    """Raise `UserError` for the first key outside `known`, with its line and the nearest known name."""
    known = list(known)
    for key in content:
        if key not in known:
            raise UserError(f"{line_of(path, key)}: unknown key '{key}'{nearest(str(key), known)}")
