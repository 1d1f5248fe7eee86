"""Reads a live stream in the background, so that the newest frame is always at hand and never an old one."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from utils.data.sources.video import frame_rate
from utils.logging import LOGGER

_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
OPEN_TIMEOUT = 10.0  # seconds that OpenCV may try to connect
READ_TIMEOUT = 10.0  # seconds without data after which OpenCV gives the connection up


@dataclass(frozen=True)
class Backoff:
    """How often a connection is tried again: after `first` seconds, then after twice as many, up to `longest`.

    It is tried `attempts` times if it had worked before, and `first_attempts` times if not (a mistyped address).
    """

    first: float = 1.0
    longest: float = 30.0
    attempts: int = 10
    first_attempts: int = 3

    def pauses(self, worked_before: bool) -> Iterator[float]:
        """Seconds to wait before each further attempt."""
        for attempt in range(self.attempts if worked_before else self.first_attempts):
            yield min(self.longest, self.first * 2**attempt)


@dataclass(frozen=True)
class Shot:
    """A live frame: `image` (H, W, 3) uint8 BGR, its number in the stream from 1, its arrival in monotonic seconds."""

    image: np.ndarray
    number: int
    time: float


def open_capture(address: str | int) -> cv2.VideoCapture:
    """Open a camera by its number, or a stream by its address, with time limits where the backend has them."""
    if isinstance(address, int):
        return cv2.VideoCapture(address)
    if Path(address).is_file():
        return cv2.VideoCapture(address)
    limits = {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC: READ_TIMEOUT}
    parameters = [number for key, seconds in limits.items() for number in (key, int(seconds * 1000))]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, parameters)
    if not capture.isOpened():
        raise Unreachable(why_unreachable(address))
    return capture


class Unreachable(Exception):
    """A stream could not be opened. The text is the reason, as far as it can be found out."""


def why_unreachable(address: str) -> str:
    """Why `address` cannot be opened. A connection to its host is tried, because OpenCV gives no reason."""
    try:
        parts = urlsplit(address)
        port = parts.port or _PORTS.get(parts.scheme.lower())
        if not parts.hostname or port is None:
            return "cannot be opened"
        with socket.create_connection((parts.hostname, port), OPEN_TIMEOUT):
            return "cannot be opened: the host answers, but sends no video; check path, user and password"
    except TimeoutError:
        return "cannot be opened: the host does not answer"
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    except ValueError as error:
        return f"cannot be opened: not an address ({error})"


class LatestFrame:
    """Reads one stream in a thread of its own and keeps the newest frame. It looks at every `vid_stride`-th one only.

    A lost connection is opened again after the pauses of `backoff`; each loss and each return is logged. A file that is
    used as a stream plays at its own pace and ends at its end. `news` is notified of every new frame and of the end.

    Attributes: `name` for log lines, `connected`, `ended` (nothing more will come), `failure` (why it ended; None after
    the end of a file or `close`), `fps`, `skipped` (number of frames that were replaced before anyone took them).
    """

    def __init__(
        self,
        address: str | int,
        vid_stride: int = 1,
        backoff: Backoff | None = None,
        news: threading.Condition | None = None,
        opener: Callable[[str | int], cv2.VideoCapture] = open_capture,
    ) -> None:
        self.address = address
        self.ended = False
        self.failure: str | None = None
        self.fps = 30.0
        self.skipped = 0
        self.connected = False
        self.name = f"camera {address}" if isinstance(address, int) else address
        self._is_file = isinstance(address, str) and Path(address).is_file()
        self._stride = max(1, vid_stride)
        self._backoff = backoff or Backoff()
        self._opener = opener
        self._news = news or threading.Condition()
        self._shot: Shot | None = None
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reader of {address}", daemon=True)

    def start(self) -> LatestFrame:
        """Begin to connect and read in the background."""
        self._thread.start()
        return self

    @property
    def fresh(self) -> bool:
        """Whether there is a frame that was not taken yet."""
        return self._shot is not None

    def take(self) -> Shot | None:
        """The newest frame if it was not taken yet, else None. It does not wait."""
        with self._news:
            shot, self._shot = self._shot, None
            return shot

    def wait(self, timeout: float | None = None) -> Shot | None:
        """Wait for a new frame and take it; None after `timeout` seconds or once the stream has ended."""
        with self._news:
            self._news.wait_for(lambda: self.fresh or self.ended, timeout)
        return self.take()

    def close(self) -> None:
        """Stop reading. A reader that is stuck in OpenCV ends at its time limit."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.failure = self._keep_reading()
        except Exception as error:  # without this, whoever waits for frames would wait forever
            self.failure = f"{type(error).__name__}: {error}"
            LOGGER.exception(f"{self.name}: the reader failed")
        with self._news:
            self.ended = True
            self._news.notify_all()

    def _keep_reading(self) -> str | None:
        """Connect and read, again and again. Returns why it ended."""
        pauses = self._backoff.pauses(worked_before=False)
        reason = "cannot be opened"
        while not self._stop.is_set():
            before = self._number
            try:
                if self._read_connection():
                    reason = "the connection was lost" if self._number else "no frame came"
            except Unreachable as error:
                reason = str(error)
            if self._number > before:
                pauses = self._backoff.pauses(worked_before=True)
            if self._stop.is_set() or (self._is_file and self._number):
                return None
            never_a_network = self._is_file or (isinstance(self.address, int) and not self._number)
            pause = None if never_a_network else next(pauses, None)
            if pause is None:
                return reason
            level = logging.WARNING if self._number else logging.INFO  # a loss, or a connection that never was
            LOGGER.log(level, f"{self.name}: {reason}; trying again in {pause:g} s")
            self._stop.wait(pause)
        return None

    def _read_connection(self) -> bool:
        """Read one connection to its end. Returns False if there was none."""
        capture = self._opener(self.address)
        try:
            if not capture.isOpened():
                return False
            self.connected = True
            self.fps = frame_rate(capture)
            if self._number:
                LOGGER.info(f"{self.name}: connected again")
            due = time.monotonic()
            while not self._stop.is_set() and capture.grab():
                self._number += 1
                if self._number % self._stride == 1 % self._stride:
                    done, image = capture.retrieve()
                    if not done:
                        break
                    self._publish(image)
                if self._is_file:
                    due += 1 / self.fps
                    self._stop.wait(max(0.0, due - time.monotonic()))
            return True
        finally:
            self.connected = False
            capture.release()

    def _publish(self, image: np.ndarray) -> None:
        with self._news:
            self.skipped += self._shot is not None
            self._shot = Shot(image, self._number, time.monotonic())
            self._news.notify_all()
