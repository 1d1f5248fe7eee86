"""How `torchrun` starts processes on one machine, and how these tell each other of a failure.

Nothing here imports torch: a mistake on the command line is reported before that. Whatever else is large is imported
where it is needed, which is under `torchrun` only: every `--help` passes through here. `utils/distributed.py` connects
the processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NoReturn


def local_rank() -> int:
    """Index of this process on its machine, -1 without `torchrun`."""
    return int(os.environ.get("LOCAL_RANK", -1))


def attempt_folder() -> Path | None:
    """The folder that the processes started together on this machine share until `torchrun` removes it, if any."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # …/attempt_0/<local rank>/error.json
    folder = Path(error_file).parents[1] if error_file else None
    return folder if folder is not None and folder.is_dir() else None


def agent() -> str | None:
    """Identity of the `torchrun` process of this machine, the same when it starts its processes again; else None.

    It is the name of a folder that `torchrun` makes anew (`tempfile.mkdtemp`), with that of the machine before it.
    """
    import socket

    folder = attempt_folder()
    return None if folder is None else f"{socket.gethostname()}:{folder.parent}"


def is_first_to_say(text: str) -> bool:
    """True unless another process of this start and machine has asked this before for the same `text`."""
    import hashlib

    folder = attempt_folder()
    if folder is None:
        return True
    name = f"said-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:16]}"
    try:
        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:  # rather twice than never
        return True
    return True


def has_anyone_failed() -> bool:
    """True where another process of this start and machine has told of its failure."""
    folder = attempt_folder()
    return folder is not None and next(folder.glob("said-*"), None) is not None


def leave(code: Any) -> NoReturn:
    """Exit with `code`, as `sys.exit` takes it. One of several processes ends without taking the interpreter apart.

    After a failure, threads of torch may wait for processes that wait for this one, while `torchrun` has to see the
    exit code to end those. And processes were seen to abort while their interpreters went away under load; ending
    without that is a precaution, as the cause is not known (`utils.distributed.destroy_process_group`). Whatever was
    to be said or written must have been before.
    """
    if local_rank() >= 0:
        import logging
        import multiprocessing

        for child in multiprocessing.active_children():  # workers of the data loader
            child.kill()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)
