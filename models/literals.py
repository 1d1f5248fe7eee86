"""Python literals in the texts of a network's YAML, such as ``None``, ``(5, 9, 13)`` or ``ReLU6(inplace=True)``."""

from __future__ import annotations

import ast
import warnings
from typing import Any

_LONGEST = 200  # characters; longer ones could take the memory and the stack of Python's parser


def read_literal(text: str) -> Any:
    """The number, text, tuple, … that `text` writes; a `ValueError` where it is none."""
    return ast.literal_eval(read_expression(text))


def read_expression(text: str) -> ast.expr:
    """The syntax tree of a short expression; a `ValueError` where `text` is none. Nothing of it is run."""
    if len(text) > _LONGEST:
        raise ValueError(f"{len(text)} characters are too many for one value")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser has opinions on style
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"'{text}' is no expression") from error
