"""Tells by the name whether something is a video or an address. (For images: `utils.data.indexing.image_files`.)"""

from __future__ import annotations

import re
from pathlib import Path

from utils.data.indexing.image_files import IMG_FORMATS

VID_FORMATS = ("asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "webm", "wmv")

_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "http://", "https://", "tcp://", "udp://")


def suffix_of(name: str | Path) -> str:
    """The suffix in lower case: ``'jpg'`` for ``'a.JPG'`` and for ``'https://host/a.jpg?size=2'``."""
    text = str(name)
    if is_url(text):
        text = re.split(r"[?#]", text, maxsplit=1)[0]
    return Path(text).suffix[1:].lower()


def is_video(name: str | Path) -> bool:
    """Whether `name` is that of a video."""
    return suffix_of(name) in VID_FORMATS


def is_media(name: str | Path) -> bool:
    """Whether `name` is that of an image or a video."""
    return suffix_of(name) in IMG_FORMATS or is_video(name)


def is_url(text: str) -> bool:
    """Whether `text` begins with a scheme that a stream or a download can have."""
    return text.lower().startswith(_SCHEMES)
