"""From inert data to plain values: numbers, strings, lists, mappings, and tensors cut out of the file.

Everything here is our own code over arguments that a file recorded; sizes, offsets and types are checked before use.
"""

from __future__ import annotations

import datetime
import math
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

from models.checkpoints.archive import ITEM_BYTES, Archive
from models.checkpoints.published import StandIn, StorageRef
from utils.errors import UserError

_DTYPES = {
    "torch.DoubleStorage": torch.float64, "torch.FloatStorage": torch.float32, "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16, "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}  # fmt: skip

_MAX_VALUES = 300_000  # a file of a few kilobytes can describe a tree with more leaves than there is memory
_MOST_DEPTH = 100  # lists and mappings within each other
_LARGEST_INT = 1 << 64
_SPARE_BYTES = 1 << 20
_NUMBER_KINDS = "biuf"  # numpy dtype letters: bool, signed, unsigned, float; never object


class Values:
    """Turns the inert data of one archive into plain values.

    Tensors share the archive's buffer; they live on the CPU in the type they were stored in. An object of a class that
    stands for no plain value becomes None. Damage is reported as `UserError`.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._flat: dict[tuple[str, str], torch.Tensor] = {}
        self._count = self._depth = self._copied = 0

    def plain(self, value: Any) -> Any:
        """`value` with every stand-in replaced, tuples and key types kept."""
        self._count += 1
        if self._count > _MAX_VALUES:
            raise self.damaged("it describes more values than any checkpoint holds")
        if self._depth > _MOST_DEPTH:
            raise self.damaged("its values are nested deeper than any checkpoint's")
        self._depth += 1
        try:
            if isinstance(value, dict):
                return {key: self.plain(item) for key, item in value.items()}
            if isinstance(value, tuple):
                return tuple(self.plain(item) for item in value)
            if isinstance(value, list):
                return [self.plain(item) for item in value]
            if isinstance(value, StandIn):
                return self._of_stand_in(value)
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
        if isinstance(value, int) and abs(value) > _LARGEST_INT:
            raise self.damaged("a whole number has more digits than any checkpoint needs")
        if isinstance(value, (type, StorageRef)):  # a class as such, for example the `default_act` of a block
            return None
        return value

    def is_tensor(self, value: Any) -> bool:
        """True for a stand-in of a tensor or parameter."""
        return isinstance(value, StandIn) and value.path.startswith(("torch._utils._rebuild_", "torch._tensor._"))

    def _of_stand_in(self, value: StandIn) -> Any:
        path, args = value.path, value.args
        if path in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self._tensor(*args[:4])
        if path.startswith("torch._utils._rebuild_parameter"):
            return self.plain(args[0])
        if path == "torch._tensor._rebuild_from_type_v2":  # (rebuild function, type, arguments, attributes)
            return self.plain(args[0](*args[2])) if isinstance(args[0], type) else None
        if path.startswith("numpy."):
            return self._numpy(value)
        if path.startswith("pathlib."):
            pure = PureWindowsPath if "Windows" in path else PurePosixPath
            parts = [str(part) for part in args]
            self._copy(sum(map(len, parts)))
            return pure(*parts).as_posix()
        if path.startswith("datetime."):
            return self._time(path, args)
        if path == "argparse.Namespace":
            return self.plain(value.attributes)
        if path in ("builtins.set", "builtins.frozenset", "torch.Size"):
            return self.plain(list(args[0])) if args else []
        if path == "_codecs.encode":  # how pickle protocol 2 writes bytes
            self._copy(len(args[0]))
            return str(args[0]).encode("latin1")
        return None

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> torch.Tensor:
        if not isinstance(storage, StorageRef) or storage.kind not in _DTYPES:
            raise self.damaged(f"a tensor of unsupported type {getattr(storage, 'kind', storage)!r}")
        size = tuple(self.plain(size))  # torch.Size or a tuple
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise self.damaged("a tensor with a malformed shape")
        flat = self._flat_storage(storage)
        elements = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if elements else offset
        if elements and last >= flat.numel():
            raise self.damaged(f"a tensor of shape {list(size)} reaches beyond its storage")
        if elements > flat.numel():  # zero strides: a few bytes that claim to be gigabytes
            raise self.damaged(f"a tensor of shape {list(size)} is larger than its storage")
        return flat.as_strided(size, stride, offset)

    def _flat_storage(self, storage: StorageRef) -> torch.Tensor:
        """All elements of a storage, one-dimensional, sharing the file's buffer."""
        key = (storage.key, storage.kind)
        if key not in self._flat:
            if storage.key not in self._archive.storages:
                raise self.damaged(f"storage {storage.key!r} is missing")
            start, size = self._archive.storages[storage.key]
            needed = storage.numel * ITEM_BYTES[storage.kind]
            if storage.numel < 0 or needed > size or start + size > len(self._archive.buffer):
                raise self.damaged(f"storage {storage.key!r} claims {needed} bytes and the file does not hold them")
            dtype, buffer = _DTYPES[storage.kind], self._archive.buffer
            if needed == 0:
                self._flat[key] = torch.empty(0, dtype=dtype)
            elif start % ITEM_BYTES[storage.kind]:  # unaligned (old container): some processors want a copy
                self._copy(needed)
                self._flat[key] = torch.frombuffer(bytearray(buffer[start : start + needed]), dtype=dtype)
            else:
                self._flat[key] = torch.frombuffer(buffer, dtype=dtype, count=storage.numel, offset=start)
        return self._flat[key]

    def _numpy(self, value: StandIn) -> Any:
        """A numpy scalar as a Python number, a numeric array as a tensor."""
        if value.path.endswith(".scalar"):
            kind, data = self._numpy_dtype(value.args[0]), self.plain(value.args[1])
            return np.frombuffer(data, kind, count=1)[0].item()
        if value.path.endswith("._reconstruct"):
            _, shape, kind, by_column, data = value.state
            array = np.frombuffer(self.plain(data), self._numpy_dtype(kind))
            self._copy(array.nbytes)
            array = array.reshape(shape, order="F" if by_column else "C")
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        return None  # a dtype on its own

    def _numpy_dtype(self, value: Any) -> np.dtype:
        """The dtype of a recorded ``numpy.dtype('f8', …)`` with its state ``(version, byte order, …)``."""
        code = value.args[0] if isinstance(value, StandIn) and value.path == "numpy.dtype" and value.args else None
        if not isinstance(code, str) or code[:1] not in _NUMBER_KINDS or not code[1:].isdecimal():
            raise self.damaged(f"a numpy array of type {code!r}; only numbers are read")
        dtype = np.dtype(code)
        order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
        return dtype.newbyteorder(">" if order == ">" else "<")

    def _time(self, path: str, args: tuple[Any, ...]) -> str | None:
        kind = {"datetime.datetime": datetime.datetime, "datetime.date": datetime.date}.get(path)
        return kind(*(self.plain(a) for a in args[:1])).isoformat() if kind else None  # type: ignore[arg-type]

    def _copy(self, size: int) -> None:
        """Take note that `size` bytes of the file are going to be copied.

        A pickle may mention one piece of itself a hundred thousand times, so what is copied is bounded by the file.
        """
        self._copied += size
        if self._copied > 4 * len(self._archive.buffer) + _SPARE_BYTES:
            raise self.damaged("its values are many times larger than the file")

    def damaged(self, what: str) -> UserError:
        """The error for content that `torch.save` would not have written."""
        return UserError(f"{self._archive.source} is damaged or malicious: {what}; download or copy it again")
