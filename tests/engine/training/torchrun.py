"""Trainings of several processes, started by torchrun as users start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ACCIDENT = Path(__file__).with_name("accident.py")
LIMIT = 280  # seconds, for a machine that others use as well


def training_flags(data: Path, folder: Path, **flags: object) -> list[str]:
    """A training of a few seconds on `data`, whose runs go to `folder`."""
    hyp = folder / "hyp.yaml"
    hyp.parent.mkdir(parents=True, exist_ok=True)
    hyp.write_text("nbs: 8\nlr0: 0.01\n", encoding="utf-8")
    options = {
        "cfg": "yolov5n_MobileNetv2.yaml", "data": data, "hyp": hyp, "img": 64, "batch": 4, "epochs": 3, "workers": 0,
        "device": "cpu", "project": "runs", **flags,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [*words, "--noplots", "--noautoanchor"]


def start(
    folder: Path,
    script: Sequence[str],
    *options: str,
    before: Sequence[str] = (),
    **environment: str,
) -> subprocess.Popen[str]:
    """``torchrun OPTIONS SCRIPT``, run in `folder`, in a process group of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TORCHELASTIC", "MASTER_"))}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        kept.pop(name, None)
    command = [*before, sys.executable, "-m", "torch.distributed.run", *options, *map(str, script)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], limit: float = LIMIT) -> str:
    """What the process wrote until its end. One that takes longer than `limit` seconds is killed, with its children."""
    try:
        return process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"no end within {limit} s:\n{process.communicate()[0]}") from None
