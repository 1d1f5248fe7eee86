"""A file written by `torch.save`, either container: where its pickle is and where the bytes of each tensor lie.

Nothing is unpacked to disk and no size in the file is believed: a storage is a stretch of the file, checked against the
file's length, and entries must be stored uncompressed, as torch writes them.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from models.checkpoints.published import StandIn, StorageRef, read_pickle
from utils.errors import UserError, one_line
from utils.logging import LOGGER

Buffer = mmap.mmap | bytearray

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file written by torch before 1.6
_AGAIN = "if it should be one, download or copy it again"

ITEM_BYTES = {
    "torch.DoubleStorage": 8, "torch.FloatStorage": 4, "torch.HalfStorage": 2, "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8, "torch.IntStorage": 4, "torch.ShortStorage": 2, "torch.CharStorage": 1,
    "torch.ByteStorage": 1, "torch.BoolStorage": 1,
}  # fmt: skip


@dataclass
class Archive:
    """`tree`: the pickled object as inert data. `storages`: key → (offset, bytes) in `buffer`, the whole file."""

    source: str
    tree: Any
    buffer: Buffer
    storages: dict[str, tuple[int, int]]


def open_archive(path: str | Path, trust: bool = False, mapped: bool = False) -> Archive:
    """Read the structure of a torch file without executing anything of it.

    With `mapped` the file is memory-mapped (copy on write) instead of read: right for taking weights out and letting
    go, wrong for a file that will be overwritten meanwhile. Raises `UserError`, one line, for whatever is no
    checkpoint.
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
        LOGGER.warning(f"{source}: trusted and read as inert data, not executed: {shown}")
    return archive


def _buffer(file: IO[bytes], size: int, mapped: bool) -> Buffer:
    """The whole file, writable in memory only (torch wants its buffers so)."""
    if mapped and size:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    buffer = bytearray(size)
    file.readinto(buffer)  # type: ignore[attr-defined]
    file.seek(0)
    return buffer


def _kind(head: bytes) -> str:
    """What a file with this beginning seems to be."""
    if not head:
        return f"an empty file; {_AGAIN}"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: the download met a login or error page; fetch the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run 'git lfs pull' to get the file itself"
    return f"something else (it begins with {head[:8]!r}); {_AGAIN}"


def _open_zip(source: str, file: IO[bytes], buffer: Buffer, trust: bool) -> tuple[Archive, list[str]]:
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
    """The folder in the zip, with a slash behind it, that holds a checkpoint's parts."""
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
    """The container of torch before 1.6: pickles one behind the other (magic, version, machine, object, storage keys),
    then per storage its number of elements (int64) and its bytes."""
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
        if key not in kinds or kinds[key] not in ITEM_BYTES:
            raise UserError(f"{source} is damaged: storage {key!r} is of no known type")
        if position + 8 > len(buffer):
            raise UserError(f"{source} is truncated or damaged (storage {key!r} is missing); download or copy it again")
        size = struct.unpack_from("<q", buffer, position)[0] * ITEM_BYTES[kinds[key]]
        storages[key] = (position + 8, size)
        position += 8 + max(size, 0)
    return Archive(source, tree, buffer, storages), unlisted


def _storage_refs(tree: Any) -> list[StorageRef]:
    """Every reference to a storage in `tree`; shared and cyclic parts are visited once."""
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
        elif isinstance(value, StandIn):
            waiting.extend((value.args, value.state, value.items))
    return found
