"""Text as masks of pixels, and the fonts of this system that have its letters. Fonts are never downloaded.

Matplotlib's `font_manager` finds fonts, too, but the first label would take three times as long (docs/performance.md).
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.errors import UserError, nearest
from utils.logging import LOGGER

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_ODD = ("bold", "italic", "oblique", "mono", "condensed", "light", "thin", "black", "serif", "emoji", "symbol", "dings")
_NO_CHARACTER = "\U0010ffff"  # a code point that no font has: shows the font's box for missing letters


@lru_cache(maxsize=1024)
def text_mask(text: str, size: int, font: str | None = None) -> np.ndarray:
    """The opacity of each pixel of `text`, (h, w) uint8, read-only. The height is that of a line, whatever the letters.

    `size` is the font's em in pixels, `font` the path of a font file. Without `font`, OpenCV draws ASCII, and the first
    font of the system that has all letters draws other text. A letter that no font has becomes ``?``, with one warning.
    """
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    if not text:
        mask = np.zeros((size, 0), np.uint8)
    elif font is None and text.isascii():
        mask = _opencv_mask(text, size)
    else:
        mask = _font_mask(text, size, font)
    mask.flags.writeable = False
    return mask


def _opencv_mask(text: str, size: int) -> np.ndarray:
    scale, thickness = size / 30, max(1, round(size / 14))  # at scale 1 a line of this font is about 30 pixels high
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    (_, height), baseline = cv2.getTextSize("(|Agj", cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    mask = np.zeros((height + baseline, width), np.uint8)
    cv2.putText(mask, text, (0, height), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)  # type: ignore[call-overload]
    return mask


def _font_mask(text: str, size: int, font: str | None) -> np.ndarray:
    path = font or find_font(text)
    if path is None or not covers(path, text):
        if (mask := _builtin_mask(text, size)) is not None:
            return mask
        path = path or find_font("a")
        lost = missing(path, text) if path else {c for c in text if not c.isascii()}
        _tell_missing("".join(sorted(lost)))
        text = _without(text, lost)
        if path is None:
            return _opencv_mask(text, size)
    return _pillow_mask(text, load_font(path, size))


def _without(text: str, lost: set[str]) -> str:
    """`text` with ``?`` in place of each lost letter and of the combining marks on it."""
    out: list[str] = []
    for letter in text:
        if letter in lost:
            out.append("?")
        elif not (unicodedata.category(letter)[0] == "M" and out[-1:] == ["?"]):
            out.append(letter)
    return "".join(out)


def _pillow_mask(text: str, font: FreeTypeFont) -> np.ndarray:
    from PIL import Image, ImageDraw

    ascent, descent = font.getmetrics()
    left, _, right, _ = font.getbbox(text)
    start = max(0, -int(left))
    canvas = Image.new("L", (max(1, int(right) + start), ascent + descent))
    ImageDraw.Draw(canvas).text((start, 0), text, fill=255, font=font)
    return np.array(canvas)


def _builtin_mask(text: str, size: int) -> np.ndarray | None:
    """`text` in the font that OpenCV 5 carries for European and East Asian scripts.

    None where this OpenCV has no such font, or the font lacks a letter.
    """
    if not hasattr(cv2, "FontFace"):
        return None
    if any(_builtin_glyph(c) == _builtin_glyph(_NO_CHARACTER) for c in _visible(text)):
        return None
    return _draw_builtin(text, size)


@lru_cache(maxsize=4096)
def _builtin_glyph(character: str) -> bytes:
    """The pixels of one character; only these are kept, because texts with their confidences hardly ever repeat."""
    return _draw_builtin(character, 24).tobytes()


def _draw_builtin(text: str, size: int) -> np.ndarray:
    face = cv2.FontFace("uni")  # type: ignore[attr-defined]
    canvas = np.zeros((round(size * 1.3), size * (len(text) + 2), 3), np.uint8)
    end, _ = cv2.putText(canvas, text, (0, size), (255, 255, 255), face, size, 400)  # type: ignore[call-overload, misc]
    columns = np.flatnonzero(canvas.any((0, 2)))
    width = max(int(end[0]), int(columns[-1]) + 1 if len(columns) else 1)
    return np.ascontiguousarray(canvas[:, :width, 0])


@lru_cache(maxsize=64)
def _tell_missing(letters: str) -> None:
    LOGGER.warning(f"no font at hand has {letters}; install one that does (Noto Sans, say) or name it by --font")


# --- finding ----------------------------------------------------------------------------------------------------------


def font_folders() -> list[Path]:
    """The folders in which this operating system keeps its fonts."""
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", str(home))
        return [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", Path(local) / "Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    data = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    return [home / ".local/share/fonts", home / ".fonts", *(Path(d) / "fonts" for d in data if d)]


@lru_cache(maxsize=1)
def system_fonts() -> tuple[Path, ...]:
    """All font files of this system; those of ordinary upright fonts come first."""
    files = (f for folder in font_folders() if folder.is_dir() for f in folder.rglob("*"))
    named = [(f.stem.lower(), f) for f in files if f.suffix.lower() in _SUFFIXES]
    return tuple(f for _, _, _, f in sorted((sum(w in name for w in _ODD), len(name), name, f) for name, f in named))


def find_font(text: str) -> str | None:
    """The path of the first font of the system that has every letter of `text`; None where there is none."""
    return _find_font("".join(sorted(c for c in _visible(text) if not c.isascii())) or "a")


@lru_cache(maxsize=256)
def _find_font(letters: str) -> str | None:
    return next((str(path) for path in system_fonts() if covers(str(path), letters)), None)


def font_file(name: str) -> str:
    """The path that ``--font`` means: that of a file, or of a font of the system by its name, with or without suffix.

    Raises `UserError` with the nearest name where there is no such font.
    """
    if Path(name).is_file():
        try:
            load_font(name, 12)
        except OSError as error:
            raise UserError(f"--font '{name}' is not a font that can be read ({error})") from error
        return name
    wanted = name.lower().replace(" ", "")
    for path in system_fonts():
        if wanted in (path.name.lower(), path.stem.lower()):
            return str(path)
    hint = nearest(name, [path.stem for path in system_fonts()])
    raise UserError(f"--font '{name}' is neither a file nor a font of this system{hint}")


@lru_cache(maxsize=64)
def load_font(path: str, size: int) -> FreeTypeFont:
    """The font in `path` with an em of `size` pixels. Raises `OSError` where it cannot be read or scaled."""
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


def covers(path: str, text: str) -> bool:
    """Whether the font has a glyph for every letter of `text`."""
    return next(_missing(path, text), None) is None


def missing(path: str, text: str) -> set[str]:
    """The letters of `text` that the font lacks; all of them if the font cannot be read."""
    return set(_missing(path, text))


def _missing(path: str, text: str) -> Iterator[str]:
    try:
        font = load_font(path, 16)
        no_glyph = bytes(font.getmask(_NO_CHARACTER))
        yield from (letter for letter in _visible(text) if bytes(font.getmask(letter)) == no_glyph)
    except (OSError, ValueError):  # bitmap fonts exist in a few sizes only
        yield from text


def _visible(text: str) -> Iterator[str]:
    """The letters that leave ink of their own: no spaces, controls, or marks that sit on another letter."""
    return (c for c in dict.fromkeys(text) if unicodedata.category(c)[0] not in "ZCM")
