"""The pages of the documentation: lines that fit, tables with short cells, links that lead somewhere, one version."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 110
CELL = 90  # what a table's cell may hold; longer texts are lists or prose

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "data/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
page = pytest.mark.parametrize("path", PAGES, ids=NAMES)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is no code: neither in a fence nor in an indented block."""
    fenced = indented = False
    before = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = line.lstrip().startswith("```")
        indented = line.startswith("    ") and (indented or not before.strip())
        if not (fenced or fence or indented):
            yield number, line
        fenced ^= fence
        before = line


def without_targets(line: str) -> str:
    """`line` without the targets of its links, which cannot be broken."""
    return re.sub(r"\]\([^)]*\)|<https?:[^>]*>", "]", line)


def width(line: str) -> int:
    """Columns that `line` takes: two for each Chinese letter."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def slug(heading: str) -> str:
    """What GitHub calls a heading in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_pages_are_found() -> None:
    assert {"README.md", "README.zh-CN.md", "CHANGELOG.md", "docs/architecture.md", "examples/README.md"} <= set(NAMES)


@page
def test_lines_fit(path: Path) -> None:
    lines = [(number, line) for number, line in prose(path) if not line.lstrip().startswith("|")]
    assert [(number, width(line)) for number, line in lines if width(without_targets(line)) > COLUMNS] == []


@page
def test_tables_hold_words_and_not_paragraphs(path: Path) -> None:
    cells = [
        (number, cell.strip())
        for number, line in prose(path)
        if line.startswith("|")
        for cell in without_targets(line).strip("|").split(" | ")
    ]
    assert [(number, len(cell), cell) for number, cell in cells if len(cell) > CELL] == []


@page
def test_links_lead_somewhere(path: Path) -> None:
    lost = []
    for number, line in prose(path):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"https?://|\.\./\.\./actions/", target):
                continue  # elsewhere; the badge of the workflow is where the project is hosted
            name, _, anchor = target.partition("#")
            there = (path.parent / name).resolve() if name else path
            if not there.exists():
                lost.append((number, target))
            elif anchor:
                headings = [slug(text.lstrip("# ")) for _, text in prose(there) if text.startswith("#")]
                lost += [] if anchor in headings else [(number, target)]
    assert lost == []


@pytest.mark.parametrize("name", ["architecture.md", "data-pipeline.md"])
def test_it_has_one_diagram(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8").count("```mermaid\n") == 1


def test_there_is_one_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version
    latest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert latest
    assert latest[1] == version[1]
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
