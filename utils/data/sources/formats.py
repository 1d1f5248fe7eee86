"""Which names are videos, which texts are addresses. (Which are pictures: `utils.data.indexing.image_files`.)"""

from __future__ import annotations

import re
from pathlib import Path

from utils.data.indexing.image_files import IMG_FORMATS

VID_FORMATS = ("asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "webm", "wmv")

_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "http://", "https://", "tcp://", "udp://")


def suffix_of(name: str | Path) -> str:
    """``'JPG'`` and ``'https://host/a.jpg?size=2'`` both end in ``'jpg'``."""
    text = str(name)
    if is_url(text):
        text = re.split(r"[?#]", text, maxsplit=1)[0]
    return Path(text).suffix[1:].lower()


def is_video(name: str | Path) -> bool:
    """By the name alone."""
    return suffix_of(name) in VID_FORMATS


def is_media(name: str | Path) -> bool:
    """An image or a video, by the name alone."""
    return suffix_of(name) in IMG_FORMATS or is_video(name)


def is_url(text: str) -> bool:
    """True for the schemes that a stream or a download can have."""
    return text.lower().startswith(_SCHEMES)
