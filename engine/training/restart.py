"""When a process dies, `torchrun --max-restarts` starts all of them again, with the command line they had: which run to
go on with then."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    def of(cls, options: dict[str, Any]) -> Launch:
        """That of this process, whose command line gave `options`. All processes ask together."""
        told = repr(sorted((key, str(value)) for key, value in options.items()))
        agents = sorted({name for name in all_gather(agent()) if name is not None})
        return cls(tuple(agents), hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest())

    def mark(self, run: Path) -> None:
        """Write into the folder `run` that this launch trains there."""
        if self.agents:
            save_yaml(make_folder(run) / MARK, {"agents": list(self.agents), "options": self.options})

    def unmark(self, run: Path) -> None:
        """The training of `run` has come to its end."""
        (run / MARK).unlink(missing_ok=True)

    def find(self, project: Path) -> Path | None:
        """The run folder in `project` that this launch began and has not finished."""
        for file in project.glob(f"*/{MARK}") if self.agents else ():
            try:
                mark = load_yaml(file)
            except UserError:  # not one of ours
                continue
            if mark.get("options") == self.options and set(self.agents).intersection(mark.get("agents") or ()):
                return file.parent
        return None
