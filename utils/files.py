"""Paths: where files are looked up, how run folders are numbered, how a file is written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from utils.errors import UserError, nearest

ROOT = Path(__file__).resolve().parents[1]  # the project's folder


def read_file(path: str | Path, most: int | None = None) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Every file that a user names, or that lies in a data set, is read through here: a pipe would be waited for without
    end, and a device may give bytes without end. Raises `OSError` for these, for what cannot be opened, for a larger
    file, and for a name that no file can have.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"the file has {size} bytes, and {most} are the most", str(path))
        return file.read()


def open_file(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading, without a buffer; see `read_file`."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "no file name holds a NUL character", str(path))
    file = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", str(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def expand_home(path: str | Path) -> Path:
    """`path` with ``~`` and ``~name`` replaced by that user's home folder; a name that nobody has stays as it is."""
    return Path(os.path.expanduser(path))


def find_file(name: str | Path, folders: Sequence[str] = (), kind: str = "file") -> Path:
    """The path that `name` means: as given, else below `folders` of the project (their subfolders included).

    Raises `UserError` with every place tried, and the nearest file of the same suffix.
    """
    given = expand_home(name)
    if os.path.isfile(given):  # false, too, for names that are too long or hold NUL
        return given
    tried = [str(given)]
    bases = [ROOT, *(ROOT / folder for folder in folders)] if not given.is_absolute() else []
    for base in bases:
        candidate = base / given
        if os.path.isfile(candidate):
            return candidate
        tried.append(_shown(candidate))
    if bases and given.parent == Path("."):
        for folder in folders:
            found = sorted(p for p in (ROOT / folder).rglob("*") if p.name == given.name)
            if len(found) > 1:
                raise UserError(f"{kind} '{name}' is ambiguous: {', '.join(_shown(f) for f in found)}; give a path")
            if found:
                return found[0]
    known = [p.name for folder in folders for p in (ROOT / folder).rglob(f"*{given.suffix}")]
    raise UserError(f"{kind} '{name}' not found; tried {', '.join(tried)}{nearest(given.name, known)}")


def _shown(path: Path) -> str:
    """`path` relative to the working directory where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """``runs/exp`` → ``runs/exp``, ``runs/exp2``, ``runs/exp3``, …: the first number above all that exist.

    A file name keeps its suffix (``out.txt`` → ``out2.txt``). With `mkdir` the folder is made, and unless `exist_ok` it
    is the caller's alone: of several commands that start at one moment each gets a number of its own.
    """
    path = Path(path)
    while True:
        target = path if exist_ok or not os.path.lexists(path) else _next_number(path, sep)
        if not mkdir:
            return target
        if exist_ok:
            return make_folder(target)
        make_folder(target.parent)
        try:
            target.mkdir()
        except FileExistsError:  # another command was quicker; count on
            continue
        except OSError as error:
            raise _unwritable(target, error) from error
        return target


def _next_number(path: Path, sep: str) -> Path:
    stem, suffix = (path.with_suffix("").name, path.suffix) if path.is_file() else (path.name, "")
    pattern = re.compile(rf"{re.escape(stem + sep)}(\d+){re.escape(suffix)}")
    taken = [int(m[1]) for p in path.parent.iterdir() if (m := pattern.fullmatch(p.name))]
    return path.parent / f"{stem}{sep}{max(taken, default=1) + 1}{suffix}"


def make_folder(path: str | Path) -> Path:
    """Create `path` and its parents; a read-only place, or a file in the way, is a `UserError`."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "no permission to write", str(path))
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to folder '{path}': {error.strerror}; choose another with --project")


def refuse_folder(path: str | Path) -> Path:
    """`path`, the place of a file to be written; a folder of that name is a `UserError`."""
    if os.path.isdir(path):
        raise UserError(f"cannot write '{path}': a folder has that name; move it, or choose another --name")
    return Path(path)


@contextlib.contextmanager
def one_at_a_time(folder: str | Path) -> Iterator[None]:
    """Let only one process of this machine at a time run the block for `folder`, which is made where it is absent.

    The lock is on the folder itself, so nothing is left behind. Where a system or a file system has no such locks,
    there is none.
    """
    handle = None
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        handle = os.open(make_folder(folder), os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb", *, durable: bool = True) -> Iterator[IO]:
    """Give a file handle. Its content replaces `path` in one step when the block ends, and is dropped if it raises.

    Temporary file in the same folder, fsync, rename: a full disk or a killed process leaves the old file as it was.
    What a killed process leaves beside it, `remove_leftovers` takes away.
    Without `durable` the system may take its time to bring the content to the disk: for files of which there are many.
    Raises `UserError` where a folder is in the way, and `OSError` with the name of the file.
    """
    path = refuse_folder(path)
    with _named(path):
        handle = _temporary(path, mode)
        try:
            with handle:
                yield handle
                handle.flush()
                if durable:
                    os.fsync(handle.fileno())
            os.chmod(handle.name, 0o666 & ~_umask())
            os.replace(handle.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(handle.name)
            raise


def _temporary(path: Path, mode: str) -> Any:
    """Open a new file beside `path`, with a name that is short enough wherever that of `path` is."""
    return tempfile.NamedTemporaryFile(
        mode, dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp", delete=False,
        encoding=None if "b" in mode else "utf-8",
    )  # fmt: skip


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """An `OSError` without a file, or with the temporary one, comes out with `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and not str(error.filename).endswith(".tmp")):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes have left of an `atomic_write` in `folder` and below; no one may write there now."""
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
