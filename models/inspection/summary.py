"""Describes a network as text: a table of its rows, and a line of its totals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from models.parser import BuiltRow
from utils.model_info import measure_model


def layer_table(rows: nn.Sequential) -> str:
    """One line per row: index, from, repeats, parameters, module and constructor arguments."""
    lines = [f"{'':>3}{'from':>18}{'n':>3}{'params':>10}  {'module':<40}{'arguments':<30}".rstrip()]
    for layer in rows:
        built: BuiltRow = layer.built  # type: ignore[union-attr, assignment]
        row = built.row
        figures = f"{row.index:>3}{row.sources!s:>18}{built.copies:>3}{layer.np:>10}"
        lines.append(f"{figures}  {layer.type!s:<40}{built.args!s:<30}".rstrip())
    return "\n".join(lines)


def summary_line(model: nn.Module, name: str, imgsz: int | tuple[int, int] = 640) -> str:
    """The line of totals, such as ``name summary: 347 layers, 5662397 parameters, 11.5 GFLOPs``."""
    return f"{name} summary: {measure_model(model, imgsz)}"


def network_name(cfg: Any) -> str:
    """The name of the network of `cfg`, a path, a name or a dict: ``yolov5s.yaml`` → ``yolov5s``."""
    return Path(cfg).stem if isinstance(cfg, str | Path) else "network"
