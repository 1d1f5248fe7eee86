"""Downloads from a server on the loopback address, and archives that mean harm."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import socket
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils import downloads
from utils.downloads import check_address, check_sha256, download, is_archive, unpack
from utils.errors import UserError

CONTENT = bytes(range(256)) * 12000  # 3 MB, three blocks


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `cut` bytes into each of the next `failures` answers it hangs up."""

    ranges = True
    failures = 0
    cut = 2_000_000
    etag = '"one"'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers["Range"]
        server.asked.append(wanted)
        if self.path != "/data.bin":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", server.etag)
        if server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        body = CONTENT[start:]
        if server.failures:
            server.failures -= 1
            body = body[: server.cut]
            self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a reader that only wanted the headers
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_download_into_a_new_folder(server: Server, tmp_path: Path, capsys) -> None:
    target = download(server.url, tmp_path / "new" / "data.bin", hashlib.sha256(CONTENT).hexdigest().upper())
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["data.bin"]
    assert "fetching data.bin  3/3" in capsys.readouterr().out


def test_the_progress_does_not_depend_on_how_the_bytes_arrive() -> None:
    class Pieces(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read1(min(size or 0, 700_000))

    blocks = list(downloads._blocks(Pieces(CONTENT)))
    assert b"".join(blocks) == CONTENT
    assert [len(block) for block in blocks] == [1 << 20, 1 << 20, len(CONTENT) - (2 << 20)]


def test_file_url(tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(CONTENT)
    url = (tmp_path / "a b.bin").as_uri()
    assert download(url, tmp_path / "copy.bin", progress=False).read_bytes() == CONTENT
    with pytest.raises(UserError, match="cannot fetch file://"):
        download(url + "x", tmp_path / "other.bin")


def test_broken_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.failures = 1
    assert download(server.url, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.asked[-1] is not None
    assert int(server.asked[-1].removeprefix("bytes=").rstrip("-")) > 1_000_000


def test_a_later_call_goes_on_where_the_first_gave_up(server: Server, tmp_path: Path) -> None:
    server.failures, server.cut = 99, 200_000
    with pytest.raises(UserError, match=r"without a network, put it at .*data\.bin"):
        download(server.url, tmp_path / "data.bin")
    assert not (tmp_path / "data.bin").exists()
    server.failures = 0
    assert download(server.url, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=800000-"  # four tries of 200 kB each


def test_a_part_of_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.failures, server.cut = 99, 200_000
    with pytest.raises(UserError, match="closed early"):
        download(server.url, tmp_path / "data.bin")
    server.failures, server.etag = 0, '"two"'
    assert download(server.url, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_server_that_cannot_resume(server: Server, tmp_path: Path) -> None:
    server.ranges, server.failures = False, 1
    with pytest.raises(UserError, match="cannot fetch"):
        download(server.url, tmp_path / "data.bin")
    assert list(tmp_path.iterdir()) == []
    assert download(server.url, tmp_path / "data.bin").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"is not the file expected: sha256 {hashlib.sha256(CONTENT).hexdigest()}"):
        download(server.url, tmp_path / "data.bin", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_fetched(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"HTTP 404 .*put it at .*data\.bin"):
        download(server.url.replace("data", "absent"), tmp_path / "data.bin")
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="cannot fetch"):
        download(server.url, tmp_path / "data.bin", timeout=2)
    for url in ("ftp://x/y", "/etc/passwd", "s3://bucket"):
        with pytest.raises(UserError, match="addresses start with"):
            download(url, tmp_path / "data.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_comes_to_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends a letter of its headers now and then, so that no timeout of a connection is reached."""
    monkeypatch.setattr(downloads, "_PATIENCE", 0.5)
    monkeypatch.setenv("no_proxy", "*")
    given_up = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            for _ in range(600):
                connection.sendall(b"x")
                if given_up.wait(0.05):
                    break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(UserError, match=r"no answer within 0\.5 s.*; without a network, put it at .*data\.bin"):
            download(f"http://127.0.0.1:{listener.getsockname()[1]}/data.bin", tmp_path / "data.bin", timeout=5)
        assert thread.is_alive(), "while it still sent"
        given_up.set()
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_check_sha256(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_text("abc")
    check_sha256(file, None)
    check_sha256(file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")  # FIPS 180-2, appendix B.1
    check_sha256(file, "BA7816BF")
    with pytest.raises(UserError, match="this is not the file"):
        check_sha256(file, "1" * 64, "this")


# --- unpack -----------------------------------------------------------------------------------------------------------


def make_zip(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def make_tar(path: Path, members: dict[str, str], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, f"w:{path.suffix.removeprefix('.') if path.suffix != '.tar' else ''}") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
        for entry in extra:
            archive.addfile(entry)
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_unpack(tmp_path: Path, name: str) -> None:
    members = {"set/images/1.jpg": "one", "set/labels/1.txt": "", "__MACOSX/set/._1.jpg": "x", "set/.DS_Store": "x"}
    archive = (make_zip if name.endswith(".zip") else make_tar)(tmp_path / name, members)
    assert unpack(archive, tmp_path / "plain") == 2
    assert (tmp_path / "plain/set/images/1.jpg").read_text() == "one"
    assert unpack(archive, tmp_path / "stripped", strip="set") == 2
    assert sorted(p.name for p in (tmp_path / "stripped").iterdir()) == ["images", "labels"]
    assert is_archive(archive)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:\\evil", "..\\evil", "C:evil"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_members_outside_are_refused(tmp_path: Path, make, name: str) -> None:
    inside = tmp_path / "in" / "side"
    archive = make(tmp_path / ("a.zip" if make is make_zip else "a.tar"), {"good": "x", name: "x"})
    with pytest.raises(UserError, match="would write outside its folder"):
        unpack(archive, inside)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("link")
    entry.type, entry.linkname = kind, "/etc"
    with pytest.raises(UserError, match="holds a link or device"):
        unpack(make_tar(tmp_path / "a.tar", {}, entry), tmp_path / "out")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(UserError, match="holds a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_FLOOR", 1 << 20)
    archive = make_zip(tmp_path / "a.zip", {f"{i}": "0" * (1 << 18) for i in range(20)})  # 5 MB, about 1:700
    with pytest.raises(UserError, match="looks like a bomb"):
        unpack(archive, tmp_path / "out")
    assert sum(p.stat().st_size for p in (tmp_path / "out").iterdir()) <= 200 * archive.stat().st_size
    monkeypatch.setattr(downloads, "_FLOOR", 1 << 30)
    assert unpack(archive, tmp_path / "out2") == 20
    monkeypatch.setattr(downloads, "_MOST_MEMBERS", 10)
    with pytest.raises(UserError, match="looks like a bomb"):
        unpack(archive, tmp_path / "out3")


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="no room for 'a'"):
        unpack(make_zip(tmp_path / "a.zip", {"a": "x" * 100}), tmp_path / "out")


def test_damaged_archives(tmp_path: Path) -> None:
    text = "".join(chr(33 + (i * i * 7919) % 90) for i in range(5000))
    for name in ("a.zip", "a.tar.gz", "a.tar.xz"):
        archive = (make_zip if name.endswith(".zip") else make_tar)(tmp_path / name, {"a": text})
        whole = archive.read_bytes()
        for damaged in (b"", b"<html>", whole[: len(whole) // 2], whole[:60] + b"\0" * 300 + whole[360:]):
            archive.write_bytes(damaged)
            with pytest.raises(UserError, match="damaged or no archive"):
                unpack(archive, tmp_path / "out")


def test_encrypted_zip(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a": "x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    archive.write_bytes(content)
    with pytest.raises(UserError, match="is encrypted"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(
    "url", ["http://[::1/a.zip", "http://h:x/a", "http://h:99999/a", f"http://{'a' * 100}/a", "http:///a", "ftp://h/a"]
)  # fmt: skip
def test_odd_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot fetch .*not an address"):
        download(url, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_letters_beyond_ascii_are_escaped() -> None:
    assert check_address("http://é.com:80/é b.zip?q=é%20x") == "http://xn--9ca.com:80/%C3%A9%20b.zip?q=%C3%A9%20x"
    assert check_address("https://user:a@h/%20(1).zip") == "https://user:a@h/%20(1).zip"


def test_a_device_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no regular file"):
        download("file:///dev/zero", tmp_path / "a")


def test_a_server_that_sends_next_to_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def read1(self, _: int) -> bytes:
            clock[0] += 20
            return b"x"

    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with pytest.raises(TimeoutError, match="only 4 bytes came in 80 s"):
        list(downloads._blocks(Slow()))  # type: ignore[arg-type]
