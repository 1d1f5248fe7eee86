"""A process that has trained once and forks a command for each line it reads: starting one takes no seconds.

Arguments: descriptors of sockets, of each a process serves one, and ``--`` before the words of the training that warms
up. In: a JSON list a line, ``[words, log, limit]``: the words of the command line (``train.py`` first), the file for
what it says, and after how many seconds its whole process group is killed with SIGKILL (null: never). Out: ``[code,
seconds]``, the exit code (negative: the signal).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from typing import NoReturn

import torch

import train
from utils.cli import run_command


def command(words: list[str], log: str) -> NoReturn:
    """In the child: run ``train.py`` as the leader of a process group of its own."""
    os.setpgid(0, 0)
    null, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target, source in ((0, null), (1, file), (2, file)):
        os.dup2(source, target)
    code = 1
    try:
        sys.argv = words
        run_command(lambda: train.main(train.parse_opt(words[1:])))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def outcome(child: int, limit: float | None) -> int:
    """Wait for `child`, at most `limit` seconds; its exit code, or minus the signal."""
    start = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if limit is not None and time.monotonic() - start >= limit:
            os.killpg(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)


def serve(descriptor: int) -> None:
    """Answer line by line until the other side closes."""
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rw") as stream:
        for line in stream:
            words, log, limit = json.loads(line)
            start = time.monotonic()
            child = os.fork()
            if not child:
                command(words, log)
            os.setpgid(child, child)
            stream.write(json.dumps([outcome(child, limit), time.monotonic() - start]) + "\n")
            stream.flush()


def main(descriptors: list[int], words: list[str]) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    train.main(train.parse_opt(words))
    children = []
    for descriptor in descriptors:
        children.append(os.fork())
        if not children[-1]:
            for other in descriptors:
                if other != descriptor:
                    os.close(other)
            serve(descriptor)
            os._exit(0)
    for descriptor in descriptors:
        os.close(descriptor)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    split = sys.argv.index("--")
    main([int(word) for word in sys.argv[1:split]], sys.argv[split + 1 :])
