"""Standard output that is lost, closed, or knows few letters. What Linux has a device for is tried with it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from utils.cli import run_command
from utils.commands import standard_streams
from utils.commands.standard_streams import OutputError, write_line
from utils.logging import LOGGER

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> Callable[[IO[str]], None]:
    return lambda stream: monkeypatch.setattr(sys, "stdout", stream)


def broken_pipe() -> IO[str]:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


@FULL
def test_full_output_ends_the_work_with_one_line(stdout, capsys) -> None:  # type: ignore[no-untyped-def]
    steps = []
    with open("/dev/full", "w", encoding="utf-8") as full:
        stdout(full)
        with pytest.raises(SystemExit) as stop:
            run_command(lambda: (LOGGER.info("a line"), steps.append("never")))
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: cannot write to standard output: No space left on device\n"
    assert not steps


@FULL
def test_what_print_left_in_the_buffer(stdout, capsys) -> None:  # type: ignore[no-untyped-def]
    with open("/dev/full", "w", encoding="utf-8") as full:
        stdout(full)
        with pytest.raises(SystemExit) as stop:
            run_command(lambda: print("a line"))
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: cannot write to standard output: No space left on device\n"


def test_a_reader_that_went_away(stdout, capsys) -> None:  # type: ignore[no-untyped-def]
    with broken_pipe() as pipe:
        stdout(pipe)
        with pytest.raises(SystemExit) as stop:
            run_command(lambda: LOGGER.info("a line"))
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: cannot write to standard output: Broken pipe\n"


def test_after_the_first_error_the_rest_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe() as pipe:
        with pytest.raises(OutputError):
            write_line("one", pipe)
        write_line("two", pipe)  # what the cleaning up says


def test_a_lost_error_stream_is_nobodys_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe() as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        LOGGER.warning("unheard")


def test_ascii_output_shows_other_letters_as_escapes(stdout, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    stdout(io.TextIOWrapper(buffer, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    standard_streams.open_standard_streams()
    LOGGER.info("é × 猫")
    assert buffer.getvalue() == b"\\xe9 \\xd7 \\u732b\n"


CLOSED = """
import os, sys
from utils.cli import run_command
from utils.logging import LOGGER

def work():
    with open(sys.argv[1], "w") as file:
        LOGGER.info("for nobody"); LOGGER.error("for nobody"); print(repr(sys.stdin.read()), file.fileno(), file=file)

run_command(work)
"""


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
def test_closed_streams_lead_to_the_null_device_and_not_into_the_next_file(tmp_path: Path) -> None:
    command = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, CLOSED, tmp_path / "a.txt"], cwd=Path(__file__).resolve().parents[3]
    )
    assert done.returncode == 0
    assert (tmp_path / "a.txt").read_text() == "'' 3\n"
