"""Every path in backticks leads somewhere: files, modules and their names, in the documents and in our docstrings.

Which words are checked follows from their form. A word that begins with a folder of the project (`docs/models.md`), or
with a package of it (`utils.files.find_file`), must exist; so must the bare name of a source file or of a document
(`trainer.py`). Everything else is free: names in Python, flags, YAML files called "my" or "mine", which are a user's,
and folders that commands make (runs/, and all that .gitignore lists).
"""

from __future__ import annotations

import ast
import fnmatch
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("utils", "models", "engine", "segment", "benchmarks", "tests")
FOLDERS = (*PACKAGES, "data", "docs", "examples", "launcher", ".ci", ".github")
SUFFIXES = (".py", ".md")  # of bare names that must be the name of a file of the project
USER_FILE = re.compile(r"(.*[/_-])?(my|mine)\.yaml")
GENERATED = tuple(line for line in (ROOT / ".gitignore").read_text("utf-8").split() if re.fullmatch(r"\w.*/", line))
DOCUMENTS = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
SOURCES = sorted(
    path
    for folder in (ROOT, *(ROOT / name for name in (*PACKAGES, "examples", "launcher")))
    for path in (folder.glob("*.py") if folder == ROOT else folder.rglob("*.py"))
)


def in_backticks(text: str) -> Iterator[tuple[int, str]]:
    """Line and content of each span of code in `text`, and of each line of a block of code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            yield number, line
        else:
            yield from ((number, span) for _, span in re.findall(r"(`+)([^`]+)\1(?!`)", line))


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    """First line and text of the docstrings and the comments of a Python file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            docstring = node.body[0]
            assert isinstance(docstring, ast.Expr)
            yield docstring.lineno, ast.get_source_segment(source, docstring) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@cache
def project_paths() -> frozenset[str]:
    """The files at the root, the folders of the project, and all that is in these, relative to the root."""
    own = [path for path in ROOT.iterdir() if path.is_file() or path.name in FOLDERS]
    found = [path for entry in own for path in (entry, *entry.rglob("*")) if "__pycache__" not in path.parts]
    return frozenset(path.relative_to(ROOT).as_posix() for path in found)


@cache
def file_names() -> frozenset[str]:
    return frozenset(path.rsplit("/", 1)[-1] for path in project_paths())


@cache
def missing(word: str) -> bool:
    """True where `word` names a file, a folder, a module or a name of this project that is not there."""
    word = re.sub(r"(:\d+)+$", "", word.strip("\"'()[],;:!…").rstrip("."))
    path, _, test = word.partition("::")
    if re.fullmatch(r"[\w./*-]+", path) is None or not path.strip("./*-"):
        return False
    if USER_FILE.fullmatch(path) or path.startswith(GENERATED):
        return False
    if path.split("/")[0] in FOLDERS and "/" in path:
        found = fnmatch.filter(project_paths(), path.rstrip("/"))
        return not found or bool(test and f"def {test.partition('[')[0]}(" not in (ROOT / found[0]).read_text("utf-8"))
    if path.split(".")[0] in PACKAGES and re.fullmatch(r"\w+(\.\w+)+", path):
        return not is_name(path)
    return path.endswith(SUFFIXES) and "/" not in path and not fnmatch.filter(file_names(), path)


def is_name(dotted: str) -> bool:
    """True for a package, a module, or a name in a module or package that occurs in its source."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        stem = "/".join(parts[:count])
        for file in (f"{stem}.py", f"{stem}/__init__.py"):
            if file in project_paths():
                source = (ROOT / file).read_text("utf-8")
                return all(re.search(rf"\b{name}\b", source) for name in parts[count:])
    return "/".join(parts) in project_paths()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents(path: Path) -> None:
    spans = in_backticks(path.read_text("utf-8"))
    stale = [f"{path.name}:{line}: {word}" for line, span in spans for word in span.split() if missing(word)]
    assert not stale, "\n".join(stale)


def test_docstrings_and_comments() -> None:
    stale = [
        f"{path.relative_to(ROOT).as_posix()}:{first + line - 1}: {word}"
        for path in SOURCES
        for first, text in prose_of(path.read_text("utf-8"))
        for line, span in in_backticks(text)
        for word in span.split()
        if missing(word)
    ]
    assert not stale, "\n".join(stale)


@pytest.mark.parametrize(
    "word",
    ["utils/gone.py", "docs/gone.md", "gone.py", "utils.gone", "utils.files.gone", "tests/test_signposts.py::gone"],
)
def test_what_is_stale_is_found(word: str) -> None:
    assert missing(word)


@pytest.mark.parametrize(
    "word",
    [
        "utils/files.py:12", "models/*.yaml", "engine/", "files.py", "utils.files.find_file", "utils.ops", "my.yaml",
        "runs/train/exp", "best.pt", "a.b.c", "nn.Upsample", "tests/test_signposts.py::test_documents", "1/2", "…",
        "models/yolov5_mine.yaml", "benchmarks/results/loss.json",
    ],
)  # fmt: skip
def test_what_is_right_or_free_is_left_alone(word: str) -> None:
    assert not missing(word)
