"""Several cameras and network streams at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2

from utils.data.sources.files import is_url
from utils.data.sources.frame import Frame, Unreadable
from utils.data.sources.latest import Backoff, LatestFrame, open_capture
from utils.errors import UserError
from utils.logging import LOGGER
from utils.yamls import read_text

STALL = 5.0  # seconds without a frame after which a warning is logged


def stream_addresses(source: str | int | Path | Sequence[str | int]) -> list[str]:
    """The addresses of `source`: one, or those in a ``.streams`` file with one per line (``#`` starts a comment)."""
    if not isinstance(source, (str, int, Path)):
        return [str(entry) for entry in source]
    text = str(source)
    if not (text.endswith(".streams") or (text.endswith(".txt") and Path(text).is_file())):
        return [text]
    lines = [line.strip() for line in read_text(text).splitlines()]
    addresses = [line for line in lines if line and not line.startswith("#")]
    if not addresses:
        raise UserError(f"{text}: no stream in it; write one address or camera number per line")
    return addresses


class Streams:
    """Yields the frames that are new since the last time, at most one per stream.

    Every stream has a reader thread that reconnects. A stream that is lost for good is reported and noted in
    `unreadable`, and the others go on. The iteration ends when all have ended. Raises `UserError` for something that
    cannot be an address.
    """

    live = True

    def __init__(
        self,
        addresses: Sequence[str],
        vid_stride: int = 1,
        backoff: Backoff | None = None,
        stall: float = STALL,
        opener: Callable[[str | int], cv2.VideoCapture] = open_capture,
    ) -> None:
        self.paths = list(addresses)
        self.vid_stride = max(1, vid_stride)
        self.unreadable: list[Unreadable] = []
        self._stall = stall
        self._news = threading.Condition()
        self.readers = [
            LatestFrame(_capture_address(a), self.vid_stride, backoff, self._news, opener) for a in self.paths
        ]

    def __len__(self) -> int:
        """The number of streams."""
        return len(self.paths)

    def __iter__(self) -> Iterator[list[Frame]]:
        for reader in self.readers:
            reader.start()
        last_seen = [time.monotonic()] * len(self.readers)
        stalled: set[int] = set()
        over: set[int] = set()
        try:
            while True:
                frames = self._round()
                now = time.monotonic()
                for i, reader in enumerate(self.readers):
                    if i in frames:
                        self._tell_recovery(i, stalled, now - last_seen[i])
                        last_seen[i] = now
                    elif reader.ended:
                        self._tell_end(i, over)
                    elif reader.connected and now - last_seen[i] > self._stall and i not in stalled:
                        stalled.add(i)
                        LOGGER.warning(f"{reader.name}: no frame for {self._stall:g} s")
                if frames:
                    yield list(frames.values())
                elif len(over) == len(self.readers):
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Stop the readers."""
        for reader in self.readers:
            reader.close()

    def _round(self) -> dict[int, Frame]:
        """The new frames by number of stream. There are none if a second has passed without any."""
        frames = {}
        with self._news:
            self._news.wait_for(lambda: any(r.fresh for r in self.readers) or self._all_ended(), timeout=1.0)
        for i, reader in enumerate(self.readers):
            if (shot := reader.take()) is not None:
                fps = reader.fps / self.vid_stride
                frames[i] = Frame(self.paths[i], shot.image, "stream", shot.number, 0, fps, shot.time, f"stream {i}")
        return frames

    def _all_ended(self) -> bool:
        return all(reader.ended for reader in self.readers)

    def _tell_recovery(self, i: int, stalled: set[int], gap: float) -> None:
        if i in stalled:
            stalled.remove(i)
            LOGGER.info(f"{self.readers[i].name}: frames again after {gap:.0f} s")

    def _tell_end(self, i: int, over: set[int]) -> None:
        if i in over:
            return
        over.add(i)
        if reason := self.readers[i].failure:
            if len(over) < len(self.readers):  # the others go on; the summary at the end reports the last one
                LOGGER.warning(f"{self.readers[i].name}: {reason}; given up")
            self.unreadable.append(Unreadable(self.paths[i], reason))


def _capture_address(text: str) -> str | int:
    """The address for OpenCV, which needs the number of a camera as an int."""
    if text.isdecimal():
        if len(text) > 9:
            raise UserError(f"there is no camera {text}; --source 0 is the first one")
        return int(text)
    if not is_url(text) and not Path(text).exists() and not text.startswith("/dev/"):
        raise UserError(f"stream '{text}' is no address (rtsp://, http://, …), camera number or file")
    return text
