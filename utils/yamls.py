"""YAML files: safe loading within bounds, unknown keys refused, places named as ``file:line``."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from utils.errors import UserError, nearest
from utils.files import atomic_write, read_file

MOST_BYTES = 4 << 20  # of a YAML file: the names of a hundred thousand classes
MOST_NODES = 200_000  # keys and values of one file, those that aliases stand for counted each time
MOST_DEPTH = 50  # lists and mappings within each other
_MOST_BITS = 64  # of a whole number
_LONGEST_EXPRESSION = 200  # characters; longer ones could exhaust the memory and the stack of Python's parser

_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")  # NUL and halves of surrogate pairs: no file name can hold them


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    A missing file, bad syntax, a repeated key, another shape, and a file beyond the bounds above are `UserError`s.
    """
    content = _parse(path, construct=True)
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise UserError(f"{path}: expected 'key: value' lines, found {found}")
    return content


def _parse(path: str | Path, construct: bool) -> Any:
    """The content of a YAML file, or, without `construct`, its tree of nodes, which know their lines."""
    text = read_text(path, MOST_BYTES)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return loader.construct_document(node) if construct and node is not None else node
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}:{line}: not valid YAML: character {error.character:#x} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = error.problem or error.context or ""
        why = f"{error.context}, {why}" if why.startswith("but ") else why
        why = why if isinstance(error, _RefusalError) else f"not valid YAML: {why}"
        raise UserError(f"{path}{f':{mark.line + 1}' if mark else ''}: {why}") from error
    except (ValueError, OverflowError) as error:  # an escape such as "\\UFFFFFFFF"
        line = loader.line + 1 if loader else 1
        raise UserError(f"{path}:{line}: not valid YAML: {error}") from error


class _RefusalError(yaml.MarkedYAMLError):
    """Valid YAML, but nothing that we read."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which a small file cannot make use much memory or time."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # of each finished node, by its id: itself and all below

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._nodes
        self._depth += 1
        if self._depth > MOST_DEPTH:
            _refuse(f"lists and mappings are nested more than {MOST_DEPTH} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent):
            self._nodes += 1
            self._sizes[id(node)] = self._nodes - before
        elif id(node) in self._sizes:
            self._nodes += self._sizes[id(node)]
        else:
            _refuse(f"'*{event.anchor}' stands for something that holds it", event.start_mark)
        if self._nodes > MOST_NODES:
            _refuse(f"there are more than {MOST_NODES} values, counting each alias as what it stands for",
                    event.start_mark)  # fmt: skip
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except (ValueError, LookupError, AttributeError, OverflowError) as error:  # '!!int abc', '2024-13-45'
            kind = node.tag.rpartition(":")[2]
            why = f"'{node.value}' is not a valid {kind}; put it in quotes if it is text"
            _refuse(why, node.start_mark, error)
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            _refuse(f"the whole number {node.value} is out of range; put it in quotes if it is text", node.start_mark)
        if isinstance(value, str) and _NO_CHARACTER.search(value):
            _refuse("the text holds NUL or half of a surrogate pair, which is no character", node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines and key.value != "<<":
                    _refuse(f"key '{key.value}' repeats line {lines[key.value]}; remove one", key.start_mark)
                lines[key.value] = line
        return super().construct_mapping(node, deep)


def _refuse(why: str, mark: Any, cause: Exception | None = None) -> NoReturn:
    raise _RefusalError(problem=why, problem_mark=mark) from cause


def read_text(path: str | Path, most: int | None = None) -> str:
    """Read a UTF-8 text file of at most `most` bytes. Raises `UserError` where it is missing or unreadable."""
    try:
        return read_file(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
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
    node = _parse(path, construct=False)
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


# Python literals in the texts of a YAML, such as None, (5, 9, 13) or ReLU6(inplace=True) ------------------------------


def read_literal(text: str) -> Any:
    """The Python value that `text` writes, such as a number or a tuple. Raises `ValueError` where it writes none."""
    return ast.literal_eval(read_expression(text))


def read_expression(text: str) -> ast.expr:
    """The syntax tree of a short expression, none of which is run. Raises `ValueError` where `text` is none."""
    if len(text) > _LONGEST_EXPRESSION:
        raise ValueError(f"{len(text)} characters are too many for one value")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns of questionable style
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"'{text}' is no expression") from error
