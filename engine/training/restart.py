"""Restarts by torchrun, which starts all processes again with the same command line if one of them dies.

This module finds the run that they have to go on with.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.training.options import TrainOptions
from utils.commands.launcher import agent
from utils.distributed import all_gather
from utils.errors import UserError
from utils.files import make_folder
from utils.yamls import load_yaml, save_yaml

MARK = "torchrun.yaml"  # in a run folder, from the beginning of the training to its end


@dataclass(frozen=True)
class Launch:
    """The `torchrun` processes that started this training, one a machine, and what they were told to train.

    A later start is of the same launch if one of these processes has a part in it and the options are the same. So
    neither a training that somebody else began nor another one in the same script is ever gone on with, and a machine
    may be replaced.
    """

    agents: tuple[str, ...]  # none without `torchrun`
    options: str  # digest

    @classmethod
    def of(cls, options: TrainOptions) -> Launch:
        """The launch of this process, whose command line gave `options`. All processes have to call this together."""
        told = repr(sorted((key, str(value)) for key, value in options.to_dict().items()))
        agents = sorted({name for name in all_gather(agent()) if name is not None})
        return cls(tuple(agents), hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest())

    def mark(self, run: Path) -> None:
        """Record in the folder `run` that this launch trains there."""
        if self.agents:
            save_yaml(make_folder(run) / MARK, {"agents": list(self.agents), "options": self.options})

    def unmark(self, run: Path) -> None:
        """Record that the training of `run` has come to its end."""
        (run / MARK).unlink(missing_ok=True)

    def find(self, project: Path) -> Path | None:
        """The run folder in `project` that this launch has begun and not finished; None if there is none."""
        for file in project.glob(f"*/{MARK}") if self.agents else ():
            try:
                mark = load_yaml(file)
            except UserError:  # not one of ours
                continue
            if mark.get("options") == self.options and set(self.agents).intersection(mark.get("agents") or ()):
                return file.parent
        return None
