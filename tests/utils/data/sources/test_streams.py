"""Live sources against cameras that are played: newest frame, reconnection, stalls, ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.media import write_video
from utils.data.sources.latest import Backoff, LatestFrame, Unreachable, why_unreachable
from utils.data.sources.streams import Streams, stream_addresses
from utils.errors import UserError

QUICK = Backoff(first=0.01, longest=0.02, attempts=3, first_attempts=1)
URL = "rtsp://camera"


class FakeCapture:
    """A connection that gives `count` frames, one every `pause` seconds, then fails; frame n is filled with n."""

    def __init__(self, count: int = 5, pause: float = 0.0, opened: bool = True, first: int = 1) -> None:
        self.count, self.pause, self.opened = count, pause, opened
        self.number = first - 1
        self.released = False

    def isOpened(self) -> bool:
        return self.opened

    def get(self, what: int) -> float:
        return 25.0

    def grab(self) -> bool:
        if self.count == 0:
            return False
        self.count -= 1
        self.number += 1
        time.sleep(self.pause)
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((8, 8, 3), self.number, np.uint8)

    def release(self) -> None:
        self.released = True


def opener_of(*captures: FakeCapture) -> Callable[[str | int], FakeCapture]:
    """Hands out `captures` one after the other, then connections that fail."""
    queue = list(captures)
    return lambda address: queue.pop(0) if queue else FakeCapture(opened=False)


def reader(*captures: FakeCapture, **kwargs: object) -> LatestFrame:
    options = {"backoff": QUICK, "opener": opener_of(*captures), **kwargs}
    return LatestFrame(URL, **options)  # type: ignore[arg-type]


def test_backoff_doubles_up_to_the_longest() -> None:
    backoff = Backoff(first=1, longest=30, attempts=8, first_attempts=2)
    assert list(backoff.pauses(worked_before=True)) == [1, 2, 4, 8, 16, 30, 30, 30]
    assert list(backoff.pauses(worked_before=False)) == [1, 2]


def test_slow_taker_gets_the_newest_frame() -> None:
    news = threading.Condition()
    latest = reader(FakeCapture(count=50, pause=0.004), news=news).start()
    assert latest.wait(60.0) is not None
    with news:
        assert news.wait_for(lambda: latest.ended, 60.0)
    newest = latest.take()
    assert newest is not None
    assert newest.number == newest.image[0, 0, 0] == 50
    assert latest.skipped == 48  # what came in between is gone, not queued
    assert latest.take() is None


def test_frame_is_taken_once_and_wait_times_out() -> None:
    capture = FakeCapture(count=1)
    latest = reader(capture, backoff=Backoff(first=5)).start()
    assert latest.wait(2.0) is not None
    start = time.monotonic()
    assert latest.wait(0.05) is None
    assert time.monotonic() - start > 0.04
    latest.close()
    assert capture.released


def test_reconnects_and_counts_on(capsys: pytest.CaptureFixture[str]) -> None:
    latest = reader(FakeCapture(3, 0.01), FakeCapture(opened=False), FakeCapture(2, 0.01, first=4)).start()
    shots = []
    while (shot := latest.wait(2.0)) is not None:
        shots.append(shot.number)
    assert shots[-1] == 5
    assert latest.ended
    assert latest.failure == "cannot be opened" or latest.failure == "the connection was lost"
    captured = capsys.readouterr()
    assert f"{URL}: the connection was lost; trying again in 0.01 s" in captured.err
    assert f"{URL}: connected again" in captured.out


def test_gives_up_sooner_where_it_never_worked(capsys: pytest.CaptureFixture[str]) -> None:
    latest = reader().start()
    assert latest.wait(2.0) is None
    assert latest.ended
    assert latest.failure == "cannot be opened"
    assert capsys.readouterr().out.count("trying again") == QUICK.first_attempts


def test_camera_that_is_not_there_is_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    latest = LatestFrame(0, backoff=Backoff(first=60), opener=opener_of()).start()  # type: ignore[arg-type]
    assert latest.wait(2.0) is None
    assert latest.failure == "cannot be opened"


def test_failing_reader_ends_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(address: str | int) -> cv2.VideoCapture:
        raise RuntimeError("driver")

    latest = LatestFrame(URL, opener=broken).start()
    assert latest.wait(2.0) is None
    assert latest.failure == "RuntimeError: driver"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("rtsp://127.0.0.1:1/x", "cannot be opened: Connection refused"),
        ("rtsp://[::1/x", "cannot be opened: not an address (Invalid IPv6 URL)"),
        ("http://127.0.0.1:99999/x", "cannot be opened: not an address (Port out of range 0-65535)"),
        ("udp://127.0.0.1/x", "cannot be opened"),
        ("rtsp:///x", "cannot be opened"),
    ],
)
def test_why_a_stream_cannot_be_opened(address: str, told: str) -> None:
    assert why_unreachable(address) == told


def test_a_host_that_answers_without_video() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = why_unreachable(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x")
    assert told == "cannot be opened: the host answers, but sends no video; check path, user and password"


def test_the_reason_reaches_the_summary_and_nothing_else_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(address: str | int) -> cv2.VideoCapture:
        raise Unreachable("cannot be opened: Connection refused")

    streams = Streams([URL], backoff=QUICK, opener=refused)
    assert list(streams) == []
    assert [item.reason for item in streams.unreadable] == ["cannot be opened: Connection refused"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", ["9" * 10, "9" * 5000])
def test_there_is_no_such_camera(number: str) -> None:
    with pytest.raises(UserError, match="there is no camera 9"):
        Streams([number])


def test_stride() -> None:
    latest = reader(FakeCapture(7, 0.02), vid_stride=3).start()
    numbers = []
    while (shot := latest.wait(2.0)) is not None:
        numbers.append(shot.number)
    assert numbers == [1, 4, 7]
    latest.close()


# --- several streams --------------------------------------------------------------------------------------------------


def test_rounds_hold_one_new_frame_a_stream_and_end_when_all_have_ended() -> None:
    by_address = {"rtsp://a": [FakeCapture(4, 0.03)], "rtsp://b": [FakeCapture(8, 0.03)]}

    def opener(address: str | int) -> FakeCapture:
        queue = by_address[str(address)]
        return queue.pop(0) if queue else FakeCapture(opened=False)

    streams = Streams(["rtsp://a", "rtsp://b"], backoff=QUICK, opener=opener)  # type: ignore[arg-type]
    seen: dict[str, list[int]] = {"rtsp://a": [], "rtsp://b": []}
    for frames in streams:
        assert len({frame.path for frame in frames}) == len(frames)
        for frame in frames:
            assert frame.kind == "stream"
            assert frame.time is not None
            seen[frame.path].append(frame.number)
    assert seen["rtsp://a"][-1] == 4
    assert seen["rtsp://b"][-1] == 8
    assert all(numbers == sorted(set(numbers)) for numbers in seen.values())
    assert sorted(item.path for item in streams.unreadable) == ["rtsp://a", "rtsp://b"]
    assert not any(t.name.startswith("reader of rtsp://a") and t.is_alive() for t in threading.enumerate())


def test_stall_and_recovery_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    capture = FakeCapture(2)
    slow = capture.grab

    def grab() -> bool:
        if capture.number == 1:
            time.sleep(1.6)
        return slow()

    capture.grab = grab  # type: ignore[method-assign]
    streams = Streams([URL], backoff=QUICK, stall=0.2, opener=opener_of(capture))  # type: ignore[arg-type]
    assert [f.number for frames in streams for f in frames] == [1, 2]
    captured = capsys.readouterr()
    assert captured.err.count(f"{URL}: no frame for 0.2 s") == 1
    assert f"{URL}: frames again after" in captured.out


def test_video_file_as_a_stream_plays_at_its_own_pace_and_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", np.zeros((10, 16, 32, 3), np.uint8), 20)
    start = time.monotonic()
    streams = Streams([str(path)])
    numbers = [f.number for frames in streams for f in frames]
    assert 0.4 < time.monotonic() - start < 5
    assert numbers[-1] == 10
    assert not streams.unreadable


def test_addresses(tmp_path: Path) -> None:
    path = tmp_path / "cameras.streams"
    path.write_text("# the yard\nrtsp://a/1\n\n0\n", encoding="utf-8")
    assert stream_addresses(path) == ["rtsp://a/1", "0"]
    assert stream_addresses("rtsp://a/1") == ["rtsp://a/1"]
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="no stream in it"):
        stream_addresses(path)
    with pytest.raises(UserError, match="cannot read"):
        stream_addresses(tmp_path / "gone.streams")
    with pytest.raises(UserError, match="'htp://typo' is no address"):
        Streams(["htp://typo"])
