"""Fetching what the user named, and unpacking it where it cannot do harm."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import http.client
import lzma
import os
import re
import shutil
import string
import struct
import tarfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from email.message import Message
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import url2pathname

from utils.errors import UserError
from utils.files import make_folder
from utils.logging import LOGGER
from utils.progress import Progress

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_BLOCK = 1 << 20
_TRIES = 4
_RATIO, _FLOOR = 200, 1 << 30  # an archive that grows beyond both is taken for a bomb
_MOST_MEMBERS = 5_000_000
_PATIENCE, _SLOWEST = 60.0, 1000  # seconds after which no answer, or fewer bytes a second, mean a dead server
_NETWORK_TROUBLE = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ValueError,  # where a server redirects to what is no address
    OverflowError,
)
_LONGEST_READ = 4 << 20  # bytes that are asked of a tar file at once
_DEEPEST = 50  # folders within each other
_IN_THE_WAY = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_DAMAGE = (  # besides, `OSError` without a number
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    ValueError,
    struct.error,
)

_T = TypeVar("_T")


# --- download ---------------------------------------------------------------------------------------------------------


def download(
    url: str, target: str | Path, sha256: str | None = None, *, progress: bool = True, timeout: float = 30.0
) -> Path:
    """Fetch `url` (http, https or file) to the path `target`, which appears only when it is complete and checked.

    A connection that breaks is resumed where the server allows it, in this call and in later ones. Raises `UserError`
    when the address cannot be reached, saying where to put the file by hand, and when the content is not `sha256`.
    """
    target = Path(target)
    address = check_address(url)
    local = url2pathname(urlsplit(address).path) if address.startswith("file:") else ""
    if os.path.exists(local) and not os.path.isfile(local):
        raise UserError(f"cannot fetch {url}: it is no regular file")
    make_folder(target.parent)
    try:
        part = _fetch(address, target, progress, timeout)
    except _NETWORK_TROUBLE as error:
        raise UserError(f"cannot fetch {url} ({_reason(error)}); without a network, put it at {target}") from error
    try:
        check_sha256(part, sha256, url)
    except UserError:
        part.unlink()
        raise
    os.replace(part, target)
    return target


def check_address(url: str) -> str:
    """`url` as it is sent: letters beyond ASCII escaped. Raises `UserError` for what is no address."""
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https", "file"):
            raise ValueError("addresses start with http://, https:// or file://")
        if parts.scheme != "file" and (not parts.hostname or parts.port == 0):
            raise ValueError("it names no host")
        (parts.hostname or "").encode("idna")  # raises for a part of a name that is too long
        host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    except ValueError as error:  # UnicodeError is one
        raise UserError(f"cannot fetch '{url}': not an address ({error})") from error
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, host, path, query, ""))


def _fetch(url: str, target: Path, progress: bool, timeout: float) -> Path:
    """The complete content of `url` in a file beside `target`."""
    description = f"fetching {target.name}" if progress else ""
    for attempt in range(_TRIES):
        response = _open(url, timeout)
        part, total, resumable = _plan(url, response.headers, target)
        start = part.stat().st_size if resumable and part.is_file() else 0
        if start:
            response.close()
            if total is not None and start >= total:
                return part
            response = _open(url, timeout, start)
            if response.status != 206:  # the server sends all of it again
                start = 0
        try:
            with response:
                _save(response, part, start, total, description)
            if total is None or part.stat().st_size == total:
                return part
            raise ConnectionError(f"closed early, at {part.stat().st_size} of {total} bytes")
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if not resumable:
                part.unlink(missing_ok=True)
            if attempt == _TRIES - 1 or not resumable:
                raise
            LOGGER.info(f"{url}: {_reason(error)}; going on")
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


def _plan(url: str, headers: Message, target: Path) -> tuple[Path, int | None, bool]:
    """Partial file, size if told, and whether it may be resumed. The name holds the version the server speaks of."""
    length = headers["Content-Length"] or ""
    total = int(length) if length.isdigit() else None
    version = headers["ETag"] or headers["Last-Modified"]
    resumable = bool(version and total and headers["Accept-Ranges"] == "bytes")
    tag = hashlib.sha256(f"{url} {version} {total}".encode()).hexdigest()[:12]
    return target.with_name(f".{target.name}.{tag}.part"), total, resumable


def _open(url: str, timeout: float, start: int = 0):  # type: ignore[no-untyped-def]
    headers = {"User-Agent": "yolov5-mobilenetv2", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `download` has checked the scheme
    return _within(_PATIENCE, lambda: urllib.request.urlopen(request, timeout=timeout))  # noqa: S310


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """Run `work` in a thread of its own and return or raise what it does; `TimeoutError` where it takes longer.

    The timeout of a connection starts again with every byte, so a server that sends the lines before its content one
    letter at a time never trips it. The thread is left to itself then, and keeps no program from ending.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not future.done():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return future.result()


def _save(response: IO[bytes], part: Path, start: int, total: int | None, description: str) -> None:
    blocks = _blocks(response)
    count = None if total is None else -(-(total - start) // _BLOCK)
    with open(part, "ab" if start else "wb") as file:
        for block in Progress(blocks, description, count, unit="MB", enabled=bool(description)):
            file.write(block)


def _blocks(response: IO[bytes]) -> Iterator[bytes]:
    """The content in blocks of exactly `_BLOCK` bytes, but for the last one: their number is shown as the progress.

    Raises `TimeoutError` where a server sends next to nothing for long.
    """
    block, begin, count = bytearray(), time.monotonic(), 0
    while piece := response.read1(_BLOCK - len(block)):  # type: ignore[attr-defined]
        block += piece
        count += len(piece)
        seconds = time.monotonic() - begin
        if seconds > _PATIENCE and count < _SLOWEST * seconds:
            raise TimeoutError(f"only {count} bytes came in {seconds:.0f} s")
        if len(block) == _BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def check_sha256(file: Path, sha256: str | None, name: str = "") -> None:
    """Raise `UserError`, calling the file `name`, where its content has another checksum than `sha256` (if given).

    The first digits of the checksum will do, as torch puts them into the names of its files.
    """
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    if not digest.hexdigest().startswith(sha256.lower()):
        raise UserError(f"{name or file} is not the file expected: sha256 {digest.hexdigest()}, not {sha256.lower()}")


# --- unpack -----------------------------------------------------------------------------------------------------------


class _Member(NamedTuple):
    name: str
    size: int
    is_file: bool
    open: Callable[[], IO[bytes]]


def is_archive(name: str | Path) -> bool:
    """True where the name ends like an archive that `unpack` reads."""
    return str(name).lower().endswith(ARCHIVES)


def unpack(archive: str | Path, folder: str | Path, *, strip: str | None = None) -> int:
    """Unpack a zip or tar file into `folder` and return the number of files.

    A top folder named `strip` is left out of the paths. Nothing is written outside `folder`: absolute paths, ``..``,
    links and devices are refused, as are archives that grow out of all proportion, with a `UserError` that names the
    member. Hidden rubbish of macOS is passed over.
    """
    archive, folder = Path(archive), Path(folder)
    allowed = max(_FLOOR, _RATIO * archive.stat().st_size)
    written = files = 0
    try:
        for number, member in enumerate(_members(archive)):
            path = _inside(member.name, archive, strip)
            written += member.size
            if written > allowed or number >= _MOST_MEMBERS:
                raise UserError(f"{archive} grows beyond {allowed >> 20} MB at '{member.name}'; it looks like a bomb")
            if path is None:
                continue
            target = folder / path
            if member.size > shutil.disk_usage(folder if folder.exists() else archive.parent).free:
                raise UserError(f"no room for '{member.name}' of {archive} ({member.size >> 20} MB) in {folder}")
            try:
                _write(member, target)
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
                raise UserError(f"{archive} holds '{member.name}', which has no place: {error.strerror}") from error
            files += member.is_file
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the archive
        why = str(error).split("\n")[0].rstrip(":") or type(error).__name__
        raise UserError(f"{archive} is damaged or no archive ({why}); delete it and fetch it again") from error
    return files


def _write(member: _Member, target: Path) -> None:
    if not member.is_file:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, _BLOCK)


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if info.flag_bits & 1:
                    raise UserError(f"{archive} is encrypted ('{info.filename}'); unpack it by hand")
                if (info.external_attr >> 16) & 0o170000 == 0o120000:
                    raise UserError(f"{archive} holds a link ('{info.filename}'), which is not unpacked")
                yield _Member(info.filename, info.file_size, not info.is_dir(), partial(zipped.open, info))
        return
    with _Decompressed(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tape:  # type: ignore[call-overload]
        for entry in tape:
            if not (entry.isfile() or entry.isdir()):
                raise UserError(f"{archive} holds a link or device ('{entry.name}'), which is not unpacked")
            yield _Member(entry.name, entry.size, entry.isfile(), partial(tape.extractfile, entry))  # type: ignore[arg-type]
        behind = 0
        while block := stream.read(_BLOCK):  # the checksum of a compressed file stands at its very end
            behind += len(block)
            if behind > _FLOOR:
                raise tarfile.ReadError("it goes on and on behind its end")


class _Decompressed:
    """Open a tar file as a stream, decompressed as its first bytes say.

    `tarfile` reads a long name or a table of attributes at once, as long as it claims to be; that ends in an error.
    """

    def __init__(self, archive: Path) -> None:
        with open(archive, "rb") as file:
            head = file.read(6)
        kinds = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
        opener = next((opener for magic, opener in kinds.items() if head.startswith(magic)), open)
        self._file = opener(archive, "rb")  # type: ignore[operator]
        self.seek, self.tell = self._file.seek, self._file.tell

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _LONGEST_READ:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._file.read(count)

    def __enter__(self) -> _Decompressed:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _inside(name: str, archive: Path, strip: str | None) -> PurePosixPath | None:
    """The relative path that a member's name means; None for one that is passed over."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise UserError(f"{archive} would write outside its folder ('{name}'); it is not unpacked")
    if "__MACOSX" in path.parts or path.name in (".DS_Store", ""):
        return None
    if len(path.parts) > _DEEPEST:
        raise UserError(f"{archive} holds folders more than {_DEEPEST} deep ('{name}'); it is not unpacked")
    if strip is not None and path.parts[0] == strip:
        path = PurePosixPath(*path.parts[1:])
    return path if path.parts else None
