"""Finds the files that ``--weights`` and ``--backbone-weights`` name."""

from __future__ import annotations

import re
from pathlib import Path

from utils.downloads import download
from utils.errors import UserError, nearest
from utils.files import ROOT, one_at_a_time
from utils.logging import LOGGER

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
IMAGENET = {  # torchvision's MobileNetV2; the end of a name is the beginning of the file's sha256
    "imagenet": "mobilenet_v2-7ebf99e0.pth",  # IMAGENET1K_V2, the better one
    "imagenet-v1": "mobilenet_v2-b0353104.pth",
}
TORCHVISION = "https://download.pytorch.org/models"
PUBLISHED = tuple(f"yolov5{size}{kind}.pt" for kind in ("", "6", "-seg") for size in "nsmlx")


def find_weights(name: str | Path) -> Path:
    """The file that `name` means: a path, or a path below the project or below its ``weights/`` folder.

    A published name (`PUBLISHED`) or an http(s) address that is not on disk is fetched, because the user named it, to
    the place where the user would have put it. Raises `UserError` that names the places tried, or where to put the
    file.
    """
    if re.match(r"https?://", str(name)):
        return _fetch(str(name), Path(str(name).split("?")[0]).name)
    given = Path(name).expanduser()
    if (found := _on_disk(given)) is not None:
        return found
    if given.name in PUBLISHED:
        return _fetch(f"{RELEASE}/{given.name}", given)
    known = [*PUBLISHED, *(p.name for p in given.parent.glob("*.pt"))]
    raise UserError(f"weights '{name}' not found; tried {_tried(given)}{nearest(given.name, known)}")


def find_backbone_weights(name: str | Path) -> Path:
    """The file that ``--backbone-weights`` means: a path as for `find_weights`, or a word of `IMAGENET`.

    A word stands for a file in torchvision's cache, ``checkpoints/`` below `torch.hub.get_dir()`, which is fetched
    where it is missing. Raises `UserError` that names the places tried, or where to put the file.
    """
    if str(name) in IMAGENET:
        import torch

        file = IMAGENET[str(name)]
        target = Path(torch.hub.get_dir()) / "checkpoints" / file
        return _fetch_once(f"{TORCHVISION}/{file}", target, sha256=re.findall("-([0-9a-f]+)[.]", file)[0])
    given = Path(name).expanduser()
    if (found := _on_disk(given)) is None:
        raise UserError(
            f"--backbone-weights '{name}' is neither {' nor '.join(IMAGENET)} nor a file; "
            f"tried {_tried(given)}{nearest(str(name), IMAGENET)}"
        )
    return found


def _places(given: Path) -> list[Path]:
    return [given] if given.is_absolute() else [given, ROOT / given, ROOT / "weights" / given]


def _on_disk(given: Path) -> Path | None:
    return next((place for place in _places(given) if place.exists()), None)


def _tried(given: Path) -> str:
    return ", ".join(str(place) for place in _places(given))


def _fetch(url: str, target: str | Path) -> Path:
    target = Path(target)
    try:
        return _fetch_once(url, target)
    except UserError as error:
        reason = getattr(error.__cause__, "reason", None) or error.__cause__ or error  # of urllib, in short
        folder = "the working directory" if target.parent == Path(".") else f"'{target.parent}'"
        raise UserError(
            f"{target.name} is not on disk and could not be fetched ({reason}); put it in {folder} from {url}"
        ) from error


def _fetch_once(url: str, target: Path, sha256: str | None = None) -> Path:
    """Fetch `target` from `url` unless it exists. Of several processes that need it, only the first fetches it."""
    if not target.exists():
        with one_at_a_time(target.parent):
            if not target.exists():
                LOGGER.info(f"{target} is not on disk; fetching {url}")
                download(url, target, sha256=sha256)
    return target


def newest_best(suffix: str = "") -> Path:
    """The most recently written ``runs/train*/<run>/weights/best.pt`` of the task whose run folders end in `suffix`.

    The suffix is ``-seg`` for segmentation (``runs/train-seg*``) and empty for detection, which leaves those out. The
    search starts in the working directory, where trainings write and ``--resume`` looks. Raises `UserError` if there is
    none.
    """
    pattern = f"runs/train{suffix}*/*/weights/best.pt"
    found = [path for path in Path().glob(pattern) if suffix or not path.parts[-4].startswith("train-seg")]
    if not found:
        raise UserError(
            f"no --weights given, and no {pattern} in this folder to take instead; train first, or pass "
            f"--weights with a checkpoint (yolov5n{suffix}.pt, for example)"
        )
    return max(found, key=lambda path: path.stat().st_mtime)
