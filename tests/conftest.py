"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.seclusion import Guard, secluded_environment

ROOT = Path(__file__).resolve().parents[1]
GUARD = Guard()


def pytest_configure(config: pytest.Config) -> None:
    """Give tests, and the processes they start, a home of their own, before a library asks where home is."""
    folder = tempfile.TemporaryDirectory(prefix="home-of-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ.update(secluded_environment(Path(folder.name)))
    GUARD.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """The guard is awake from a test's first fixture to its last."""
    GUARD.active = True
    try:
        return (yield)
    finally:
        GUARD.active = False


@pytest.fixture(autouse=True)
def guard(tmp_path: Path) -> Iterator[Guard]:
    """Nothing of the user's is touched; the working directory, where ``runs/`` goes, is the test's `tmp_path`."""
    before = Path.cwd()
    os.chdir(tmp_path)
    GUARD.seen.clear()
    yield GUARD
    os.chdir(before)
    assert not GUARD.seen, "a test must not touch what is the user's"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the reference's figures."""
    return ROOT / "tests" / "data" / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and a published checkpoint, where they are at hand (YOLO_TEST_DATA)."""
    folder = Path(os.environ.get("YOLO_TEST_DATA", ROOT.parent / "shared")).resolve()
    if not (folder / "weights" / "yolov5n.pt").is_file():
        pytest.skip(f"no test data at {folder}; set YOLO_TEST_DATA to the folder that holds data/ and weights/")
    return folder


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """Signals end programs, this one and those that it starts: under ``nohup`` or behind ``&`` some are ignored."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    for name, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.fixture(autouse=True)
def _logging_to_current_streams() -> None:
    """Log to the streams of the moment, as commands do, so that `capsys` sees it."""
    from utils.logging import configure_logging

    configure_logging()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of a data set of 12 + 6 pictures of 96×96, one or two filled squares (class 0: light, 1: dark) on noise."""
    import cv2
    import numpy as np

    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(90, 140, (96, 96, 3), np.uint8)
            rows = []
            for corner in ((4, 4), (50, 50))[: 1 + i % 2]:
                side = int(rng.integers(24, 40))
                x, y = corner
                kind_of = int(rng.integers(2))
                image[y : y + side, x : x + side] = (230, 20)[kind_of]
                rows.append(f"{kind_of} {(x + side / 2) / 96} {(y + side / 2) / 96} {side / 96} {side / 96}")
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            (root / "labels" / split / f"{i}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    yaml = root / "tiny.yaml"
    yaml.write_text("path: .\ntrain: images/train\nval: images/val\nnames: [light, dark]\n", encoding="utf-8")
    return yaml


@pytest.fixture(scope="session")
def tiny_polygons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of a data set like `tiny_data`: triangles (class 0) as polygons, and squares (1), half of them as boxes."""
    import cv2
    import numpy as np

    root = tmp_path_factory.mktemp("outlines")
    rng = np.random.default_rng(1)
    for split, count in (("train", 12), ("val", 6)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(90, 140, (96, 96, 3), np.uint8)
            rows = []
            for cls, (x, y) in enumerate(((4, 4), (50, 50))[: 1 + i % 2]):
                side = int(rng.integers(24, 40))
                corners = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)])[: 3 + cls]
                cv2.fillPoly(image, [corners], (230, 230, 20) if cls else (20, 20, 230))
                numbers = [*(corners / 96).ravel()]
                if cls and i % 4 == 1:
                    numbers = [(x + side / 2) / 96, (y + side / 2) / 96, side / 96, side / 96]
                rows.append(" ".join(str(v) for v in (cls, *numbers)))
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            (root / "labels" / split / f"{i}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    yaml = root / "outlines.yaml"
    yaml.write_text("path: .\ntrain: images/train\nval: images/val\nnames: [triangle, square]\n", encoding="utf-8")
    return yaml


TINY: dict[str, Any] = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C3", [16]]],
    "head": [[-1, 1, "Conv", [16, 3, 2]], [[2, 3], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.fixture
def make_weights(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint of a tiny detector with random weights, norm statistics included, and returns its path.

    With ``head="Segment"``, of a segmenter with 4 prototypes, which its strides of 4 and 8 put at half of the image.
    """
    import torch

    from models.checkpoints.checkpoint import Checkpoint, save_checkpoint
    from models.yolo import model_of

    def make(
        name: str = "best.pt",
        seed: int = 0,
        names: tuple[str, ...] = ("cat", "dog"),
        head: str = "Detect",
        **fields: Any,
    ) -> Path:
        args = ["nc", "anchors", *([4, 8] if head == "Segment" else [])]
        cfg: dict[str, Any] = {**TINY, "nc": len(names), "head": [TINY["head"][0], [[2, 3], 1, head, args]]}
        torch.manual_seed(seed)
        model = model_of(cfg)
        for value in model.state_dict().values():
            if value.is_floating_point() and value.dim() < 3:
                value.uniform_(0.5, 1.5)
        values = {"task": model.task, "cfg": cfg, "names": dict(enumerate(names)), "state_dict": model.state_dict()}
        save_checkpoint(tmp_path / name, Checkpoint(**{**values, **fields}))
        return tmp_path / name

    return make
