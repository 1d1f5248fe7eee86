"""The rules of the house (docs/architecture.md) that neither import-linter nor ruff can say; pyproject.toml has theirs.

import-linter knows who may import whom, among packages. ruff knows what is unsafe, what may be imported at the top of a
module, and how many statements a function may have.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # import-linter brings it

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("train", "val", "detect", "export", "hubconf")
PACKAGES = ("utils", "models", "engine", "segment")
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_FILES_IN_FOLDER = 14
LONG_FILES = {"models/common.py"}
VAGUE_NAMES = {"misc", "helpers", "helper", "common_utils", "stuff", "util"}
UNSAFE = r"S102|S301|S307|S506|S602|S604|S605|TID251"  # rules of ruff that no line may silence


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [ROOT / f"{name}.py" for name in COMMANDS] + sorted(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))
PATHS = {module_name(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
(PROTECTED,) = (c["protected_modules"] for c in SETTINGS["importlinter"]["contracts"] if c["type"] == "protected")
FACADES = {name for name in TREES if name in PROTECTED or f"{name.rpartition('.')[0]}.*" in PROTECTED}
HEAVY = {
    *SETTINGS["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"],
    "torch",
    "numpy",
    "cv2",
    "yaml",
}


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names; a module of ours that it takes from a package by its full name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        deeper = (f"{node.module}.{alias.name}" for alias in node.names)
        yield from (name if name in TREES else str(node.module) for name in deeper)


def test_imports_obey_the_contracts() -> None:
    """One way, owners and not façades, no command: what `lint-imports` says."""
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program, "pip install -r requirements-dev.txt"
    answer = subprocess.run([program, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_no_import_cycles() -> None:
    """Between modules. import-linter knows cycles of folders only, and two of ours import parts of each other."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    try:
        TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_commands_import_owners_not_facades() -> None:
    """The commands at the top are modules, and import-linter looks into packages only."""
    wrong = [
        f"{c}.py: {name}" for c in COMMANDS for node in ast.walk(TREES[c]) for name in imported(node) if name in FACADES
    ]
    assert not wrong


def test_facades_define_nothing_of_substance() -> None:
    """A façade re-exports: no class, and no function but `__getattr__` and thin adapters of at most 25 lines."""
    problems = [
        f"{module} defines {node.name}"
        for module in FACADES
        for node in TREES[module].body
        if isinstance(node, ast.ClassDef)
        or (isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 25)
    ]
    assert not problems


def test_files_functions_and_folders_are_small() -> None:
    problems = []
    for module, path in PATHS.items():
        shown = path.relative_to(ROOT).as_posix()
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES and shown not in LONG_FILES:
            problems.append(f"{shown} has {lines} lines")
        for node in ast.walk(TREES[module]):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    problems.append(f"{shown}:{node.lineno} {node.name} has {length} lines")
        if path.stem in VAGUE_NAMES:
            problems.append(f"{shown}: the name says nothing")
    for folder in {p.parent for p in PATHS.values()} - {ROOT}:
        own = [p for p in folder.glob("*.py") if p.name != "__init__.py" and module_name(p) not in FACADES]
        if len(own) > MAX_FILES_IN_FOLDER:
            problems.append(f"{folder.relative_to(ROOT).as_posix()}/ holds {len(own)} files; it wants rooms")
    assert not problems, "\n".join(problems)


def test_nothing_unsafe_is_asked_for() -> None:
    """No ``weights_only=False``, no ``allow_pickle=True``, and no comment that silences ruff's rules of that kind."""
    problems = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            value = node.value.value if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) else None
            if value is {"weights_only": False, "allow_pickle": True}.get(getattr(node, "arg", None) or "", ...):
                problems.append(f"{module}:{getattr(node, 'lineno', 0)} {ast.unparse(node)}")
        for number, line in enumerate(PATHS[module].read_text(encoding="utf-8").splitlines(), 1):
            if re.search(rf"noqa.*\b({UNSAFE})\b|ruff: *noqa", line):
                problems.append(f"{module}:{number} {line.strip()}")
    assert not problems, "\n".join(problems)


def test_help_of_a_command_loads_nothing_heavy() -> None:
    """What importing a command loads: the statements outside functions, of it and of the modules that they import."""
    problems, seen = [], {name for name in TREES if name.split(".")[0] in (*COMMANDS, "segment")}
    queue = sorted(seen)
    for module in queue:
        for name in (name for node in TREES[module].body for name in imported(node)):
            if name.split(".")[0] in {*HEAVY, "dataclasses"}:  # which takes 15 ms
                problems.append(f"{module} → {name}")
            if name in TREES and name not in seen:
                seen.add(name)
                queue.append(name)
    assert not problems


def test_pickle_paths_are_kept() -> None:
    """Published checkpoints and users' code name these classes by these modules."""

    def defined(module: str) -> set[str]:
        return {node.name for node in TREES[module].body if isinstance(node, ast.ClassDef)}

    blocks = {"Conv", "C3", "SPPF", "Bottleneck", "Proto", "MobileNetV2_Block", "conv_bn_relu_maxpool", "RepVGGBlock"}
    assert blocks <= defined("models.common")
    assert {"Detect", "Segment", "DetectionModel", "SegmentationModel"} <= defined("models.yolo")
