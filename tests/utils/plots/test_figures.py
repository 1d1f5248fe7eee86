"""Figures leave no trace in Matplotlib's global state and may be drawn from any thread."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from utils.files import ROOT
from utils.plots import figures
from utils.plots.confusion import plot_confusion
from utils.plots.figures import class_lettering
from utils.plots.labels import plot_labels


def test_names_for_every_class():
    assert class_lettering(["a", "b$"], range(3)).texts == ["a", r"b\$", "2"]
    assert class_lettering({5: "x"}, [5, 1]).texts == ["x", "1"]
    assert class_lettering(["été", "кот"], range(2)) == (["été", "кот"], None)  # Matplotlib's own font has them


def test_letters_that_no_font_has_become_a_number(monkeypatch):
    monkeypatch.setattr(figures, "find_font", lambda text: None)
    assert class_lettering(["a", "日本"], range(2)) == (["a", "class 1"], None)
    monkeypatch.setattr(figures, "find_font", lambda text: "some.ttf")
    assert class_lettering(["a", "日本"], range(2)) == (["a", "日本"], "some.ttf")


def test_no_pyplot_no_rc_changes(tmp_path):
    code = f"""
import sys, matplotlib
before = matplotlib.rcParams.copy()  # unlike dict(), it does not choose a backend
import numpy as np
from utils.plots.confusion import plot_confusion
plot_confusion(np.eye(3), ['a', 'b'], {str(tmp_path / "c.png")!r})
assert 'matplotlib.pyplot' not in sys.modules and 'seaborn' not in sys.modules and 'pandas' not in sys.modules
assert all(matplotlib.rcParams[key] == before[key] for key in before if key != 'backend')
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_the_facade_imports_nothing_heavy():
    code = """
import sys, utils.plots
assert not {'torch', 'matplotlib', 'cv2', 'numpy'} & set(sys.modules)
from utils.plots import Annotator, colors, plot_images, plot_results, save_one_box
assert callable(colors) and colors(0) and callable(plot_images)
import utils.plots.annotator
from utils.plots import colors
assert callable(colors)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_threads_draw_what_one_thread_draws(tmp_path):
    def draw(i: int) -> bytes:
        names = [f"{i}{j}" for j in range(4)]
        boxes = np.random.default_rng(i).uniform(0.1, 0.5, (30, 4))
        return (
            plot_confusion(np.eye(5) * i, names, tmp_path / f"{i}.png").read_bytes()
            + plot_labels(np.arange(30) % 4, boxes, names, _folder(tmp_path, i)).read_bytes()
        )

    alone = [draw(i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(4))) == alone


def _folder(base, i):
    path = base / f"folder{i}"
    path.mkdir(exist_ok=True)
    return path
