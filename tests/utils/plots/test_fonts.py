"""Fonts are found by the letters they have."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from utils.errors import UserError
from utils.plots import fonts
from utils.plots.fonts import covers, find_font, font_file, missing, system_fonts, text_mask

CYRILLIC, CHINESE, NOWHERE = "Человек", "人", "\U00013000"  # an Egyptian hieroglyph
needs_cyrillic = pytest.mark.skipif(find_font(CYRILLIC) is None, reason="no font of this system has Cyrillic letters")


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "system_fonts", tuple)
    fonts._find_font.cache_clear()
    fonts.text_mask.cache_clear()
    fonts._tell_missing.cache_clear()
    yield
    fonts._find_font.cache_clear()
    fonts.text_mask.cache_clear()
    fonts._tell_missing.cache_clear()


def test_ascii_mask_is_ink_on_nothing() -> None:
    mask = text_mask("person 0.87", 24)
    assert mask.dtype == np.uint8
    assert mask.max() == 255
    assert 0.05 < (mask > 127).mean() < 0.6
    assert mask.shape[0] == text_mask("a", 24).shape[0] == text_mask("gyW", 24).shape[0]
    assert 20 <= mask.shape[0] <= 40
    assert not mask.flags.writeable


def test_mask_grows_with_size_and_text() -> None:
    assert text_mask("abc", 48).shape[1] > 1.6 * text_mask("abc", 24).shape[1]
    assert text_mask("abcabc", 24).shape[1] > 1.6 * text_mask("abc", 24).shape[1]
    assert text_mask("", 24).shape == (24, 0)
    assert np.array_equal(text_mask("a\nb", 24), text_mask("a b", 24))


@needs_cyrillic
def test_the_font_found_has_the_letters() -> None:
    path = find_font(CYRILLIC)
    assert path is not None
    assert covers(path, CYRILLIC)
    assert missing(path, CYRILLIC + NOWHERE) == {NOWHERE}
    shapes = {text_mask(letter, 24, path).tobytes() for letter in "Члвек"}
    assert len(shapes) == 5  # five letters, not five times the box for what is missing


@needs_cyrillic
def test_plain_fonts_come_first() -> None:
    files = [path.stem.lower() for path in system_fonts()]
    assert not any(word in files[0] for word in ("bold", "italic", "mono"))
    assert all(path.suffix.lower() in (".ttf", ".otf", ".ttc", ".otc") for path in system_fonts())


@pytest.mark.usefixtures("no_system_fonts")
@pytest.mark.parametrize("builtin", [True, False])
def test_letters_that_nothing_has_are_said_once(
    builtin: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not builtin:
        monkeypatch.delattr("cv2.FontFace", raising=False)
    mask = text_mask(f"a{NOWHERE}b", 24)
    text_mask(f"c{NOWHERE}", 24)
    assert np.array_equal(mask, text_mask("a?b", 24))
    assert capsys.readouterr().err.count(f"no font at hand has {NOWHERE}") == 1


@pytest.mark.usefixtures("no_system_fonts")
def test_builtin_letters_of_opencv_5() -> None:
    import cv2

    if not hasattr(cv2, "FontFace"):
        pytest.skip("this OpenCV has no font of its own")
    mask = text_mask(f"{CHINESE} 0.50", 24)
    assert not np.array_equal(mask, text_mask("? 0.50", 24))
    assert 0.03 < (mask > 127).mean() < 0.6
    assert mask[:, -12:].any()  # the number behind the Chinese letter is not cut off


def test_masks_of_whole_texts_are_kept_by_one_cache_only() -> None:
    """A text of another confidence is another mask: what `text_mask` has dropped must not stay elsewhere."""
    import cv2

    if not hasattr(cv2, "FontFace"):
        pytest.skip("this OpenCV has no font of its own")
    mask = fonts._builtin_mask(f"{CHINESE} 0.51", 24)
    assert mask is not None
    kept = weakref.ref(mask)
    del mask
    gc.collect()
    assert kept() is None


def test_marks_go_with_the_letter_they_sat_on() -> None:
    assert fonts._without("हिx", {"ह"}) == "?x"
    assert fonts._without("xé", set()) == "xé"


@needs_cyrillic
def test_font_by_name_and_by_file(tmp_path: Path) -> None:
    first = system_fonts()[0]
    assert font_file(str(first)) == str(first)
    assert Path(font_file(first.stem.upper())).stem.lower() == first.stem.lower()
    with pytest.raises(UserError, match="neither a file nor a font of this system"):
        font_file(first.stem + "x")
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    with pytest.raises(UserError, match="not a font that can be read"):
        font_file(str(tmp_path / "bad.ttf"))


@needs_cyrillic
def test_named_font_is_used_for_ascii_too() -> None:
    assert not np.array_equal(text_mask("abc", 24, str(system_fonts()[0])), text_mask("abc", 24))
