"""The restricted unpickler: it reads a pickle as data, without running or importing anything that the pickle names.

Published YOLOv5 checkpoints are pickled Python objects, and a pickle is a program: its instructions name any importable
function and call it. This is the only file that imports `pickle`. It is safe for these reasons, each of which is
tested with crafted files:

1. `RestrictedUnpickler.find_class`, the only way from a name in the file to an object, never imports anything. It
   returns a new, empty subclass of `PickledObject` (or `PickledDict` for `OrderedDict`), so a "call" in the file only
   records its arguments. No class, function, `__init__`, `__setstate__` or `__reduce__` of a library or of the file's
   author runs, not even with `trust=True`, which only allows more names.
2. A name that is not on the allow-list is refused before anything is built from it.
3. Only the instructions that `torch.save` writes are known. Those that build objects go through `_construct` and
   `load_build`, which accept nothing but the classes above.
4. It builds on the implementation of `pickle` in Python, not on the one in C, which allocates memory for any memo
   index that the file claims (a file of ten bytes costs 32 GB). It reads yolov5n.pt in 12 ms.

The elements of tensors are not in the pickle; `decoder.py` takes them out of the file, with its bounds checked.
"""

from __future__ import annotations

import pickle  # only for the restricted unpickler below
from typing import IO, Any, ClassVar

import torch

from utils.errors import UserError

STORAGE_DTYPES = {
    "torch.DoubleStorage": torch.float64, "torch.FloatStorage": torch.float32, "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16, "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}  # fmt: skip

# Any class of these modules is on the allow-list: the blocks and modules that networks are made of.
_ALLOWED_MODULES = ("torch.nn.modules.", "torch.nn.parallel.", "models.common.", "models.yolo.",
                    "models.experimental.", "utils.activations.")  # fmt: skip

_ALLOWED_NAMES = frozenset(
    [
        "_codecs.encode",
        "argparse.Namespace",
        *(f"builtins.{name}" for name in ("bytearray", "complex", "frozenset", "getattr", "object", "set")),
        "collections.OrderedDict",
        "copyreg._reconstructor",
        *(f"datetime.{name}" for name in ("date", "datetime", "timedelta", "timezone")),
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(
            f"{module}.{name}"
            for module in ("pathlib", "pathlib._local")
            for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
        ),
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch._tensor._rebuild_from_type_v2",
        *(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "parameter", "parameter_with_state")),
        *STORAGE_DTYPES,
        *map(str, STORAGE_DTYPES.values()),
    ]
)

_PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # pickle protocol 2 still writes these names

# fmt: off
_OPCODES = [
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT,
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.LONG4,
    pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINSTRING, pickle.SHORT_BINSTRING,
    pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8,
    pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.ADDITEMS,
    pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
    pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID,
]
# fmt: on


class PickledObject:
    """A stand-in for a pickled object: the name of its class (`path`), the arguments of its call and its state."""

    __slots__ = ("args", "items", "state")
    path = ""
    args: tuple[Any, ...]
    state: Any
    items: list[Any]

    def __new__(cls, *args: Any) -> PickledObject:
        self = object.__new__(cls)
        self.args, self.state, self.items = args, None, []
        return self

    def append(self, item: Any) -> None:
        self.items.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    @property
    def attributes(self) -> dict[Any, Any]:
        """The instance dictionary, empty for an object that was pickled without one."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state if isinstance(state, dict) else {}


class PickledDict(dict):
    """A dict whose keys are plain values: hashing a nested tuple from a hostile file could take forever."""

    __slots__ = ()
    path = "collections.OrderedDict"

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__()
        for key, value in pairs:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, int, float, bytes, type(None))):
            raise TypeError(f"{type(key).__name__} as a key")
        if isinstance(key, int) and key.bit_length() > 64:  # a long integer is hashed anew each time
            raise ValueError("an integer of more than 64 bits as a key")
        super().__setitem__(key, value)


class PickledSet(list):
    """A pickled set; its members are not hashed, for the same reason."""

    __slots__ = ()
    add = list.append


class StorageRef:
    """A reference to the bytes of a tensor, which are elsewhere in the file. `kind`: a key of `STORAGE_DTYPES`."""

    __slots__ = ("key", "kind", "numel")

    def __init__(self, key: str, kind: str, numel: int) -> None:
        self.key, self.kind, self.numel = key, kind, numel


class RestrictedUnpickler(pickle._Unpickler):
    """Builds only the classes above, lists, tuples, numbers and strings; see the top of the file."""

    stack: list[Any]  # the base class sets these two while it reads
    append: Any
    dispatch: ClassVar[dict[int, Any]] = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}

    def __init__(self, stream: IO[bytes], source: str, trust: bool) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self.source = source
        self.trust = trust
        self.unlisted: list[str] = []
        self._classes: dict[str, type] = {PickledDict.path: PickledDict}

    def find_class(self, module: str, name: str) -> type:
        """A `PickledObject` class for ``module.name``; nothing is imported."""
        path = f"{_PYTHON_2_MODULES.get(module, module)}.{name}"
        if path not in self._classes:
            if path.startswith("ultralytics."):
                raise UserError(
                    f"{self.source} comes from the ultralytics package (YOLOv8 or later, or an anchor-free YOLOv5u); "
                    "its networks are not those of YOLOv5 v6/v7, which this project reads"
                )
            if path not in _ALLOWED_NAMES and not path.startswith(_ALLOWED_MODULES):
                if not self.trust:
                    raise UserError(
                        f"{self.source} contains the pickled class {path}, which is not on the allow-list; "
                        "if you trust this file, pass --trust"
                    )
                self.unlisted.append(path)
            self._classes[path] = type("PickledObject", (PickledObject,), {"__slots__": (), "path": path})
        return self._classes[path]

    def persistent_load(self, pid: Any) -> Any:
        """The storage that ``('storage', type, key, location, numel[, view])`` refers to.

        In the container of torch before 1.6, also the class in ``('module', class, file, source text)``; the source
        text is ignored.
        """
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and _is_pickled_class(pid[1]):
            return pid[1]
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage" and pid[5:] in ((), (None,))):
            raise ValueError("a reference to something other than a tensor's storage")
        _, kind, key, _, numel = pid[:5]
        if not (_is_pickled_class(kind) and isinstance(key, str) and isinstance(numel, int)):
            raise ValueError("a malformed reference to a tensor's storage")
        return StorageRef(key, kind.path, numel)

    def _construct(self, cls: Any, args: Any) -> Any:
        if not _is_pickled_class(cls) or not isinstance(args, tuple):
            raise TypeError("a call of something that is not a class")
        if cls.path == "builtins.getattr" and not _is_detect_forward(args):
            owner = args[0].path if args and _is_pickled_class(args[0]) else "…"
            raise UserError(
                f"{self.source} contains a pickled getattr call on {owner}, which is not on the allow-list; "
                "only models.yolo.Detect.forward may be looked up that way"
            )
        return cls(*args)

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._construct(self.stack[-1], args)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, PickledObject):
            target.state = state
        elif not isinstance(target, PickledDict):  # the attributes of an OrderedDict (`_metadata`) are not needed
            raise TypeError(f"state for a {type(target).__name__}")

    def load_empty_dict(self) -> None:
        self.append(PickledDict())

    def load_empty_set(self) -> None:
        self.append(PickledSet())

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce  # cls.__new__(cls, *args) is the same where no class has an __init__
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dict
    dispatch[pickle.EMPTY_SET[0]] = load_empty_set


def _is_pickled_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, (PickledObject, PickledDict))


def _is_detect_forward(args: tuple[Any, ...]) -> bool:
    """True for the one look-up in published files: v7's `Segment` keeps `Detect.forward` as an attribute."""
    return args[1:] == ("forward",) and _is_pickled_class(args[0]) and args[0].path == "models.yolo.Detect"


def read_pickle(stream: IO[bytes], source: str, trust: bool = False) -> tuple[Any, list[str]]:
    """The next pickle in `stream` as data, and the names outside the allow-list that `trust` allowed.

    Raises `UserError` for a name that is not on the allow-list and for a damaged pickle.
    """
    unpickler = RestrictedUnpickler(stream, source, trust)
    try:
        return unpickler.load(), unpickler.unlisted
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way; the cause stays attached
        raise UserError(
            f"{source} is damaged or was not written by torch.save ({type(error).__name__}: {error}); "
            "download or copy it again"
        ) from error
