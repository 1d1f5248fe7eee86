"""The forms of what was found, worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.hub.detections import Detections
from utils.devices import Profile

NAMES = {0: "person", 1: "a/b"}
# in a picture of 100 × 200 (height × width): xyxy, confidence, class
ROWS = torch.tensor([[20.0, 10.0, 100.0, 60.0, 0.75, 0.0], [0.0, 50.0, 40.0, 100.0, 0.5, 1.0]])


@pytest.fixture
def found() -> Detections:
    """Two pictures; two objects in the first, none in the second."""
    ims = [np.full((100, 200, 3), (200, 100, 50), np.uint8), np.zeros((50, 40, 3), np.uint8)]
    times = [Profile(0.002), Profile(0.02), Profile(0.004)]
    return Detections(ims, [ROWS.clone(), torch.zeros(0, 6)], ["a.jpg", "b.jpg"], times, NAMES, (2, 3, 320, 640))


def test_four_forms(found: Detections) -> None:
    assert found.pred[0].tolist() == found.xyxy[0].tolist() == ROWS.tolist()
    assert found.xywh[0].tolist() == [[60, 35, 80, 50, 0.75, 0], [20, 75, 40, 50, 0.5, 1]]
    assert torch.allclose(found.xyxyn[0], torch.tensor([[0.1, 0.1, 0.5, 0.6, 0.75, 0], [0, 0.5, 0.2, 1, 0.5, 1]]))
    assert torch.allclose(found.xywhn[0], torch.tensor([[0.3, 0.35, 0.4, 0.5, 0.75, 0], [0.1, 0.75, 0.2, 0.5, 0.5, 1]]))
    assert all(form[1].shape == (0, 6) for form in (found.pred, found.xyxy, found.xywh, found.xyxyn, found.xywhn))


def test_figures_and_texts(found: Detections, capsys: pytest.CaptureFixture[str]) -> None:
    assert (len(found), found.n, found.s) == (2, 2, (2, 3, 320, 640))
    assert found.t == pytest.approx((1, 10, 2))  # ms a picture
    text = (
        "image 1/2: 100x200 1 person, 1 a/b\n"
        "image 2/2: 50x40 (no detections)\n"
        "Speed: 1.0ms pre-process, 10.0ms inference, 2.0ms NMS per image at shape (2, 3, 320, 640)"
    )
    assert str(found) == text
    found.print()
    assert capsys.readouterr().out == text + "\n"
    assert repr(found) == f"Detections of 2 images\n{text}"


def test_tables(found: Detections) -> None:
    tables = found.pandas()
    corners = ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    centres = ["xcenter", "ycenter", "width", "height", "confidence", "class", "name"]
    for form, columns in (("xyxy", corners), ("xyxyn", corners), ("xywh", centres), ("xywhn", centres)):
        assert [list(table.columns) for table in getattr(tables, form)] == [columns, columns]
        assert [len(table) for table in getattr(tables, form)] == [2, 0]
        assert isinstance(getattr(found, form)[0], torch.Tensor)  # the original is as it was
    first = tables.xyxy[0]
    assert first.values.tolist() == [[20, 10, 100, 60, 0.75, 0, "person"], [0, 50, 40, 100, 0.5, 1, "a/b"]]
    assert first["class"].dtype == int
    assert tables.xywh[0].loc[1, "ycenter"] == 75
    assert first[first.name == "person"].to_json(orient="records") == (
        '[{"xmin":20.0,"ymin":10.0,"xmax":100.0,"ymax":60.0,"confidence":0.75,"class":0,"name":"person"}]'
    )


def test_one_for_each_picture(found: Detections) -> None:
    first, second = found.tolist()
    assert (first.n, second.n) == (1, 1)
    assert first.xyxy[0].tolist() == ROWS.tolist()
    assert (first.files, second.files) == (["a.jpg"], ["b.jpg"])
    assert first.s == (1, 3, 320, 640)
    assert first.t == pytest.approx(found.t)
    assert first.names == NAMES


def test_drawing_changes_ims_and_not_the_pictures_given(found: Detections) -> None:
    given = found.ims[0]
    before = given.copy()
    drawn = found.render()
    assert drawn is found.ims
    assert np.array_equal(given, before)
    changed = (drawn[0] != before).any(-1)
    assert changed[10, 20:101].all()  # the upper edge of the first box
    assert not changed[75:, 45:].any()  # nothing where there is nothing
    assert not drawn[1].any()
    from utils.plots.annotator import colors

    assert tuple(drawn[0][60, 60]) == colors(0)  # RGB
    again = found.render()
    assert np.array_equal(again[0], drawn[0])  # drawing twice is drawing once
    bare = found.render(labels=False)[0]
    assert (bare != before).any(-1).sum() < changed.sum()


def test_save_numbers_its_folders(found: Detections, tmp_path: Path) -> None:
    folder = found.save(save_dir=tmp_path / "exp")
    assert folder == tmp_path / "exp"
    assert {p.name for p in folder.iterdir()} == {"a.jpg", "b.jpg"}
    saved = cv2.imread(str(folder / "a.jpg"))[..., ::-1]
    assert np.abs(saved[90, 150].astype(int) - (200, 100, 50)).max() < 6  # a JPEG, and red is red
    assert np.array_equal(found.ims[0][10, 20], (200, 100, 50))  # saved, not rendered
    assert found.save(save_dir=tmp_path / "exp") == tmp_path / "exp2"
    assert found.save(save_dir=tmp_path / "exp", exist_ok=True) == tmp_path / "exp"


def test_crops(found: Detections, tmp_path: Path) -> None:
    found.render()  # crops are cut from the picture, not from the drawing
    crops = found.crop(save_dir=tmp_path / "exp")
    assert [crop["label"] for crop in crops] == ["a/b 0.50", "person 0.75"]  # the least sure first
    assert [float(v) for v in crops[1]["box"]] == [20, 10, 100, 60]
    assert (float(crops[1]["conf"]), int(crops[1]["cls"])) == (0.75, 0)
    # 80 × 1.02 + 10 = 91.6 wide and 50 × 1.02 + 10 = 61 high around (60, 35), in whole pixels
    assert crops[1]["im"].shape == (65 - 4, 105 - 14, 3)
    assert (crops[1]["im"] == (50, 100, 200)).all()  # BGR
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.jpg")} == {
        "exp/crops/person/a.jpg",
        "exp/crops/a_b/a.jpg",
    }
    assert len(found.crop(save=False, save_dir=tmp_path / "none")) == 2
    assert not (tmp_path / "none").exists()


def test_without_a_display_show_says_so(
    found: Detections, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("utils.plots.window.has_display", lambda: False)
    found.show()
    assert capsys.readouterr().err.startswith("warning: images cannot be shown")


def test_a_notebook_shows_pictures_itself(found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType, SimpleNamespace

    shown: list[np.ndarray] = []
    for name, content in (
        ("IPython", {"get_ipython": lambda: SimpleNamespace(kernel=object())}),
        ("IPython.display", {"display": lambda picture: shown.append(np.asarray(picture))}),
    ):
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    found.show()
    assert len(shown) == 2
    assert np.array_equal(shown[0], found.render()[0])


def test_of_nothing() -> None:
    nothing = Detections([], [], [])
    assert len(nothing) == 0
    assert nothing.pandas().xyxy == nothing.tolist() == nothing.crop(save=False) == []
    assert str(nothing).startswith("Speed: 0.0ms")


def test_what_supervision_reads(found: Detections) -> None:
    """The three arrays of its ``Detections.from_yolov5``."""
    rows = found.pred[0].cpu().numpy()
    assert rows[:, :4].tolist() == [[20, 10, 100, 60], [0, 50, 40, 100]]
    assert rows[:, 4].tolist() == [0.75, 0.5]
    assert rows[:, 5].astype(int).tolist() == [0, 1]
