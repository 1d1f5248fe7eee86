"""The file in which a scanned split is kept: plain arrays, with a key that says which files they came from."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.files import atomic_write
from utils.logging import LOGGER

VERSION = 2  # raise it when what is read from labels or images changes


def fingerprint(images: Sequence[str], labels: Sequence[str], *options: object) -> bytes:
    """Digest of names, sizes and modification times of all files (an absent one counts as such) and of `options`."""
    digest = hashlib.blake2b(repr((VERSION, *options)).encode(), digest_size=32)
    for files in (images, labels):
        digest.update("\n".join(files).encode(errors="surrogateescape"))
        stamps = np.full((len(files), 2), -1, np.int64)
        for i, file in enumerate(files):
            try:
                status = os.stat(file)
            except OSError:
                continue
            stamps[i] = status.st_size, status.st_mtime_ns
        digest.update(stamps.tobytes())
    return digest.digest()


def cache_path(sources: Sequence[str | Path], first_label: str, *, polygons: bool) -> Path:
    """``labels/train2017.boxes.cache`` for images in one folder; a ``.txt`` list has it at its side.

    Several sources have their number and a digest in the name, so that ``train: [a, b]`` and ``val: a`` do not take
    each other's file.
    """
    place = Path(sources[0]) if str(sources[0]).endswith(".txt") else Path(first_label).parent
    kind = "polygons" if polygons else "boxes"
    if len(sources) > 1:
        digest = hashlib.blake2b("\n".join(map(str, sources)).encode(errors="surrogateescape"), digest_size=4)
        kind = f"{len(sources)}-{digest.hexdigest()}.{kind}"
    return place.with_name(f"{place.stem}.{kind}.cache")


def load_arrays(path: Path, key: bytes) -> dict[str, np.ndarray] | None:
    """The arrays kept in `path` if they are whole and have this key, else None."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if stored["key"].tobytes() != key:
                return None
            return {name: stored[name] for name in stored.files if name != "key"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        LOGGER.info(f"{path} cannot be read ({error}) and is made anew")
        return None


def save_arrays(path: Path, key: bytes, arrays: dict[str, np.ndarray]) -> None:
    """Keep `arrays` in `path`; where that cannot be written, say so and go on."""
    try:
        with atomic_write(path) as file:
            np.savez(file, key=np.frombuffer(key, np.uint8), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        LOGGER.info(f"labels are read anew each time: {path} cannot be written ({error.strerror})")
