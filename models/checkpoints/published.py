"""Reading a pickle as inert data: an allow-list of names, and a stand-in for every one of them.

Published YOLOv5 checkpoints are pickled Python objects, and a pickle is a program: its instructions name any importable
function and call it. This is the one file that imports `pickle`, and it is safe for these reasons, each of them tested
with crafted files:

1. `InertUnpickler.find_class`, the only way from a name in the file to an object, never imports anything. It answers
   with a fresh, empty `StandIn` class (an ordered mapping for `OrderedDict`), so what the file "calls" only records its
   arguments. No class, function, `__init__`, `__setstate__` or `__reduce__` of a library or of the file's author runs,
   not even with `trust=True`; trust only widens the list of names that get a stand-in.
2. A name outside the allow-list is refused before anything is built from it.
3. The instruction set is cut down to what `torch.save` emits; those left construct only through `_construct` and
   `load_build`, which accept stand-ins alone.
4. The interpreter written in Python is used, not the one in C: the latter allocates a memo slot for whatever index the
   file claims (a ten-byte file costs 32 GB). It reads yolov5n.pt in 12 ms.

The numbers of tensors are not in the pickle; `models/checkpoints/values.py` takes them out of the file, bounds checked.
"""

from __future__ import annotations

import pickle  # only for the restricted reader below
from typing import IO, Any, ClassVar

from utils.errors import UserError

# Classes of networks: pure containers whose attributes are looked at.
_PACKAGES = ("torch.nn.modules.", "torch.nn.parallel.", "models.common.", "models.yolo.", "models.experimental.",
             "utils.activations.")  # fmt: skip

_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")

_NAMES = frozenset(
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
        *(f"torch.{name}" for name in _DTYPES),
        *(f"torch.{name}Storage" for name in _STORAGES),
    ]
)

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names, which pickle protocol 2 still writes

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


class StandIn:
    """What a pickled object becomes: where it came from (`path`), how it was called, and the state it was given."""

    __slots__ = ("args", "items", "state")
    path = ""
    args: tuple[Any, ...]
    state: Any
    items: list[Any]

    def __new__(cls, *args: Any) -> StandIn:
        self = object.__new__(cls)
        self.args, self.state, self.items = args, None, []
        return self

    def append(self, item: Any) -> None:
        self.items.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    @property
    def attributes(self) -> dict[Any, Any]:
        """The instance dictionary, empty for an object pickled without one."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state if isinstance(state, dict) else {}


class InertDict(dict):
    """A dict whose keys are plain values: hashing a nested tuple of a hostile file could take for ever."""

    __slots__ = ()
    path = "collections.OrderedDict"

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__()
        for key, value in pairs:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, int, float, bytes, type(None))):
            raise TypeError(f"{type(key).__name__} as a key")
        if isinstance(key, int) and key.bit_length() > 64:  # a long one is hashed anew each time
            raise ValueError("a whole number of thousands of digits as a key")
        super().__setitem__(key, value)


class InertSet(list):
    """A pickled set; its members are not hashed, for the same reason."""

    __slots__ = ()
    add = list.append


class StorageRef:
    """A reference to the bytes of a tensor, which lie elsewhere in the file."""

    __slots__ = ("key", "kind", "numel")

    def __init__(self, key: str, kind: str, numel: int) -> None:
        self.key, self.kind, self.numel = key, kind, numel


class InertUnpickler(pickle._Unpickler):
    """Builds stand-ins, mappings, lists, tuples, numbers and strings; see the top of the file."""

    stack: list[Any]  # the base class sets these two while it reads
    append: Any
    dispatch: ClassVar[dict[int, Any]] = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}

    def __init__(self, stream: IO[bytes], source: str, trust: bool) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self.source = source
        self.trust = trust
        self.unlisted: list[str] = []
        self._classes: dict[str, type] = {InertDict.path: InertDict}

    def find_class(self, module: str, name: str) -> type:
        """A stand-in class for ``module.name``; nothing is imported."""
        path = f"{_RENAMED.get(module, module)}.{name}"
        if path not in self._classes:
            if path.startswith("ultralytics."):
                raise UserError(
                    f"{self.source} comes from the ultralytics package (YOLOv8 or later, or an anchor-free YOLOv5u); "
                    "its networks are not those of YOLOv5 v6/v7, which this project reads"
                )
            if path not in _NAMES and not path.startswith(_PACKAGES):
                if not self.trust:
                    raise UserError(
                        f"{self.source} contains the pickled class {path}, which is not on the allow-list; "
                        "if you trust this file, pass --trust"
                    )
                self.unlisted.append(path)
            self._classes[path] = type("StandIn", (StandIn,), {"__slots__": (), "path": path})
        return self._classes[path]

    def persistent_load(self, pid: Any) -> Any:
        """The storage that ``('storage', type, key, location, numel[, view])`` names.

        In the old container also the class of ``('module', class, file, source text)``; the source is ignored.
        """
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and _is_stand_in(pid[1]):
            return pid[1]
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage" and pid[5:] in ((), (None,))):
            raise ValueError("a reference to something other than a tensor's storage")
        _, kind, key, _, numel = pid[:5]
        if not (_is_stand_in(kind) and isinstance(key, str) and isinstance(numel, int)):
            raise ValueError("a malformed reference to a tensor's storage")
        return StorageRef(key, kind.path, numel)

    def _construct(self, cls: Any, args: Any) -> Any:
        if not _is_stand_in(cls) or not isinstance(args, tuple):
            raise TypeError("a call of something that is no class")
        if cls.path == "builtins.getattr" and not _is_detect_forward(args):
            owner = args[0].path if args and _is_stand_in(args[0]) else "…"
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
        if isinstance(target, StandIn):
            target.state = state
        elif not isinstance(target, InertDict):  # an OrderedDict's own attributes (`_metadata`) are of no use
            raise TypeError(f"state for a {type(target).__name__}")

    def load_inert_dict(self) -> None:
        self.append(InertDict())

    def load_inert_set(self) -> None:
        self.append(InertSet())

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce  # cls.__new__(cls, *args): the same thing where nothing has an __init__
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.EMPTY_DICT[0]] = load_inert_dict
    dispatch[pickle.EMPTY_SET[0]] = load_inert_set


def _is_stand_in(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, (StandIn, InertDict))


def _is_detect_forward(args: tuple[Any, ...]) -> bool:
    """True for the one look-up in published files: v7's `Segment` keeps `Detect.forward` as an attribute."""
    return len(args) == 2 and _is_stand_in(args[0]) and args[0].path == "models.yolo.Detect" and args[1] == "forward"


def read_pickle(stream: IO[bytes], source: str, trust: bool = False) -> tuple[Any, list[str]]:
    """The next pickle of `stream` as inert data, and the names outside the allow-list that `trust` let in.

    Raises `UserError` for a name that is not on the allow-list and for a pickle that is damaged.
    """
    unpickler = InertUnpickler(stream, source, trust)
    try:
        return unpickler.load(), unpickler.unlisted
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way; the cause stays attached
        raise UserError(
            f"{source} is damaged or was not written by torch.save ({type(error).__name__}: {error}); "
            "download or copy it again"
        ) from error
