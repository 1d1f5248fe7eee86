"""Warnings and errors stay one line of bounded length."""

from __future__ import annotations

import pytest

from utils.errors import MOST_CHARACTERS, one_line
from utils.logging import LOGGER


def test_a_file_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.error("a\nerror: forged\x1b[2J\u2028\x85.png cannot be read")
    assert capsys.readouterr().err == "error: a\\nerror: forged\\x1b[2J\\u2028\\x85.png cannot be read\n"


def test_a_long_text_loses_its_middle() -> None:
    text = one_line("first " + "x" * 10**6 + " last")
    assert len(text) < MOST_CHARACTERS + 10
    assert text.startswith("first x")
    assert text.endswith("x last")
    assert one_line("tab\tand é stay") == "tab\tand é stay"
