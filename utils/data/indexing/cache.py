"""The file in which a scanned split is cached: arrays, with a key that says from which files they came."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.files import atomic_write, open_file
from utils.logging import LOGGER

VERSION = 3  # to be raised whenever something else is read from labels or images


def fingerprint(images: Sequence[str], labels: Sequence[str], *options: object) -> bytes:
    """A digest of the names, sizes and modification times of all files, and of `options`. Files may be absent."""
    digest = hashlib.blake2b(repr((VERSION, *options)).encode(), digest_size=32)
    for files in (images, labels):
        digest.update("\n".join(files).encode(errors="surrogateescape"))
        stamps = np.full((len(files), 2), -1, np.int64)
        for i, file in enumerate(files):
            try:
                status = os.stat(file)
            except (OSError, ValueError):  # a name that no file can have
                continue
            stamps[i] = status.st_size, status.st_mtime_ns
        digest.update(stamps.tobytes())
    return digest.digest()


def cache_path(sources: Sequence[str | Path], first_label: str, *, polygons: bool) -> Path:
    """The cache file: ``labels/train2017.boxes.cache`` for images in one folder, a file beside it for a ``.txt`` list.

    For several sources the name contains their number and a digest, so that ``train: [a, b]`` and ``val: a`` have
    different files.
    """
    place = Path(sources[0]) if str(sources[0]).endswith(".txt") else Path(first_label).parent
    kind = "polygons" if polygons else "boxes"
    if len(sources) > 1:
        digest = hashlib.blake2b("\n".join(map(str, sources)).encode(errors="surrogateescape"), digest_size=4)
        kind = f"{len(sources)}-{digest.hexdigest()}.{kind}"
    return place.with_name(f"{place.stem}.{kind}.cache")


def load_arrays(path: Path, key: bytes) -> dict[str, np.ndarray] | None:
    """The arrays in `path` if they have this key, else None. Raises exceptions of all kinds for a damaged file.

    These files are not compressed, so never more is read than the file has.
    """
    if not path.is_file():
        return None
    with open_file(path) as file, zipfile.ZipFile(file) as stored:
        names = {info.filename.removesuffix(".npy"): info for info in stored.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in names.values()):
            raise ValueError("it is compressed")
        if from_npy(stored.read(names.pop("key"))).tobytes() != key:
            return None
        return {name: from_npy(stored.read(info)).copy() for name, info in names.items()}


def from_npy(data: bytes) -> np.ndarray:
    """The array in the content of a ``.npy`` file. It must not be written to.

    Unlike `numpy.load`, this never makes an array that is larger than the file. Raises `ValueError` for other content.
    """
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("it is of another version")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if by_columns else "C")


def save_arrays(path: Path, key: bytes, arrays: dict[str, np.ndarray]) -> None:
    """Write `arrays` to `path`. If that is impossible, log it and go on."""
    try:
        with atomic_write(path) as file:
            np.savez(file, key=np.frombuffer(key, np.uint8), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        LOGGER.info(f"labels are read anew each time: {path} cannot be written ({error.strerror})")
