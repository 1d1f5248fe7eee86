"""Matplotlib figures without its global state: no pyplot, no rc changes, safe to draw from a worker thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.files import atomic_write
from utils.plots.fonts import covers, find_font

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RENDERING = threading.Lock()  # Matplotlib's font and text caches are shared by all figures of a process


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches that belongs to nobody but the caller."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> Path:
    """Write `figure` to `path` (the suffix names the format) in one step, and return the path."""
    path = Path(path)
    with _RENDERING, atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:] or "png", dpi=dpi)
    return path


class Lettering(NamedTuple):
    """Texts as Matplotlib can show them, and the font that has their letters (None: its own)."""

    texts: list[str]
    font: str | None

    def style(self, size: float) -> dict[str, Any]:
        """Keywords for a `Text` of `size` points."""
        if self.font is None:
            return {"fontsize": size}
        from matplotlib.font_manager import FontProperties

        return {"fontproperties": FontProperties(fname=self.font, size=size)}


def class_lettering(names: Mapping[int, str] | Sequence[str], classes: Iterable[int]) -> Lettering:
    """The names of `classes`; a class without a name is called by its number.

    Letters that Matplotlib's own font lacks are looked up in the fonts of the system; where none has them all, the
    names that would show empty boxes become ``class 7``.
    """
    known = names if isinstance(names, Mapping) else dict(enumerate(names))
    numbers = [int(c) for c in classes]
    texts = [str(known.get(c, c)) for c in numbers]
    font = None
    if not all(text.isascii() for text in texts):
        from matplotlib import get_data_path

        own = str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
        everything = "".join(texts)
        font = None if covers(own, everything) else find_font(everything)
        if font is None:
            texts = [t if covers(own, t) else f"class {c}" for c, t in zip(numbers, texts, strict=True)]
    return Lettering([plain_text(text) for text in texts], font)


def plain_text(text: Any) -> str:
    """`text` as Matplotlib shows it literally: a ``$`` would start a formula."""
    return str(text).replace("$", r"\$")
