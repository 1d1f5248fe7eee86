"""The file that `torch.save` writes, in either of its containers: where its pickle is, and where the bytes of each
tensor are.

Nothing is unpacked to disk, and no size that the file claims is trusted: a storage is a range of the file, which is
checked against the file's length, and zip entries must be uncompressed, as torch writes them.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from models.checkpoints.unpickler import STORAGE_DTYPES, PickledObject, StorageRef, read_pickle
from utils.errors import UserError, one_line
from utils.logging import LOGGER

Buffer = mmap.mmap | bytearray

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file written by torch before 1.6
_AGAIN = "if it should be one, download or copy it again"


@dataclass
class Archive:
    """`tree`: the pickled object as data. `storages`: key → (offset, bytes) in `buffer`, which is the whole file."""

    source: str
    tree: Any
    buffer: Buffer
    storages: dict[str, tuple[int, int]]


def open_archive(path: str | Path, trust: bool = False, mapped: bool = False) -> Archive:
    """Read the structure of a torch file without executing anything in it.

    With `mapped` the file is mapped into memory (copy on write) instead of read. That is right for a file whose weights
    are taken out at once, and wrong for a file that may be overwritten meanwhile. Raises `UserError`, one line, for a
    file that is not a checkpoint.
    """
    path, source = Path(path), str(path)
    if path.is_dir():
        raise UserError(f"{source} is a folder, expected a checkpoint file such as weights/best.pt")
    if path.exists() and not path.is_file():
        raise UserError(f"{source} is a pipe or a device, expected a checkpoint file such as weights/best.pt")
    try:
        with path.open("rb") as file:
            buffer = _buffer(file, path.stat().st_size, mapped)
            head = bytes(buffer[:512])
            if head[:4] == b"PK\x03\x04":
                archive, unlisted = _open_zip(source, file, buffer, trust)
            elif head[:1] == b"\x80":
                archive, unlisted = _open_legacy(source, file, buffer, trust)
            else:
                raise UserError(f"{source} is not a PyTorch checkpoint but {_kind(head)}")
    except OSError as error:
        raise UserError(f"cannot read '{source}': {error.strerror or error}") from error
    if unlisted:
        shown = one_line(", ".join(unlisted), 500)
        LOGGER.warning(f"{source}: trusted and read as data, not executed: {shown}")
    return archive


def _buffer(file: IO[bytes], size: int, mapped: bool) -> Buffer:
    """The whole file, writable in memory only (torch requires writable buffers)."""
    if mapped and size:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    buffer = bytearray(size)
    file.readinto(buffer)  # type: ignore[attr-defined]
    file.seek(0)
    return buffer


def _kind(head: bytes) -> str:
    """What a file that begins with `head` seems to be."""
    if not head:
        return f"an empty file; {_AGAIN}"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: the download met a login or error page; fetch the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run 'git lfs pull' to get the file itself"
    return f"something else (it begins with {head[:8]!r}); {_AGAIN}"


def _open_zip(source: str, file: IO[bytes], buffer: Buffer, trust: bool) -> tuple[Archive, list[str]]:
    """The container of torch since 1.6: a zip with the pickle, the byte order, and an entry for each storage."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = {info.filename: info for info in archive.infolist()}
        root = _root(source, set(infos))
        entries = {
            name[len(root) :]: _extent(info, buffer)
            for name, info in infos.items()
            if name in (f"{root}data.pkl", f"{root}byteorder") or name.startswith(f"{root}data/")
        }
    except (zipfile.BadZipFile, struct.error, ValueError, EOFError, NotImplementedError) as error:
        raise UserError(f"{source} is truncated or damaged ({error}); download or copy it again") from error
    if (order := entries.get("byteorder")) and bytes(buffer[order[0] : sum(order)]) == b"big":
        raise UserError(f"{source} was written on a big-endian machine; save it again on a little-endian one")
    start, size = entries["data.pkl"]
    tree, unlisted = read_pickle(io.BytesIO(buffer[start : start + size]), source, trust)
    storages = {name[5:]: extent for name, extent in entries.items() if name.startswith("data/")}
    return Archive(source, tree, buffer, storages), unlisted


def _root(source: str, names: set[str]) -> str:
    """The folder in the zip that holds a checkpoint's parts, with a slash at its end."""
    roots = [name[: -len("data.pkl")] for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise UserError(f"{source} is a zip archive, but not one written by torch.save; expected a checkpoint (.pt)")
    if f"{roots[0]}constants.pkl" in names:
        raise UserError(f"{source} is a TorchScript program, expected a checkpoint; give the .pt it was exported from")
    return roots[0]


def _extent(entry: zipfile.ZipInfo, buffer: Buffer) -> tuple[int, int]:
    """(offset, bytes) of an entry's content, from its local header."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"entry {entry.filename!r} is compressed or encrypted")
    name_bytes, extra_bytes = struct.unpack_from("<HH", buffer, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_bytes + extra_bytes
    if start + entry.file_size > len(buffer):
        raise ValueError(f"entry {entry.filename!r} reaches beyond the end of the file")
    return start, entry.file_size


def _open_legacy(source: str, file: IO[bytes], buffer: Buffer, trust: bool) -> tuple[Archive, list[str]]:
    """The container of torch before 1.6: one pickle after the other (magic number, version, machine, object, storage
    keys), then each storage as its number of elements (int64) and its bytes."""
    magic, _ = read_pickle(file, source)
    if magic != _LEGACY_MAGIC:
        raise UserError(f"{source} is a pickle, but not one written by torch.save; expected a checkpoint (.pt)")
    for _ in ("protocol version", "machine"):
        read_pickle(file, source)
    tree, unlisted = read_pickle(file, source, trust)
    keys, _ = read_pickle(file, source)
    kinds = {ref.key: ref.kind for ref in _storage_refs(tree)}
    storages: dict[str, tuple[int, int]] = {}
    position = file.tell()
    for key in keys if isinstance(keys, list) else []:
        if key not in kinds or kinds[key] not in STORAGE_DTYPES:
            raise UserError(f"{source} is damaged: storage {key!r} is of no known type")
        if position + 8 > len(buffer):
            raise UserError(f"{source} is truncated or damaged (storage {key!r} is missing); download or copy it again")
        size = struct.unpack_from("<q", buffer, position)[0] * STORAGE_DTYPES[kinds[key]].itemsize
        storages[key] = (position + 8, size)
        position += 8 + max(size, 0)
    return Archive(source, tree, buffer, storages), unlisted


def _storage_refs(tree: Any) -> list[StorageRef]:
    """Every reference to a storage in `tree`; parts that are shared or cyclic are visited once."""
    found, seen, waiting = [], set(), [tree]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, StorageRef):
            found.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif isinstance(value, PickledObject):
            waiting.extend((value.args, value.state, value.items))
    return found
