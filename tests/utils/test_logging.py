"""Warnings and errors stay one line of bounded length."""

from __future__ import annotations

import warnings

import pytest

from utils.errors import MOST_CHARACTERS, one_line
from utils.logging import LOGGER, silenced


def test_a_file_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.error("a\nerror: forged\x1b[2J\u2028\x85.png cannot be read")
    assert capsys.readouterr().err == "error: a\\nerror: forged\\x1b[2J\\u2028\\x85.png cannot be read\n"


def test_a_long_text_loses_its_middle() -> None:
    text = one_line("first " + "x" * 10**6 + " last")
    assert len(text) < MOST_CHARACTERS + 10
    assert text.startswith("first x")
    assert text.endswith("x last")
    assert one_line("tab\tand é stay") == "tab\tand é stay"


def test_silenced_hides_what_converters_write(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    with silenced():
        print("progress")
        warnings.warn("deprecated", stacklevel=1)
        LOGGER.warning("hidden")
    LOGGER.warning("shown")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "warning: shown\n")
    assert not recwarn.list
