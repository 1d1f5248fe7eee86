"""The rules of the house, read from the syntax tree: docs/architecture.md tells them in words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("utils", "models", "engine", "commands")  # imports may point to the left only
COMMANDS = ("train", "val", "detect", "export", "hubconf", "segment")
FACADES = {
    "utils.general",
    "utils.torch_utils",
    "utils.dataloaders",
    "utils.augmentations",
    "utils.loss",
    "utils.metrics",
    "utils.plots",
    "utils.segment",
    "utils.segment.general",
    "utils.segment.loss",
    "utils.segment.metrics",
    "utils.segment.plots",
    "utils.segment.dataloaders",
    "utils.segment.augmentations",
    "models.experimental",
}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_FILES_IN_FOLDER = 14
LONG_FILES = {"models/common.py"}
HEAVY_AT_IMPORT = {"matplotlib", "pandas", "torchvision", "onnx", "onnxruntime", "pycocotools", "thop", "tensorboard"}
VAGUE_NAMES = {"misc", "helpers", "helper", "common_utils", "stuff", "util"}


def sources() -> list[Path]:
    folders = [ROOT / "utils", ROOT / "models", ROOT / "engine", ROOT / "segment"]
    files = [f for folder in folders for f in folder.rglob("*.py")]
    return sorted(files + [ROOT / f"{c}.py" for c in COMMANDS if (ROOT / f"{c}.py").is_file()])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sources()}
PATHS = {module_name(path): path for path in sources()}


def layer(module: str) -> int | None:
    """Façades stand with the commands: they may re-export from anywhere, since none of our code imports them."""
    top = module.split(".")[0]
    if top in COMMANDS or module in FACADES:
        return LAYERS.index("commands")
    return LAYERS.index(top) if top in LAYERS else None


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules of ours that `tree` imports at run time, at any depth; names of modules in façade tables count too."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper in TREES else node.module
        yield from imports(node)


def our_imports(module: str) -> list[str]:
    return [name for name in dict.fromkeys(imports(TREES[module])) if layer(name) is not None]


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_point_one_way(module: str) -> None:
    own = layer(module)
    assert own is not None
    wrong = [name for name in our_imports(module) if (layer(name) or 0) > own]
    assert not wrong, f"{module} ({LAYERS[own]}) imports {wrong}"


def test_no_import_cycles() -> None:
    state: dict[str, str] = {}
    trail: list[str] = []

    def visit(module: str) -> None:
        state[module] = "open"
        trail.append(module)
        for name in our_imports(module):
            if name not in TREES:
                continue
            assert state.get(name) != "open", " → ".join([*trail[trail.index(name) :], name])
            if name not in state:
                visit(name)
        trail.pop()
        state[module] = "done"

    for module in sorted(TREES):
        if module not in state:
            visit(module)


@pytest.mark.parametrize("module", sorted(set(TREES) - FACADES))
def test_our_code_imports_owners_not_facades(module: str) -> None:
    assert not set(our_imports(module)) & FACADES


@pytest.mark.parametrize("module", sorted(set(TREES) & FACADES))
def test_facades_define_nothing_of_substance(module: str) -> None:
    """A façade re-exports: no class, and no function but `__getattr__` and thin adapters of at most 25 lines."""
    for node in TREES[module].body:
        assert not isinstance(node, ast.ClassDef), f"{module} defines class {node.name}"
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 25, f"{module}.{node.name} has {length} lines"


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


@pytest.mark.parametrize("module", sorted(TREES))
def test_nothing_unsafe(module: str) -> None:
    """No eval, exec, pickle.load(s), os.system, shell=True, yaml.load or weights_only=False."""
    for node in ast.walk(TREES[module]):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        where = f"{module}:{node.lineno} {called}"
        assert called not in {"eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}, where
        assert called not in {"pickle.load", "pickle.loads", "os.popen", "subprocess.getoutput"}, where
        for keyword in node.keywords:
            unsafe = {"shell": True, "weights_only": False, "allow_pickle": True}.get(keyword.arg or "", ...)
            assert not (isinstance(keyword.value, ast.Constant) and keyword.value.value is unsafe), where


@pytest.mark.parametrize("module", sorted(TREES))
def test_heavy_packages_are_imported_where_used(module: str) -> None:
    """matplotlib, pandas, torchvision, … never at the top of a module: who does not need them starts fast."""
    for node in TREES[module].body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        heavy = [n for n in names if n.split(".")[0] in HEAVY_AT_IMPORT]
        assert not heavy, f"{module}:{node.lineno} imports {heavy}"


def top_level_imports(module: str) -> Iterator[str]:
    """Modules that importing `module` loads: the statements outside functions, and so on from there."""
    for node in TREES[module].body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from imports(ast.Module(body=[node], type_ignores=[]))


@pytest.mark.parametrize("command", sorted(m for m in TREES if m.split(".")[0] in COMMANDS))
def test_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    seen: set[str] = set()
    queue = [command]
    while queue:
        module = queue.pop()
        for name in top_level_imports(module):
            assert name.split(".")[0] not in HEAVY_AT_IMPORT | {"torch", "numpy", "cv2", "yaml"}, f"{module} → {name}"
            if name in TREES and name not in seen:
                seen.add(name)
                queue.append(name)


def test_pickle_paths_are_kept() -> None:
    """Published checkpoints and users' code name these classes by these modules."""

    def defined(module: str) -> set[str]:
        return {node.name for node in TREES[module].body if isinstance(node, ast.ClassDef)}

    blocks = {"Conv", "C3", "SPPF", "Bottleneck", "Proto", "MobileNetV2_Block", "conv_bn_relu_maxpool", "RepVGGBlock"}
    assert blocks <= defined("models.common")
    assert {"Detect", "Segment", "DetectionModel", "SegmentationModel"} <= defined("models.yolo")
