"""README.md and README.zh-CN.md have the same commands, figures, links and pictures, and their badges are true."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
PICTURE_BYTES = 150_000

_CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"(?<![\w.\-])\d+(?:\.\d+)?(?!\w)", re.ASCII)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sections(page: str) -> list[str]:
    """What stands before the first heading of level two, and below each of these."""
    return re.split(r"^## .*$", page, flags=re.M)


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Language and lines of each block of code. Comments may be translated, so they are left out."""
    return [
        (language, [line for line in (re.sub(r"(^|\s+)#.*", "", row) for row in code.splitlines()) if line])
        for language, code in _CODE.findall(page)
    ]


def links(page: str) -> list[str]:
    """Targets in their order, pictures and badges too; the link to the other language is called so."""
    return [re.sub(r"^README(\.zh-CN)?\.md$", "the other README", target) for target in _LINK.findall(page)]


def rows(page: str) -> list[list[str]]:
    """The numbers in each row of the tables."""
    return [_NUMBER.findall(line) for line in page.splitlines() if line.startswith("|")]


def test_both_have_the_same_commands() -> None:
    assert len(commands(text(ENGLISH))) >= 6
    assert commands(text(CHINESE)) == commands(text(ENGLISH))


def test_both_have_the_same_code_in_their_prose() -> None:
    here, there = (
        [Counter(re.findall(r"`[^`\n]+`", _CODE.sub("", section))) for section in sections(text(path))]
        for path in (ENGLISH, CHINESE)
    )
    assert there == here


def test_both_have_the_same_figures() -> None:
    assert len(rows(text(ENGLISH))) > 20
    assert rows(text(CHINESE)) == rows(text(ENGLISH))
    here, there = ([Counter(_NUMBER.findall(s)) for s in sections(text(path))] for path in (ENGLISH, CHINESE))
    assert there == here


def test_both_have_the_same_links_and_pictures() -> None:
    here, there = ([Counter(links(section)) for section in sections(text(path))] for path in (ENGLISH, CHINESE))
    assert there == here
    assert here[0]["the other README"] == 1


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_its_pictures_are_small_and_there(path: Path) -> None:
    pictures = re.findall(r"!\[[^\]]+\]\((docs/[^)]+)\)", text(path))
    assert pictures
    assert all(0 < (ROOT / picture).stat().st_size <= PICTURE_BYTES for picture in pictures)


def test_the_pictures_have_their_terms_beside_them() -> None:
    folder = ROOT / "docs" / "pictures"
    told = text(folder / "README.md")
    assert [path.name for path in folder.iterdir() if path.suffix != ".md" and f"`{path.name}`" not in told] == []


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_its_badges_are_true(path: Path) -> None:
    badges = dict(re.findall(r"img\.shields\.io/badge/(\w+)-((?:--|[^-])+)-", text(path)))
    project, needed = text(ROOT / "pyproject.toml"), text(ROOT / "requirements.txt")
    workflow = text(ROOT / ".github" / "workflows" / "ci.yml")
    least = re.search(r'requires-python = ">=([\d.]+)"', project)
    assert least
    tried = sorted(set(re.findall(r'"(3\.\d+)"', workflow)), key=lambda version: int(version.split(".")[1]))
    assert badges["Python"] == f"{tried[0]}_to_{tried[-1]}"
    assert tried[0] == least[1]
    torch = re.search(r"^torch>=([\d.]+)$", needed, re.M)
    assert torch
    assert badges["PyTorch"] == f"{torch[1]}_or_newer"
    assert f'license = "{badges["licence"].replace("--", "-")}-or-later"' in project
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in text(ROOT / "LICENSE")
