"""Which file a name means, and what is said when there is none."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import models.weights
from models.weights import (
    IMAGENET,
    PUBLISHED,
    RELEASE,
    TORCHVISION,
    find_backbone_weights,
    find_weights,
    newest_best,
)
from utils.errors import UserError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, with the working directory beside it."""
    (tmp_path / "project" / "weights").mkdir(parents=True)
    (tmp_path / "cwd").mkdir()
    monkeypatch.setattr(models.weights, "ROOT", tmp_path / "project")
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "project"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses asked for, in a world without a network."""
    asked: list[str] = []

    def refuse(request: Any, *args: Any, **kwargs: Any) -> None:
        asked.append(request.full_url)
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return asked


def test_order_of_places(project: Path, offline: list[str]) -> None:
    places = [project / "weights" / "yolov5n.pt", project / "yolov5n.pt", Path("yolov5n.pt")]
    for place in places:  # the later ones come first
        place.touch()
        assert find_weights("yolov5n.pt") == place
    assert find_weights(project / "yolov5n.pt") == project / "yolov5n.pt"
    assert not offline


def test_published_names() -> None:
    assert len(PUBLISHED) == 15
    assert {"yolov5n.pt", "yolov5x6.pt", "yolov5m-seg.pt"} <= set(PUBLISHED)


def test_published_name_is_fetched_because_it_was_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(url: str, target: Path, sha256: str | None = None) -> Path:
        assert url == f"{RELEASE}/yolov5s.pt"
        target.write_text("weights")
        return target

    monkeypatch.setattr(models.weights, "download", download)
    assert find_weights("yolov5s.pt") == Path("yolov5s.pt")
    assert Path("yolov5s.pt").read_text() == "weights"
    assert f"fetching {RELEASE}/yolov5s.pt" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "folder"), [("yolov5s.pt", "the working directory"), ("w/yolov5s.pt", "'w'")])
def test_offline_says_where_to_put_it(project: Path, offline: list[str], name: str, folder: str) -> None:
    with pytest.raises(UserError) as caught:
        find_weights(name)
    assert str(caught.value) == (
        f"yolov5s.pt is not on disk and could not be fetched (Network is unreachable); put it in {folder} "
        f"from {RELEASE}/yolov5s.pt"
    )
    assert offline == [f"{RELEASE}/yolov5s.pt"]


def test_of_two_at_once_one_fetches(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    both_asked = threading.Barrier(2)

    def slow_download(url: str, target: Path, sha256: str | None = None) -> Path:
        fetched.append(url)
        time.sleep(0.2)  # the other one asks meanwhile
        target.touch()
        return target

    def ask(_: int) -> Path:
        both_asked.wait(30)
        return find_weights("yolov5n.pt")

    monkeypatch.setattr(models.weights, "download", slow_download)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ask, range(2))) == [Path("yolov5n.pt")] * 2
    assert fetched == [f"{RELEASE}/yolov5n.pt"]


def test_addresses(project: Path, offline: list[str]) -> None:
    with pytest.raises(UserError, match=re.escape("from https://example.org/a/best.pt?x=1")):
        find_weights("https://example.org/a/best.pt?x=1")
    Path("best.pt").touch()
    assert find_weights("https://example.org/a/best.pt?x=1") == Path("best.pt")
    assert len(offline) == 1


def test_unknown_names_are_never_fetched(project: Path, offline: list[str]) -> None:
    Path("bestest.pt").touch()
    for name, hint in (("yolov5q.pt", "yolov5"), ("bestes.pt", "bestest.pt"), ("yolov5n6-seg.pt", "yolov5")):
        with pytest.raises(UserError, match=rf"weights '{name}' not found; tried .*did you mean '{hint}"):
            find_weights(name)
    assert not offline


def make_run(base: Path, name: str, age: int, file: str = "best.pt") -> Path:
    path = base / "runs" / name / "weights" / file
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path


def test_newest_best(project: Path) -> None:
    with pytest.raises(UserError, match=r"no --weights given, and no runs/train\*/\*/weights/best.pt"):
        newest_best()
    make_run(project, "train/exp9", 0)  # somebody else's, where the project is shared
    with pytest.raises(UserError, match="in this folder"):
        newest_best()
    make_run(Path(), "train/exp", 30)
    newer = make_run(Path(), "train/exp2", 20)
    segmenter = make_run(Path(), "train-seg/exp", 10)
    make_run(Path(), "train/exp3", 0, file="last.pt")
    make_run(Path(), "detect/exp", 0)
    assert newest_best() == newer
    assert newest_best("-seg") == segmenter
    mine = make_run(Path(), "train-2026/exp", 5)
    assert newest_best() == mine


def test_the_words_for_imagenet_weights_are_torchvisions_files() -> None:
    from torchvision.models import MobileNet_V2_Weights

    assert {word: f"{TORCHVISION}/{file}" for word, file in IMAGENET.items()} == {
        "imagenet": MobileNet_V2_Weights.IMAGENET1K_V2.url,
        "imagenet-v1": MobileNet_V2_Weights.IMAGENET1K_V1.url,
    }


def test_imagenet_weights_come_from_torchs_cache_or_are_fetched_to_it(
    project: Path, offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(project / "torch"))
    place = project / "torch" / "hub" / "checkpoints" / "mobilenet_v2-7ebf99e0.pth"
    with pytest.raises(UserError) as error:
        find_backbone_weights("imagenet")
    url = f"{TORCHVISION}/mobilenet_v2-7ebf99e0.pth"
    assert str(error.value) == f"cannot fetch {url} (Network is unreachable); without a network, put it at {place}"
    assert offline == [url]
    place.touch()
    assert find_backbone_weights("imagenet") == place
    assert len(offline) == 1


def test_fetched_imagenet_weights_are_checked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(url: str, target: Path, sha256: str) -> Path:
        asked.append((url.rpartition("/")[2], sha256))
        return target

    monkeypatch.setattr(models.weights, "download", download)
    monkeypatch.setenv("TORCH_HOME", str(project))
    find_backbone_weights("imagenet-v1")
    assert asked == [("mobilenet_v2-b0353104.pth", "b0353104")]


def test_backbone_weights_on_disk(project: Path, offline: list[str]) -> None:
    for place in (project / "weights" / "m.pth", project / "m.pth", Path("m.pth")):
        place.touch()
        assert find_backbone_weights("m.pth") == place
    with pytest.raises(
        UserError,
        match=r"'imagnet' is neither imagenet nor imagenet-v1 nor a file; tried imagnet, .*\(did you mean 'imag",
    ):
        find_backbone_weights("imagnet")
    assert not offline
