"""How a data set gets to the disk, as `download`, `convert` and `generate` in its YAML declare it. No script is run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from utils.downloads import check_address, check_sha256, download, is_archive, unpack
from utils.errors import UserError, nearest
from utils.logging import LOGGER
from utils.yamls import line_of

_ITEM_KEYS = ("url", "sha256", "into", "splits")
_CONVERSIONS = ("voc",)
_GENERATORS = ("shapes",)


@dataclass(frozen=True)
class DownloadItem:
    """A file to download. An archive is unpacked into `into`, a folder of the data set; other files are put there."""

    url: str
    sha256: str | None = None
    into: str = "."
    splits: tuple[str, ...] = ()  # it is fetched only for these; if empty, for any


@dataclass(frozen=True)
class Recipe:
    """What the YAML says about getting the data."""

    items: tuple[DownloadItem, ...] = ()
    convert: str | None = None  # 'voc': Pascal VOC folders become images and labels
    generate: str | None = None  # 'shapes': drawn by this program
    is_script: bool = False  # `download` holds commands, which are not run
    place: str = ""  # file:line of `download`


def read_recipe(content: Mapping[str, Any], file: Path | None) -> Recipe:
    """Read the recipe in a data set's YAML. Raises `UserError` with file and line if it is malformed."""
    entry, place = content.get("download"), _line(file, "download")
    for step, known in (("convert", _CONVERSIONS), ("generate", _GENERATORS)):
        value = content.get(step)
        if value is not None and value not in known:
            raise UserError(f"{_line(file, step)}: unknown {step} '{value}'{nearest(str(value), known)}")
    items: tuple[DownloadItem, ...] = ()
    is_script = isinstance(entry, str) and not _is_url(entry)
    if entry and not is_script:
        entries = entry if isinstance(entry, list) else [entry]
        items = tuple(_item(value, _line(file, "download", i)) for i, value in enumerate(entries))
    return Recipe(items, content.get("convert"), content.get("generate"), is_script, place)


def _item(value: Any, place: str) -> DownloadItem:
    fields = {"url": value} if isinstance(value, str) else value
    if not isinstance(fields, dict):
        raise UserError(f"{place}: a download is a URL or has the keys {', '.join(_ITEM_KEYS)}, not {value!r}")
    for key in fields:
        if key not in _ITEM_KEYS:
            raise UserError(f"{place}: unknown key '{key}' of a download{nearest(str(key), _ITEM_KEYS)}")
    url, into, splits = fields.get("url"), fields.get("into", "."), fields.get("splits", [])
    if not isinstance(url, str) or not _is_url(url):
        raise UserError(f"{place}: a download needs a url that starts with http://, https:// or file://, not {url!r}")
    try:
        check_address(url)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    sha256 = fields.get("sha256")
    if sha256 is not None and (len(str(sha256)) != 64 or set(str(sha256).lower()) - set("0123456789abcdef")):
        raise UserError(f"{place}: sha256 is 64 hexadecimal digits, not {sha256!r}")
    path = PurePosixPath(str(into))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place}: 'into' is a folder of the data set, not {into!r}")
    splits = [splits] if isinstance(splits, str) else splits
    if not isinstance(splits, list) or not set(map(str, splits)) <= {"train", "val", "test"}:
        raise UserError(f"{place}: 'splits' lists some of train, val and test, not {splits!r}")
    return DownloadItem(url, None if sha256 is None else str(sha256), str(path), tuple(splits))


def _is_url(text: str) -> bool:
    return text.strip().lower().startswith(("http://", "https://", "file://")) and len(text.split()) == 1


def _line(file: Path | None, *keys: str | int) -> str:
    return "data set" if file is None else line_of(file, *keys)


# --- carrying it out --------------------------------------------------------------------------------------------------


def fetch(recipe: Recipe, root: Path, splits: Sequence[str], names: Mapping[int, str]) -> None:
    """Fetch what the `splits` need into `root`.

    Everything is unpacked and converted in a folder beside `root` and moved into it at the end, so that an interrupted
    fetch never looks like a data set. A later fetch goes on with the archive at which it stopped. What is in `root`
    already stays.
    """
    if recipe.is_script:
        raise UserError(
            f"{recipe.place}: the data set is not there, and its 'download' is a script, which is not run; fetch the "
            f"data by hand into {root}, or give 'download' a list of URLs (data/coco.yaml is an example)"
        )
    staging = root.with_name(f".{root.name}.partial")
    done = staging / ".done"
    finished = done.read_text(encoding="utf-8").split("\n") if done.is_file() else []
    for item in recipe.items:
        if item.url in finished or (item.splits and not set(item.splits) & set(splits)):
            continue
        folder = staging / item.into
        _fetch_item(item, folder, root)
        finished.append(item.url)
        done.write_text("\n".join(finished), encoding="utf-8")
    if recipe.convert == "voc":
        from utils.data.convert import voc_to_yolo

        voc_to_yolo(staging, names)
    done.unlink(missing_ok=True)
    if staging.is_dir():
        _merge(staging, root)


def _fetch_item(item: DownloadItem, folder: Path, root: Path) -> None:
    """Put the content of one file into `folder`. A copy that the user has put into `root` is used if there is one."""
    name = PurePosixPath(unquote(urlsplit(item.url).path)).name or "file"
    file = root / name
    if file.is_file():
        LOGGER.info(f"taking {file}")
        check_sha256(file, item.sha256)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        try:
            file = download(item.url, folder / name, item.sha256)
        except UserError as error:
            _remove_empty(folder, root)
            why = str(error).split("; without a network")[0]
            raise UserError(f"{why}; by hand, put {name} into {root} and start again") from error
    is_theirs = file.parent == root
    if is_archive(name):
        LOGGER.info(f"unpacking {name}")
        _unpack(file, folder, root, is_theirs)
    elif is_theirs:
        shutil.copy2(file, folder / name)


def _unpack(file: Path, folder: Path, root: Path, is_theirs: bool) -> None:
    """Unpack `file` into `folder`, completely or not at all. A downloaded archive is removed in both cases."""
    aside = folder / ".unpacking"
    shutil.rmtree(aside, ignore_errors=True)  # of a killed process
    try:
        unpack(file, aside, strip=root.name)
    except UserError:
        shutil.rmtree(aside, ignore_errors=True)
        if not is_theirs:
            file.unlink()
        _remove_empty(folder, root)
        raise
    if not is_theirs:
        file.unlink()
    if aside.is_dir():
        _merge(aside, folder)


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove `folder` and the folders that contain it, up to those beside `root`, as far as they are empty."""
    for empty in (folder, *folder.parents):
        if empty == root.parent or not empty.is_dir() or any(empty.iterdir()):
            break
        empty.rmdir()


def _merge(source: Path, target: Path) -> None:
    """Move everything in `source` into `target`. Files that `target` already has stay as they are."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    for entry in list(source.iterdir()):
        aim = target / entry.name
        if entry.is_dir() or not aim.exists():
            _merge(entry, aim)
    shutil.rmtree(source)
