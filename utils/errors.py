"""The exception that stands for a user's mistake, and one line for each thing that a machine can refuse."""

from __future__ import annotations

import contextlib
import difflib
import errno
import re
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """A mistake that the user can correct, told in one line.

    The text says what was wrong, where (``file:line`` for files), and what would mend it. Commands print it as
    ``error: …`` and exit non-zero; nothing else is caught on the way, so a traceback always means a defect of ours.
    """


class Aftermath(UserError):
    """A failure that another process caused, or may have caused. It is told only if no other process told its own."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown `name`, `` (did you mean 'x'?)``, or an empty string if no name of `known` is close."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ""


# --- what the machine refuses -----------------------------------------------------------------------------------------

STORAGE_ERRORS = {
    getattr(errno, name)
    for name in (
        "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOENT", "EISDIR", "ENOTDIR", "EEXIST",
        "ENOTEMPTY", "ENAMETOOLONG", "ELOOP", "EMFILE", "ENFILE", "ENOMEM", "ENOLCK", "ESTALE", "ETXTBSY", "EBUSY",
    )
    if hasattr(errno, name)
}  # fmt: skip

_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|insufficient memory|failed to map segment"
    r"|unable to allocate|failed to allocate|std::bad_alloc|storage size calculation overflowed|can't start new thread"
    r"|out of memory|CU[A-Z]+_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)|HOST_ALLOCATION_FAILED",
    re.IGNORECASE,
)


def refusal(error: BaseException) -> str | None:
    """One line for an error by which the machine refused something: memory, space, permission, a process's life.

    None for any other, which is a defect of ours.
    """
    if is_out_of_memory(error):
        return f"not enough memory ({first_line(error)}); a smaller --imgsz or --batch-size takes less"
    if isinstance(error, RuntimeError):
        return dead_worker(error)
    if isinstance(error, OSError) and (error.errno in STORAGE_ERRORS):
        reason = error.strerror or first_line(error)
        return f"{reason}: '{error.filename}'" if error.filename else reason
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Libraries raise exceptions of many kinds for that, so their texts decide."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    kinds = (RuntimeError, ImportError, OSError)
    return (isinstance(error, kinds) or type(error).__module__ == "cv2") and bool(_NO_MEMORY.search(str(error)))


@contextlib.contextmanager
def out_of_memory_means(advice: str) -> Iterator[None]:
    """Memory that runs out within the block, the GPU's or this machine's, is a `UserError` that ends with `advice`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"not enough memory {advice} ({first_line(error)})") from error


def dead_worker(error: RuntimeError) -> str | None:
    """One line where a process that loads data was killed; None for any other `error`.

    torch raises it wherever the main process happens to be, from its handler of SIGCHLD.
    """
    if not str(error).startswith("DataLoader worker"):
        return None
    signal = re.search(r"by signal: ([^.]*)", str(error))
    how = signal[1].strip() if signal else "unexpectedly"
    return (
        f"a process that loads data died ({how}), as happens when memory runs out; try fewer --workers (0: none), "
        "or a smaller --batch-size"
    )


def first_line(error: object, limit: int = 300) -> str:
    """The first line of what a library says, or the name of its exception where it says nothing."""
    words = str(error).strip().split("\n")[0].strip() or type(error).__name__
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


# --- text that came from outside --------------------------------------------------------------------------------------

MOST_CHARACTERS = 1000  # of a warning or an error: what it quotes may be of any length

# Control characters but the tab, line separators, marks that turn the direction of text, and halves of characters: a
# name that holds them could forge a line of a message, or do things to a terminal.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object) -> str:
    """`text` on one line, with escapes (``\\n``, ``\\x1b``) for what is no visible character."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def one_line(text: str, limit: int = MOST_CHARACTERS) -> str:
    """`text` as `printable` makes it, without its middle where it is longer than `limit`.

    A warning or an error is one line, whatever the name of a file or a value in it may hold.
    """
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3]} … {text[-limit // 3 :]}"
    return printable(text)
