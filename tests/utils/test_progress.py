"""Progress in a log file: few lines, the last one always."""

from __future__ import annotations

import pytest

from utils.progress import Progress


def test_one_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    calls = []
    progress = Progress(range(5), unit="image")
    progress.describe(lambda: calls.append(1) or "text")  # type: ignore[func-returns-value]
    assert list(progress) == [0, 1, 2, 3, 4]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("text  5/5 in ")
    assert len(calls) == 1, "a description costs nothing while it is not shown"


def test_lines_at_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    list(Progress(range(3), "d", log_every=0.0))
    assert [line.split(" in ")[0] for line in capsys.readouterr().out.splitlines()] == ["d  1/3", "d  2/3", "d  3/3"]


def test_silent_when_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Progress(iter("ab"), enabled=False)) == ["a", "b"]
    assert capsys.readouterr().out == ""
