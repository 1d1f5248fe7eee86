"""What the benchmarks share: turns, ratios, processes and their memory, tables, results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import (
    benchmark_parser,
    conditions,
    figure,
    in_turns,
    median_ms,
    peak_memory,
    ratio,
    report,
    run_process,
    table,
)
from utils.errors import UserError


def test_turns() -> None:
    """Turn by turn, not one piece of work after the other; the warm-up is not counted."""
    done: list[str] = []
    times = in_turns({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, turns=3, warm=2)
    assert "".join(done) == "ab" * 5
    assert {name: len(own.wall) for name, own in times.items()} == {"a": 3, "b": 3}
    assert len(times["a"].cpu) == 3
    assert times["a"].ms >= 0
    assert median_ms(lambda: done.append("c"), 4) >= 0
    assert done.count("c") == 7


def test_ratio_is_of_pairs() -> None:
    """A machine that is four times slower in one turn is so for both: 2, 2, 2, where the medians' ratio would be 4."""
    assert ratio([2.0, 4.0, 16.0], [1.0, 2.0, 8.0]) == 2
    assert ratio([2.0, 4.0, 16.0], [1.0, 1.0, 8.0]) == 2


def test_table() -> None:
    assert table(["stage", "ms"], [["forward", "1.25"], ["a", "–"]]).splitlines() == [
        "| stage   |   ms |",
        "| ------- | ---: |",
        "| forward | 1.25 |",
        "| a       |    – |",
    ]
    assert (figure(None, 2), figure(1.234, 2, "×"), figure(0.25)) == ("–", "1.23×", "0.2")


def test_process() -> None:
    done = run_process([sys.executable, "-c", "import os; print(os.environ['A'])"], environment={"A": "seen"})
    assert done.output == "seen\n"
    assert done.seconds > 0
    assert done.tree_mb == 0


def test_failed_process_is_its_last_line() -> None:
    with pytest.raises(UserError, match=r"^-c: no such file$"):
        run_process(
            [sys.executable, "-c", "import sys; print('beside', file=sys.stderr); sys.exit('error: no such file')"]
        )
    with pytest.raises(UserError, match="exit code 3"):
        run_process([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a tree of processes is read from /proc")
def test_memory_counts_children_and_shared_pages_once() -> None:
    """A parent of 64 MB, and a forked child that reads the same pages and has 32 MB of its own."""
    code = """
import os, time
held = bytearray(b"x") * (64 << 20)
child = os.fork()
if child == 0:
    own = bytearray(b"x") * (32 << 20)
    sum(held[::4096])
    time.sleep(1)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = run_process([sys.executable, "-c", code], with_children=True)
    assert 64 < done.peak_mb < 96  # this process, with torch loaded, holds several times that
    assert 96 < done.tree_mb < 140  # not 160: the 64 are there once


def test_peak_memory() -> None:
    before = peak_memory()
    held = bytearray(int(before) * 2**20 // 4 + 2**26)
    assert peak_memory() > len(held) / 2**20


def test_conditions_name_no_host_and_no_path() -> None:
    told = conditions(imgsz=64)
    assert list(told)[:4] == ["imgsz", "processor", "cores", "python"]
    assert "torch" in told
    assert "/" not in "".join(map(str, told.values()))


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path / "results" / "a.json", {"imgsz": 64, "threads": 2}, {"a": {"ms": 1.5}}, "| a |")
    assert capsys.readouterr().out == "imgsz 64, threads 2\n\n| a |\n"
    written = json.loads((tmp_path / "results" / "a.json").read_text(encoding="utf-8"))
    assert written == {"conditions": {"imgsz": 64, "threads": 2}, "rows": {"a": {"ms": 1.5}}}


def test_parser() -> None:
    options = benchmark_parser("words", "loss", batch=16).parse_args(["--batch", "2"])
    assert options.batch == 2
    assert options.output.parts[-3:] == ("benchmarks", "results", "loss.json")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--baseline", "x"], "unrecognized arguments: --baseline x"),
        (["--batch", "0"], "must be 1 or more, not 0"),
        (["--batch", "-1"], "must be a whole number from 0 to 999999999, not '-1'"),
        (["--batch", "9" * 30], "must be a whole number"),
        (["--workers", "nan"], "must be a whole number"),
    ],
)
def test_wrong_flags_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark_parser("words", "loss", batch=16, workers=0).parse_args(words)
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
