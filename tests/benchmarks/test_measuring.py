"""What the benchmarks share: turns, ratios, processes and their memory, command lines, tables, results."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.measuring import (
    Row,
    Times,
    beside,
    conditions,
    figure,
    in_turns,
    measure_apart,
    median_ms,
    parse,
    peak_memory,
    ratio,
    report,
    rows_table,
    run_process,
    table,
)
from utils.errors import UserError

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory of processes is read from /proc")


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


def test_beside_the_baseline() -> None:
    ours, baseline = Times([0.2, 0.1, 0.4], []), Times([0.4, 0.2, 0.8], [])
    row = beside(ours, baseline, images=4)
    assert row == pytest.approx({"ms": 50, "baseline_ms": 100, "ratio": 2})
    assert beside(ours, None) == pytest.approx({"ms": 200})


def test_table() -> None:
    assert table(["stage", "ms"], [["forward", "1.25"], ["a", "–"]]).splitlines() == [
        "| stage   |   ms |",
        "| ------- | ---: |",
        "| forward | 1.25 |",
        "| a       |    – |",
    ]
    assert (figure(None, "{:.2f}"), figure(1.234, "{:.2f}×"), figure(0.25)) == ("–", "1.23×", "0.2")
    rows: dict[str, Row] = {"forward": {"ms": 1.25, "same": True}, "a": {"same": False}}
    assert rows_table("stage", rows, {"ms": ("ms", "{:.2f}"), "same": ("same", "")}).splitlines()[2:] == [
        "| forward | 1.25 |  yes |",
        "| a       |    – |   no |",
    ]


def test_process() -> None:
    done = run_process([sys.executable, "-c", "import os; print(os.environ['A'])"], environment={"A": "seen"})
    assert done.output == "seen\n"
    assert done.seconds > 0
    assert done.tree_mb == 0


def test_failed_process_is_its_last_line() -> None:
    with pytest.raises(UserError, match=r"^no such file$"):
        run_process(
            [sys.executable, "-c", "import sys; print('beside', file=sys.stderr); sys.exit('error: no such file')"]
        )
    with pytest.raises(UserError, match="exit code 3"):
        run_process([sys.executable, "-c", "raise SystemExit(3)"])


def test_crash_is_told() -> None:
    with pytest.raises(UserError, match="it crashed, exit code -6"):
        run_process([sys.executable, "-c", "import os, sys; print('word', flush=True); os.abort()"])


def root_of(options: Any) -> Row:
    """What `measure_apart` runs below."""
    if options.number < 0:
        raise UserError("no root of a negative number")
    return {"root": options.number**0.5}


def test_measure_apart() -> None:
    """Options and more arguments reach the function in the other process; its mistake comes back as one line."""
    assert measure_apart(root_of, Namespace(output=Path("a")), number=9) == {"root": 3}
    with pytest.raises(UserError, match=r"^no root of a negative number$"):
        measure_apart(root_of, Namespace(number=-1))


@linux
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


@linux
def test_peak_memory() -> None:
    before = peak_memory()
    held = bytearray(int(before) * 2**20 // 4 + 2**26)
    assert peak_memory() > len(held) / 2**20


def test_conditions_name_no_host_and_no_path() -> None:
    told = conditions(imgsz=64, sizes=[320, 640], data="/some/where/coco.yaml", keep="", of=Path("/a/b.pt"))
    assert list(told)[:7] == ["imgsz", "sizes", "data", "of", "processor", "cores", "python"]
    assert (told["sizes"], told["data"], told["of"]) == ("320 640", "coco.yaml", "b.pt")
    assert "torch" in told
    assert "/" not in "".join(map(str, told.values()))


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Namespace(imgsz=64, output=tmp_path / "results" / "a.json")
    report(options, {"a": {"ms": 1.5}}, "| a |", threads=2)
    out = capsys.readouterr().out
    assert out.startswith("imgsz 64, threads 2, processor ")
    assert out.endswith("\n\n| a |\n")
    written = json.loads((tmp_path / "results" / "a.json").read_text(encoding="utf-8"))
    assert written["rows"] == {"a": {"ms": 1.5}}
    assert written["conditions"]["imgsz"] == 64


BENCHMARK = SimpleNamespace(
    __name__="benchmarks.loss",
    __doc__="words",
    OPTIONS={"batch": 16, "workers": 0, "imgsz": [320, 640], "cfg": "a.yaml", "half": False, "hard_fail": None},
)


def test_parser() -> None:
    options = parse(BENCHMARK, ["--batch", "2", "--imgsz", "64"])
    assert (options.batch, options.workers, options.imgsz, options.cfg) == (2, 0, [64], "a.yaml")
    assert (options.half, options.hard_fail) == (False, None)
    assert options.output.parts[-3:] == ("benchmarks", "results", "loss.json")
    options = parse(BENCHMARK, ["--half", "--imgsz", "--hard-fail", "0.5"])
    assert (options.half, options.imgsz, options.hard_fail) == (True, [], 0.5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--baseline", "x"], "unknown argument '--baseline'"),
        (["--batch", "0"], "must be 1 or more, not 0"),
        (["--batch", "-1"], "must be 1 or more, not -1"),
        (["--batch", "9" * 30], "or less, not 999"),
        (["--workers", "nan"], "must be a whole number"),
        (["--hard-fail", "1.5"], "must lie between 0 and 1, not 1.5"),
    ],
)
def test_wrong_flags_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(BENCHMARK, words)
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
