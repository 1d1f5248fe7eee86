"""Which file ``--weights`` means."""

from __future__ import annotations

import re
from pathlib import Path

from utils.downloads import download
from utils.errors import UserError, nearest
from utils.files import ROOT
from utils.logging import LOGGER

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
PUBLISHED = tuple(f"yolov5{size}{kind}.pt" for kind in ("", "6", "-seg") for size in "nsmlx")


def find_weights(name: str | Path) -> Path:
    """The file that `name` means: the path itself, else below the project or its ``weights/`` folder.

    A published name (`PUBLISHED`) or an http(s) address that is nowhere on disk is fetched to where the user would have
    put it, because the user named it. Raises `UserError` with the places tried, or with where to put the file.
    """
    if re.match(r"https?://", str(name)):
        return _fetch(str(name), Path(str(name).split("?")[0]).name)
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [given, ROOT / given, ROOT / "weights" / given]
    for place in places:
        if place.exists():
            return place
    if given.name in PUBLISHED:
        return _fetch(f"{RELEASE}/{given.name}", given)
    known = [*PUBLISHED, *(p.name for p in given.parent.glob("*.pt"))]
    tried = ", ".join(str(place) for place in places)
    raise UserError(f"weights '{name}' not found; tried {tried}{nearest(given.name, known)}")


def _fetch(url: str, target: str | Path) -> Path:
    target = Path(target)
    if target.exists():
        return target
    LOGGER.info(f"{target} is not on disk; fetching {url}")
    try:
        return download(url, target)
    except UserError as error:
        reason = getattr(error.__cause__, "reason", None) or error.__cause__ or error  # what urllib said, in short
        folder = "the working directory" if target.parent == Path(".") else f"'{target.parent}'"
        raise UserError(
            f"{target.name} is not on disk and could not be fetched ({reason}); put it in {folder} from {url}"
        ) from error


def newest_best(project_pattern: str = "runs/train*") -> Path:
    """The most recently written ``<project>/<run>/weights/best.pt``, `project_pattern` being a glob.

    Looked for below the working directory, then below the project. Raises `UserError` if there is none.
    """
    for base in dict.fromkeys((Path(), ROOT)):
        if found := list(base.glob(f"{project_pattern}/*/weights/best.pt")):
            return max(found, key=lambda path: path.stat().st_mtime)
    raise UserError(
        f"no --weights given, and no {project_pattern}/*/weights/best.pt to take instead; train first, or pass "
        "--weights with a checkpoint (yolov5n.pt, for example)"
    )
