"""Builds the modules of a network from the rows of its YAML."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from models.activations import default_activation
from models.budget import MOST_BLOCKS, Budget, check_map, check_resizing
from models.registry import Plan, RowContext, find_block
from utils.errors import UserError, first_line
from utils.ops.letterbox import make_divisible
from utils.yamls import line_of, read_literal

# The exceptions that a constructor or a small forward raises for arguments and shapes that do not fit together.
_MISMATCHES = (
    UserError, TypeError, ValueError, RuntimeError, AssertionError, ArithmeticError, LookupError, AttributeError,
    MemoryError,
)  # fmt: skip

_SHORT = reprlib.Repr()  # shortens what an error quotes from a row
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxother = 80


@dataclass(frozen=True)
class RowLocation:
    """Where a row is written. Its line is looked up only for an error, because that parses the file again."""

    file: str
    section: str
    position: int

    def __str__(self) -> str:
        return f"{line_of(self.file, self.section, self.position)}: "


@dataclass(frozen=True)
class Row:
    """One row of the YAML, ``[from, number, module, args]``; a mapping at the end of args holds named arguments."""

    index: int  # counted over backbone and head together
    sources: int | list[int]  # the rows that it reads; negative numbers count back from this row
    number: int  # repeats before the depth multiple
    module: str
    args: list[Any]
    location: RowLocation | str = ""
    named: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        args = _SHORT.repr(self.written(self.args))
        return f"{self.location}row {self.index}, {self.module} from {self.sources} with arguments {args}"

    def written(self, args: list[Any]) -> list[Any]:
        """`args` and the named arguments, in the form of the YAML."""
        return [*args, self.named] if self.named else args


@dataclass(frozen=True)
class BuiltRow:
    """A row and what was built from it, as the layer table shows it."""

    row: Row
    copies: int  # with the depth multiple applied, whether in sequence or inside the block
    args: list[Any]  # of the constructor


def parse_model(
    d: Mapping[str, Any], ch: int | Sequence[int] = 3, source: Path | None = None
) -> tuple[nn.Sequential, list[int]]:
    """Build the rows of `d` (see `models.configs.load_cfg`) for images of `ch` channels.

    Returns the modules, each with ``i`` (index), ``f`` (from), ``type`` (dotted class name), ``np`` (parameters) and
    ``built`` (`BuiltRow`), and the sorted indices of the rows whose output a later row needs. Errors name the row, and
    its line in `source` if given.
    """
    channels = [ch if isinstance(ch, int) else ch[0]]  # channels[i + 1] is the output of row i; [0] the image
    layers: list[nn.Module] = []
    needed: set[int] = set()
    with default_activation(d.get("activation")), Budget() as budget:
        rows = read_rows(d, source)
        for row in rows:
            with errors_naming(row):
                budget.spend_blocks(repeats(row, d))
                sources = absolute_sources(row)
                layer, out = _build(row, [channels[s + 1] for s in sources], d)
                if out == 0 and row is not rows[-1]:
                    raise UserError("a head must be the last row, because no other row can read its output")
            layers.append(layer)
            channels.append(out)
            relative = [row.sources] if isinstance(row.sources, int) else row.sources
            needed.update(s for s, written in zip(sources, relative, strict=True) if written != -1)
    return nn.Sequential(*layers), sorted(needed)


def read_rows(d: Mapping[str, Any], source: Path | None = None) -> list[Row]:
    """The rows of backbone and head, numbered, with the names and literals in their arguments resolved."""
    names = {"nc": d["nc"], "anchors": d["anchors"]}
    rows: list[Row] = []
    if (count := len(d["backbone"]) + len(d["head"])) > MOST_BLOCKS:
        raise UserError(f"{source or 'network description'}: {count} rows, but at most {MOST_BLOCKS} blocks are built")
    for section in ("backbone", "head"):
        for position, entry in enumerate(d[section]):
            location = RowLocation(str(source), section, position) if source else ""
            rows.append(_read_row(entry, len(rows), names, location))
    return rows


def _read_row(entry: Any, index: int, names: Mapping[str, Any], location: RowLocation | str) -> Row:
    def reject(what: str) -> NoReturn:
        raise UserError(f"{location}row {index}: {what}")

    if not isinstance(entry, list | tuple) or len(entry) != 4:
        reject(f"expected [from, number, module, args], found {_SHORT.repr(entry)}")
    sources, number, module, args = entry
    listed = sources if isinstance(sources, list) else [sources]
    if not listed or not all(isinstance(s, int) and not isinstance(s, bool) for s in listed):
        reject(f"'from' must be a row number or a list of them, not {_SHORT.repr(sources)}")
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_BLOCKS:
        reject(f"'number' must be a whole number from 1 to {MOST_BLOCKS}, not {_SHORT.repr(number)}")
    if not isinstance(module, str) or not isinstance(args, list | tuple):
        reject(f"expected a module name and a list of arguments, found {_SHORT.repr([module, args])[1:-1]}")
    values = [_literal(a, names) for a in args]
    named = values.pop() if values and isinstance(values[-1], dict) else {}
    if not all(isinstance(key, str) for key in named):
        reject(f"named arguments must be a mapping of names to values, not {_SHORT.repr(named)}")
    return Row(index, sources, number, module, values, location, named)


def _literal(value: Any, names: Mapping[str, Any]) -> Any:
    """The value of a YAML argument: that of the names ``nc`` and ``anchors``, a Python literal, or the text itself."""
    if isinstance(value, list):
        return [_literal(v, names) for v in value]
    if isinstance(value, dict):
        return {key: _literal(v, names) for key, v in value.items()}
    if not isinstance(value, str):
        return value
    if value in names:
        return names[value]
    try:
        return read_literal(value)
    except ValueError:
        return value  # a word such as nearest or ReLU6


def absolute_sources(row: Row) -> list[int]:
    """The indices of the rows that `row` reads, counted from 0; -1 is the image."""
    sources = [row.sources] if isinstance(row.sources, int) else row.sources
    absolute = [s if s >= 0 else row.index + s for s in sources]
    for written, index in zip(sources, absolute, strict=True):
        if index >= row.index or index < (-1 if row.index == 0 else 0):
            raise UserError(f"'from' {written} names no earlier row")
    return absolute


def _build(row: Row, inputs: list[int], d: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """The module of a row whose inputs have these numbers of channels, and its number of output channels."""
    block = find_block(row.module)
    width, number = d.get("width_multiple", 1.0), repeats(row, d)
    outputs = _anchors_per_level(d["anchors"]) * (d["nc"] + 5)  # a convolution with predictions is not scaled

    def scaled(c: int) -> int:
        return c if c == outputs else make_divisible(c * width, 8)

    try:
        plan = block.rule(row.args, RowContext(inputs, number, scaled))
        copies = [block.cls(*args, **row.named) for args in _copies(plan)]
    except _MISMATCHES as error:
        raise UserError(f"{_message_of(error)} (input channels {inputs})") from error
    layer = copies[0] if len(copies) == 1 else nn.Sequential(*copies)
    layer.i, layer.f = row.index, row.sources  # type: ignore[assignment]
    layer.type = f"{block.cls.__module__}.{block.cls.__qualname__}"  # type: ignore[assignment]
    layer.np = sum(p.numel() for p in layer.parameters())  # type: ignore[assignment]
    layer.built = BuiltRow(row, number, row.written(plan.args))  # type: ignore[assignment]
    return layer, plan.channels


def repeats(row: Row, d: Mapping[str, Any]) -> int:
    """How often `row` is repeated in a network of this depth."""
    return max(round(row.number * d.get("depth_multiple", 1.0)), 1) if row.number > 1 else row.number


def row_of(layer: nn.Module) -> Row:
    """The row that `parse_model` built `layer` from."""
    return cast(BuiltRow, layer.built).row


def _copies(plan: Plan) -> Iterator[list[Any]]:
    yield plan.args
    for _ in range(plan.copies - 1):
        yield [plan.channels, *plan.args[1:]] if plan.chained else plan.args


def _anchors_per_level(anchors: int | list[list[float]]) -> int:
    return anchors if isinstance(anchors, int) else len(anchors[0]) // 2


@contextmanager
def errors_naming(row: Row) -> Iterator[None]:
    """Within the block, turn errors about arguments and shapes into a `UserError` that names `row`."""
    try:
        yield
    except _MISMATCHES as error:
        raise UserError(f"{row}: {_message_of(error)}") from error


def _message_of(error: BaseException) -> str:
    """The whole message of a `UserError`, and the first line of a library's message."""
    return str(error) if isinstance(error, UserError) else first_line(error)


@torch.no_grad()
def output_shapes(layers: nn.Sequential, ch: int, size: int = 128) -> list[torch.Size]:
    """The output shape of each row except the last (the head) for one `size` × `size` image.

    The rows are run in evaluation mode, so that no statistic changes, on a batch without images, which takes neither
    time nor memory. Raises `UserError` that names the row where a row cannot take inputs of these shapes, and where its
    output is too large to be of use.
    """
    outputs: list[torch.Size] = []
    training = layers.training
    layers.eval()
    try:
        for layer in list(layers)[:-1]:
            row = row_of(layer)
            inputs = [outputs[s] if s >= 0 else torch.Size((1, ch, size, size)) for s in absolute_sources(row)]
            with errors_naming(row):
                try:
                    outputs.append(_output_shape(layer, inputs, listed=not isinstance(row.sources, int)))
                except _MISMATCHES as error:
                    given = f"inputs of shapes {[tuple(shape) for shape in inputs]} (image {size})"
                    raise UserError(f"cannot take {given}: {_message_of(error)}") from error
                check_map(outputs[-1], size)
    finally:
        layers.train(training)
    return outputs


def measure_strides(layers: nn.Sequential, ch: int, size: int = 128) -> Tensor:
    """The strides (nl), in pixels per cell, of the maps that the last row, a head, reads."""
    shapes, head = output_shapes(layers, ch, size), row_of(layers[-1])
    strides = [size / shapes[source][2] for source in absolute_sources(head)]
    if min(strides) < 1:
        raise UserError(f"{head}: it reads maps that are larger than the image, at strides {strides}")
    return torch.tensor(strides)


def _output_shape(layer: nn.Module, shapes: Sequence[torch.Size], listed: bool) -> torch.Size:
    """The output shape of `layer` for one image. A block that cannot run on a batch without images is given one."""

    def run(batch: int) -> Tensor:
        inputs = [torch.zeros(batch, *shape[1:]) for shape in shapes]
        output = layer(inputs if listed else inputs[0])
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise UserError("its output is not a feature map (B, c, H, W)")
        return output

    check_resizing(layer)
    try:
        return torch.Size((1, *run(0).shape[1:]))
    except _MISMATCHES:
        return run(1).shape
