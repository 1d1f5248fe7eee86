"""Names of classes come from files of others, and become names of folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.ops.class_names import folder_name


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("person", "person"),
        ("traffic light", "traffic light"),
        ("猫", "猫"),
        ("../../x", "_.._x"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        ("/etc/passwd", "_etc_passwd"),
        ("C:\\x", "C_x"),
        (".hidden", "hidden"),
        ("trailing. . ", "trailing"),
        ("a\nb\x1b[2J", "a_b_[2J"),
        ("a\0b", "a_b"),
        ("half \ud83d", "half _"),
        ("CON", "_CON"),
        ("lpt1.txt", "_lpt1.txt"),
        ("console", "console"),
        ("n" * 300, "n" * 200),
        ("🐈" * 100, "🐈" * 50),
    ],
)
def test_one_folder_wherever_it_is_made(name: str, folder: str, tmp_path: Path) -> None:
    assert folder_name(name) == folder
    (tmp_path / folder).mkdir()
    assert [p.name for p in tmp_path.iterdir()] == [folder]
