"""From pickled stand-ins to plain values: numbers, strings, lists, dicts, and tensors cut out of the file.

Only our own code works here, on arguments that the file recorded; sizes, offsets and types are checked before use.
"""

from __future__ import annotations

import datetime
import math
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

from models.checkpoints.archive import Archive
from models.checkpoints.unpickler import STORAGE_DTYPES, PickledObject, StorageRef
from utils.errors import UserError

_MAX_VALUES = 300_000  # a file of a few kilobytes can describe more values than fit into memory
_MAX_DEPTH = 100  # lists and dicts within each other
_MAX_INT = 1 << 64
_SPARE_BYTES = 1 << 20
_NUMBER_KINDS = "biuf"  # numpy dtype letters: bool, signed, unsigned, float; never object


class Decoder:
    """Turns the pickled stand-ins of one archive into plain values.

    Tensors share the archive's buffer; they are on the CPU in the type they were stored in. An object of a class that
    has no plain counterpart becomes None. Damage is reported as `UserError`.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._storages: dict[tuple[str, str], torch.Tensor] = {}  # (key, type) → all elements
        self._count = self._depth = self._copied = 0

    def decode(self, value: Any) -> Any:
        """`value` with every stand-in replaced; tuples and the types of keys are kept."""
        self._count += 1
        if self._count > _MAX_VALUES:
            raise self.damaged("it describes more values than any checkpoint holds")
        if self._depth > _MAX_DEPTH:
            raise self.damaged("its values are nested deeper than any checkpoint's")
        self._depth += 1
        try:
            if isinstance(value, dict):
                return {key: self.decode(item) for key, item in value.items()}
            if isinstance(value, tuple):
                return tuple(self.decode(item) for item in value)
            if isinstance(value, list):
                return [self.decode(item) for item in value]
            if isinstance(value, PickledObject):
                return self._object(value)
        except (
            LookupError,
            TypeError,
            ValueError,
            ArithmeticError,
            AttributeError,
            RuntimeError,
            MemoryError,
        ) as error:
            raise self.damaged(f"{type(error).__name__}: {error}") from error
        finally:
            self._depth -= 1
        if isinstance(value, int) and abs(value) > _MAX_INT:
            raise self.damaged("an integer has more digits than any checkpoint needs")
        if isinstance(value, (type, StorageRef)):  # a class as such, for example the `default_act` of a block
            return None
        return value

    def is_tensor(self, value: Any) -> bool:
        """True for the stand-in of a tensor or parameter."""
        return isinstance(value, PickledObject) and value.path.startswith(("torch._utils._rebuild_", "torch._tensor._"))

    def _object(self, value: PickledObject) -> Any:
        path, args = value.path, value.args
        if path in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self._tensor(*args[:4])
        if path.startswith("torch._utils._rebuild_parameter"):
            return self.decode(args[0])
        if path == "torch._tensor._rebuild_from_type_v2":  # (rebuild function, type, arguments, attributes)
            return self.decode(args[0](*args[2])) if isinstance(args[0], type) else None
        if path.startswith("numpy."):
            return self._numpy(value)
        if path.startswith("pathlib."):
            pure = PureWindowsPath if "Windows" in path else PurePosixPath
            parts = [str(part) for part in args]
            self._count_copied(sum(map(len, parts)))
            return pure(*parts).as_posix()
        if path in ("datetime.datetime", "datetime.date"):
            kind = datetime.datetime if path == "datetime.datetime" else datetime.date
            return kind(*map(self.decode, args[:1])).isoformat()  # type: ignore[arg-type]
        if path == "argparse.Namespace":
            return self.decode(value.attributes)
        if path in ("builtins.set", "builtins.frozenset", "torch.Size"):
            return self.decode(list(args[0])) if args else []
        if path == "_codecs.encode":  # how pickle protocol 2 writes bytes
            self._count_copied(len(args[0]))
            return str(args[0]).encode("latin1")
        return None

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> torch.Tensor:
        if not isinstance(storage, StorageRef) or storage.kind not in STORAGE_DTYPES:
            raise self.damaged(f"a tensor of unsupported type {getattr(storage, 'kind', storage)!r}")
        size = tuple(self.decode(size))  # torch.Size or a tuple
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise self.damaged("a tensor with a malformed shape")
        flat = self._storage(storage)
        elements = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if elements else offset
        if elements and last >= flat.numel():
            raise self.damaged(f"a tensor of shape {list(size)} reaches beyond its storage")
        if elements > flat.numel():  # with strides of zero a few bytes can claim to be gigabytes
            raise self.damaged(f"a tensor of shape {list(size)} is larger than its storage")
        return flat.as_strided(size, stride, offset)

    def _storage(self, storage: StorageRef) -> torch.Tensor:
        """All elements of a storage as a one-dimensional tensor that shares the file's buffer."""
        key = (storage.key, storage.kind)
        if key not in self._storages:
            if storage.key not in self._archive.storages:
                raise self.damaged(f"storage {storage.key!r} is missing")
            start, size = self._archive.storages[storage.key]
            dtype, buffer = STORAGE_DTYPES[storage.kind], self._archive.buffer
            needed = storage.numel * dtype.itemsize
            if storage.numel < 0 or needed > size or start + size > len(buffer):
                raise self.damaged(f"storage {storage.key!r} claims {needed} bytes and the file does not hold them")
            if needed == 0:
                self._storages[key] = torch.empty(0, dtype=dtype)
            elif start % dtype.itemsize:  # unaligned, in files of torch before 1.6: some processors need a copy
                self._count_copied(needed)
                self._storages[key] = torch.frombuffer(bytearray(buffer[start : start + needed]), dtype=dtype)
            else:
                self._storages[key] = torch.frombuffer(buffer, dtype=dtype, count=storage.numel, offset=start)
        return self._storages[key]

    def _numpy(self, value: PickledObject) -> Any:
        """A numpy scalar as a Python number, a numeric array as a tensor."""
        if value.path.endswith(".scalar"):
            dtype, data = self._numpy_dtype(value.args[0]), self.decode(value.args[1])
            return np.frombuffer(data, dtype, count=1)[0].item()
        if value.path.endswith("._reconstruct"):
            _, shape, dtype, by_column, data = value.state
            array = np.frombuffer(self.decode(data), self._numpy_dtype(dtype))
            self._count_copied(array.nbytes)
            array = array.reshape(shape, order="F" if by_column else "C")
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        return None  # a dtype on its own

    def _numpy_dtype(self, value: Any) -> np.dtype:
        """The dtype of a recorded ``numpy.dtype('f8', …)`` with its state ``(version, byte order, …)``."""
        is_dtype = isinstance(value, PickledObject) and value.path == "numpy.dtype" and value.args
        code = value.args[0] if is_dtype else None
        if not isinstance(code, str) or code[:1] not in _NUMBER_KINDS or not code[1:].isdecimal():
            raise self.damaged(f"a numpy array of type {code!r}; only numbers are read")
        order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
        return np.dtype(code).newbyteorder(">" if order == ">" else "<")

    def _count_copied(self, size: int) -> None:
        """Add `size` to the bytes copied out of the file.

        A pickle may refer to one part of itself a hundred thousand times, so the size of the file limits their sum.
        """
        self._copied += size
        if self._copied > 4 * len(self._archive.buffer) + _SPARE_BYTES:
            raise self.damaged("its values are many times larger than the file")

    def damaged(self, what: str) -> UserError:
        """The error for content that `torch.save` would not have written."""
        return UserError(f"{self._archive.source} is damaged or malicious: {what}; download or copy it again")
