"""Trainings killed with SIGKILL at any moment, workers and all, end as if nothing had happened."""

from __future__ import annotations

import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints.checkpoint import load_checkpoint
from tests.faults.commands import Nursery, equal, nurseries, state, tiny_training

TRAININGS = int(os.environ.get("YOLO_TEST_KILLED_TRAININGS", "8"))
KILLS = 3  # of each, at most
AT_ONCE = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks processes that use torch"),
    pytest.mark.timeout(3600),
]

PLAIN = ["--noplots"]
VARIANTS = ([*PLAIN, "--workers", "1"], PLAIN, [*PLAIN, "--patience", "1"], ["--workers", "1"], *[PLAIN] * 4)


def names(folder: Path) -> set[str]:
    """Names of all files below `folder` but TensorBoard's."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "tfevents" not in p.name}


def stage(last: Path | None) -> str:
    """Where a killed training will go on."""
    if last is None:
        return "nothing saved"
    checkpoint = load_checkpoint(last)
    stage = checkpoint.extra["stage"]
    return f"after epoch {checkpoint.epoch}" if stage == "training" else stage


def newest_last(project: Path) -> Path | None:
    return max(project.rglob("last.pt"), key=lambda path: path.stat().st_mtime_ns, default=None)


def disturbed(start: Nursery, words: list[str], project: Path, moments: list[float]) -> tuple[Path, list[str]]:
    """Train until the end, killed `moments` seconds after each start; the run folder, and where each kill fell."""
    fell = []
    for limit in [*moments, None]:
        last = newest_last(project)
        if last is not None and stage(last) == "finished":
            break
        code, _ = start.run(words if last is None else ["--resume", str(last)], limit)
        assert code == (0 if limit is None else code), start.log.read_text()
        if code:
            assert code == -9, start.log.read_text()
            fell.append(stage(newest_last(project)))
    last = newest_last(project)
    assert last is not None
    assert stage(last) == "finished"
    return last.parent.parent, fell


def test_killed_trainings_end_as_the_undisturbed_one(tiny_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fell: Counter[str] = Counter()

    def work(number: int) -> None:
        """Every `AT_ONCE`-th training."""
        for i in range(number, TRAININGS, AT_ONCE):
            undisturbed, seconds = expected[i % len(VARIANTS)]
            folder = tmp_path / f"training{i}"
            folder.mkdir()
            moments = (draws[i] * seconds).tolist()
            words = tiny_training(tiny_data, folder) + VARIANTS[i % len(VARIANTS)]
            found, where = disturbed(servers[number], words, folder / "runs", moments)
            fell.update(where)
            table = (found / "results.csv").read_bytes()
            assert table == (undisturbed / "results.csv").read_bytes(), (i, moments, where)
            for name in ("last.pt", "best.pt"):
                one, other = (state(each / "weights" / name) for each in (undisturbed, found))
                assert equal(one, other), (i, name, moments, where)
            assert names(found) == names(undisturbed), (i, moments, where)
            print(f"training {i}: killed {', '.join(where)}", flush=True)

    # the first kills of all trainings together fall everywhere, the others where they will
    draws = rng.random((TRAININGS, KILLS))
    draws[:, 0] = (rng.permutation(TRAININGS) + rng.random(TRAININGS)) / TRAININGS
    expected = []
    with nurseries(AT_ONCE, tmp_path, tiny_training(tiny_data, tmp_path, epochs=1)) as servers:
        for number, more in enumerate(VARIANTS):
            folder = tmp_path / f"undisturbed{number}"
            folder.mkdir()
            code, seconds = servers[0].run(tiny_training(tiny_data, folder) + more)
            assert code == 0, servers[0].log.read_text()
            expected.append((folder / "runs" / "exp", seconds))
        print("\nundisturbed:", ", ".join(f"{seconds:.1f} s" for _, seconds in expected), flush=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, range(AT_ONCE)))
    print(f"{TRAININGS} trainings, {sum(fell.values())} kills: {dict(sorted(fell.items()))}")
    assert sum(fell.values()) >= TRAININGS // 2
