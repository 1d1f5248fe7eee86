"""Reads CSV files that an earlier run has written."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.yamls import read_text

_MOST_BYTES = 64 << 20


def read_table(path: Path, columns: Sequence[str], why: str) -> list[list[str]]:
    """The rows below the heading of a CSV file with these `columns`; empty lines are left out.

    Raises `UserError`, with the line, for a damaged file; and for other columns, with `why` these matter.
    """
    try:
        lines = read_text(path, _MOST_BYTES).splitlines()
        rows = [(i, row) for i, row in enumerate(csv.reader(lines), 1) if row]
    except csv.Error as error:
        raise UserError(f"{path}: not a table: {error}; mend or remove it") from error
    if not rows or [cell.strip() for cell in rows[0][1]] != list(columns):
        raise UserError(f"{path}:1: columns differ from {columns[0]}, {columns[1]}, …: {why}")
    for line, row in rows[1:]:
        if len(row) != len(columns):
            raise UserError(f"{path}:{line}: {len(row)} values in {len(columns)} columns; mend or remove the line")
    return [row for _, row in rows[1:]]


def read_number(path: Path, row: int, cell: str, most: float = math.inf) -> float:
    """The finite number in `cell` of row number `row`. Raises `UserError` for anything else."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > most:
        raise UserError(f"{path}: row {row}: {cell[:80]!r} is no number; mend or remove the line")
    return value
