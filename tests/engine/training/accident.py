"""``train.py`` with an accident: ``torchrun … accident.py RANK STEP WHAT FLAGS…``.

The process of that rank meets it just before it would learn from batch STEP, at its first start only: ``kill`` (SIGKILL
from outside), ``end`` (SIGTERM to torchrun), ``mistake`` (a `UserError` of its own), ``defect`` (an exception that is
none), or ``none``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from unittest import mock

import train
from engine.training.safeguards.finite_loss import FiniteLossGuard
from utils.cli import run_command
from utils.errors import UserError

accepts = FiniteLossGuard.accepts


def main() -> Any:
    who, when, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def watched(self: FiniteLossGuard, *arguments: Any, step: int, **others: Any) -> bool:
        if step == when and os.environ["RANK"] == str(who) and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "end":
                os.kill(os.getppid(), signal.SIGTERM)
            elif what == "mistake":
                raise UserError("images/7.jpg cannot be read on this machine")
            elif what == "defect":
                raise ZeroDivisionError("a defect")
        return accepts(self, *arguments, step=step, **others)

    with mock.patch.object(FiniteLossGuard, "accepts", watched):
        return train.main(train.parse_opt(sys.argv[4:]))


if __name__ == "__main__":
    run_command(main)
