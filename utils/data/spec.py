"""Reads a data set's YAML: where its splits are, the names of its classes, and how to get it if it is absent."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from utils.data.indexing.image_files import is_pattern, read_list
from utils.data.recipe import Recipe, fetch, read_recipe
from utils.errors import UserError
from utils.files import ROOT, expand_home, find_file, one_at_a_time
from utils.logging import LOGGER
from utils.ops.class_names import check_class_names
from utils.yamls import line_of, load_yaml, reject_unknown_keys

SPLITS = ("train", "val", "test")
MOST_CLASSES = 50_000
_INFORMATION = (  # keys that exports of labelling tools have; they are not used
    "roboflow", "license", "licence", "author", "description", "version", "date", "url", "source", "contributor",
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a name is printed in a line and drawn on images
_KEYS = ("path", *SPLITS, "names", "nc", "download", "convert", "generate", *_INFORMATION)


@dataclass(frozen=True)
class DatasetSpec:
    """A data set that is on the disk.

    `splits` has the folders, lists, patterns or files of each split that the YAML names. `path` is the root folder.
    """

    yaml_file: Path | None
    path: Path
    names: dict[int, str]
    splits: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def nc(self) -> int:
        """The number of classes."""
        return len(self.names)

    def split(self, name: str) -> tuple[Path, ...]:
        """The paths of split `name`. Raises `UserError` if the data set has no such split."""
        if not self.splits.get(name):
            raise UserError(f"{self.yaml_file or 'data set'} has no '{name}' images, only {', '.join(self.splits)}")
        return self.splits[name]


class _Location(NamedTuple):
    """A candidate for the root folder, with its splits and what is missing of the needed ones."""

    root: Path
    splits: dict[str, tuple[Path, ...]]
    missing: dict[str, list[Path]]


def datasets_folder() -> Path:
    """The folder of data sets: the environment variable ``YOLOv5_DATASETS_DIR``, else ``datasets/`` of the project."""
    named = os.environ.get("YOLOv5_DATASETS_DIR")  # noqa: SIM112 - as YOLOv5 spells it
    return expand_home(named or ROOT / "datasets").absolute()


def load_dataset(
    data: str | Path | Mapping[str, Any], download: bool = True, *, need: Sequence[str] = ("train", "val")
) -> DatasetSpec:
    """Load the data set that `data` describes: a YAML file (a path, or a name below ``data/``) or its content.

    `path` is looked for from the YAML's folder, the working directory and the project, and then below ``datasets/`` of
    the working directory and `datasets_folder()`. The first place with all splits in `need` is taken. A data set that
    is not found is generated or, with `download`, fetched as its YAML declares. Raises `UserError` with file and line
    for an error in the YAML, and with all places that were tried for what is not there.
    """
    if isinstance(data, Mapping):
        file, content = None, dict(data)
    else:
        file = find_file(data, ("data",), "data set")
        content = load_yaml(file)
        reject_unknown_keys(content, _KEYS, file)
    names = read_names(content, file)
    entries = {split: _entries(content[split], split, file) for split in SPLITS if content.get(split)}
    for split in need:
        if split not in entries:
            raise UserError(f"{file or 'data set'}: key '{split}' is missing; it names the folder of those images")
    recipe = read_recipe(content, file)
    base = "" if content.get("path") is None else content["path"]
    if not isinstance(base, (str, Path)):
        raise UserError(f"{_line(file, 'path')}: 'path' is the folder of the data set, not {base!r}")

    if recipe.generate == "shapes":
        from utils.data.shapes import generate_shapes

        root = generate_shapes(_home(str(base), file))
        return DatasetSpec(file, root, names, _locate(root, entries, need).splits)
    places = [_locate(root, entries, need) for root in _roots(str(base), file)]
    found = next((place for place in places if not place.missing), None)
    if found is None and download and (recipe.items or recipe.is_script):
        home = _home(str(base), file)
        LOGGER.info(f"data set {file or ''} is not on this disk (tried {_tried(places)}); getting it into {home}")
        with one_at_a_time(home.parent):
            if missing := list(_locate(home, entries, need).missing):  # another process may have got it meanwhile
                fetch(recipe, home, missing, names)
        places = [_locate(home, entries, need)]
        found = next((place for place in places if not place.missing), None)
    if found is None:
        raise UserError(_not_found(file, places, recipe, download))
    return DatasetSpec(file, found.root, names, found.splits)


def check_dataset(data: str | Path | Mapping[str, Any], autodownload: bool = True) -> dict[str, Any]:
    """`load_dataset` in YOLOv5's form: a dictionary with path, train, val, test, names and nc; paths are strings."""
    spec = load_dataset(data, autodownload)
    splits: dict[str, Any] = dict.fromkeys(SPLITS)
    for split, paths in spec.splits.items():
        splits[split] = str(paths[0]) if len(paths) == 1 else [str(path) for path in paths]
    return {"path": spec.path, **splits, "names": spec.names, "nc": spec.nc}


# --- names ------------------------------------------------------------------------------------------------------------


def read_names(content: Mapping[str, Any], file: Path | None) -> dict[int, str]:
    """The class names by id, from a list or a mapping with keys 0..n-1. `nc` must agree if it is given."""
    names, nc = content.get("names"), content.get("nc")
    if nc is not None and (isinstance(nc, bool) or not isinstance(nc, int) or not 1 <= nc <= MOST_CLASSES):
        raise UserError(f"{_line(file, 'nc')}: nc is the number of classes, 1 to {MOST_CLASSES}, not {nc!r}")
    if names is None and nc is not None:
        return {i: f"class{i}" for i in range(nc)}
    if not isinstance(names, (list, tuple, dict)) or not names:
        raise UserError(f"{_line(file, 'names')}: 'names' must list the classes, as in names: [cat, dog]")
    if not isinstance(names, dict):
        names = dict(enumerate(names))
    if len(names) > MOST_CLASSES:
        raise UserError(f"{_line(file, 'names')}: {len(names)} names, and {MOST_CLASSES} are the most")
    if set(names) != set(range(len(names))):
        ids = ", ".join(str(key) for key in list(names)[:12])
        raise UserError(f"{_line(file, 'names')}: {len(names)} names need ids 0 to {len(names) - 1}, not {ids}")
    for key, name in names.items():
        if not isinstance(name, (str, int, float)) or isinstance(name, bool):
            raise UserError(f"{_line(file, 'names', key)}: class name {name!r} is no text; put it in quotes")
        if _CONTROL.search(str(name)):
            raise UserError(f"{_line(file, 'names', key)}: class name {name!r} holds a line break or the like")
    if nc is not None and nc != len(names):
        raise UserError(f"{_line(file, 'nc')}: nc is {nc}, but there are {len(names)} names; nc may be left out")
    texts = {i: str(names[i]) for i in range(len(names))}
    try:
        check_class_names(texts)
    except ValueError as error:
        raise UserError(f"{_line(file, 'names')}: {error}") from error
    return texts


# --- places -----------------------------------------------------------------------------------------------------------


def _entries(value: Any, split: str, file: Path | None) -> list[str]:
    entries = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(entry, (str, Path)) and str(entry) for entry in entries):
        raise UserError(f"{_line(file, split)}: '{split}' is a path or a list of paths, not {value!r}")
    return [str(entry) for entry in entries]


def _inner(base: str) -> Path:
    """`base` without the leading ``..`` and ``datasets`` by which YOLOv5's own files leave the repository."""
    parts = list(Path(base).parts)
    while parts and parts[0] in ("..", ".", "datasets"):
        parts.pop(0)
    return Path(*parts)


def _home(base: str, file: Path | None) -> Path:
    """The folder where an absent data set belongs."""
    given = expand_home(base)
    if given.is_absolute():
        return given
    inner = _inner(base)
    return datasets_folder() / (inner if inner.parts else Path(file.stem if file else "dataset"))


def _roots(base: str, file: Path | None) -> list[Path]:
    """The candidates for the root folder, in the order in which they are tried."""
    given = expand_home(base)
    if given.is_absolute():
        return [given]
    folders = [Path.cwd(), ROOT] if file is None else [file.absolute().parent, Path.cwd(), ROOT]
    candidates = [folder / given for folder in folders]
    candidates += [Path.cwd() / "datasets" / _inner(base), _home(base, file)]
    return list(dict.fromkeys(Path(os.path.normpath(candidate)) for candidate in candidates))


def _locate(root: Path, entries: Mapping[str, Sequence[str]], need: Sequence[str]) -> _Location:
    splits: dict[str, tuple[Path, ...]] = {}
    missing: dict[str, list[Path]] = {}
    for split, named in entries.items():
        paths = [_place(root, entry) for entry in named]
        splits[split] = tuple(paths)
        absent = [path for path in paths if split in need and not _is_present(path)]
        if absent:
            missing[split] = absent
    return _Location(root, splits, missing)


def _place(root: Path, entry: str) -> Path:
    """The path of `entry` below `root`. If ``../x`` is not there it means ``x``, as some labelling tools write it."""
    path = Path(os.path.normpath(root / expand_home(entry)))
    if entry.startswith("../") and not _is_present(path) and _is_present(inside := root / entry[3:]):
        return inside
    return path


def _is_present(path: Path) -> bool:
    """Whether `path` is a folder with content, a list whose first image exists, a pattern with a match, or a file."""
    if os.path.isdir(path):
        return any(path.iterdir())
    if os.path.isfile(path):
        return path.suffix != ".txt" or _absent_image(path) is None
    return is_pattern(path) and next(glob.iglob(str(path), recursive=True), None) is not None


def _absent_image(listing: Path) -> str | None:
    """The first image of a list if it does not exist, or the list itself if it is empty; else None."""
    first = next(iter(read_list(listing)), str(listing))
    return None if os.path.isfile(first) and first != str(listing) else first


def _tried(places: Sequence[_Location]) -> str:
    """The first missing thing at each place, for a message."""
    missing = [next(iter(place.missing.values()))[0] for place in places if place.missing]
    return ", ".join(_told(path) for path in missing)


def _told(path: Path) -> str:
    if not os.path.isfile(path):
        return str(path)
    image = _absent_image(path)
    return f"{path} (an empty list)" if image == str(path) else f"{image} (the first image in {path})"


def _not_found(file: Path | None, places: Sequence[_Location], recipe: Recipe, download: bool) -> str:
    splits = ", ".join(dict.fromkeys(split for place in places for split in place.missing))
    mend = f"put the images there, or mend 'path' in {_line(file, 'path')}"
    if recipe.items and not download:
        mend += ", or allow the download"
    return f"data set {file or ''} not found or incomplete ({splits}); tried {_tried(places)}; {mend}"


def _line(file: Path | None, *keys: str | int) -> str:
    return "data set" if file is None else line_of(file, *keys)
