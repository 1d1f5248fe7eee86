"""What stands in the place of an export: replaced where an export wrote it, left alone where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.export.command import _put, check_place, target_of
from engine.export.formats import FORMATS
from utils.errors import UserError


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_place_and_that_of_an_earlier_export(name: str, tmp_path: Path) -> None:
    weights, form = tmp_path / "best.pt", FORMATS[name]
    check_place(form, weights)
    target = target_of(form, weights)
    if form.file.endswith("/"):
        (target / "data").mkdir(parents=True)
    else:
        target.write_text("earlier")
    Path(f"{target}.json").write_text("{}")
    check_place(form, weights)


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.file.endswith("/")])
def test_a_folder_called_as_the_file(name: str, tmp_path: Path) -> None:
    target = target_of(FORMATS[name], tmp_path / "best.pt")
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(UserError, match=f"cannot write '.*{target.name}': a folder has that name"):
        check_place(FORMATS[name], tmp_path / "best.pt")


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_called_as_the_metadata(name: str, tmp_path: Path) -> None:
    Path(f"{target_of(FORMATS[name], tmp_path / 'best.pt')}.json").mkdir()
    with pytest.raises(UserError, match=r"\.json': a folder has that name"):
        check_place(FORMATS[name], tmp_path / "best.pt")


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.file.endswith("/")])
def test_a_folder_of_others_and_a_file_in_the_place_of_a_folder(name: str, tmp_path: Path) -> None:
    target = target_of(FORMATS[name], tmp_path / "best.pt")
    target.mkdir()
    check_place(FORMATS[name], tmp_path / "best.pt")  # an empty one is nobody's loss
    (target / "mine").touch()
    with pytest.raises(UserError, match="is a folder that no export of this project has written"):
        check_place(FORMATS[name], tmp_path / "best.pt")
    (target / "mine").unlink()
    target.rmdir()
    target.touch()
    with pytest.raises(UserError, match=f"is a file, but {name} writes a folder"):
        check_place(FORMATS[name], tmp_path / "best.pt")


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    """The last step deletes nothing but an earlier export, though a folder may have come since the check."""
    (draft := tmp_path / "draft").touch()
    (tmp_path / "best.onnx").mkdir()
    (tmp_path / "best.onnx" / "mine").touch()
    with pytest.raises(OSError, match="irectory"):
        _put(draft, tmp_path / "best.onnx")
    assert (tmp_path / "best.onnx" / "mine").is_file()
