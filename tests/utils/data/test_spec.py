"""Data set YAMLs: where things are looked up, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.data.spec import DatasetSpec, check_dataset, load_dataset
from utils.errors import UserError
from utils.files import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with data sets in another."""
    monkeypatch.setenv("YOLOv5_DATASETS_DIR", str(tmp_path / "sets"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def fill(folder: Path, *splits: str) -> Path:
    for split in splits or ("images/train", "images/val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / split / "1.jpg").touch()
    return folder


def write_yaml(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "my.yaml"
    file.write_text(text)
    return file


USUAL = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


@pytest.mark.parametrize("place", ["yaml/set", "cwd/set", "cwd/datasets/set", "sets/set"])
@pytest.mark.parametrize("path", ["set", "../datasets/set", "datasets/set"])
def test_path_is_looked_up(elsewhere: Path, place: str, path: str) -> None:
    root = fill(elsewhere / place)
    file = write_yaml(elsewhere / "yaml", f"path: {path}\n{USUAL}")
    if path != "set" and place in ("yaml/set", "cwd/set"):
        with pytest.raises(UserError, match="not found"):
            load_dataset(file)
        return
    spec = load_dataset(file)
    assert spec == DatasetSpec(
        file, root, {0: "cat", 1: "dog"}, {"train": (root / "images/train",), "val": (root / "images/val",)}
    )
    assert spec.nc == 2


def test_order_and_incomplete_places_are_passed_over(elsewhere: Path) -> None:
    file = write_yaml(elsewhere / "yaml", f"path: set\n{USUAL}")
    fill(elsewhere / "yaml" / "set", "images/train")  # no validation images here
    fill(elsewhere / "sets" / "set")
    assert load_dataset(file).path == elsewhere / "sets" / "set"
    assert load_dataset(file, need=("train",)).path == elsewhere / "yaml" / "set"
    fill(elsewhere / "cwd" / "set")
    assert load_dataset(file).path == elsewhere / "cwd" / "set"


def test_absolute_path_and_no_path(elsewhere: Path) -> None:
    root = fill(elsewhere / "far")
    assert load_dataset(write_yaml(elsewhere / "yaml", f"path: {root}\n{USUAL}")).path == root
    assert load_dataset(write_yaml(root, USUAL)).path == root
    inside = load_dataset({"path": str(root), "train": "images/train", "val": "images/val", "nc": 3})
    assert inside.names == {0: "class0", 1: "class1", 2: "class2"}
    assert inside.yaml_file is None


def test_two_classes_may_have_one_name(elsewhere: Path) -> None:
    fill(elsewhere / "set")
    spec = load_dataset(write_yaml(elsewhere / "set", USUAL.replace("dog", "cat")))
    assert spec.names == {0: "cat", 1: "cat"}
    assert spec.nc == 2


def test_labelling_tools_write_one_folder_too_high(elsewhere: Path) -> None:
    """`../train/images` beside a `train/` folder, and keys that only inform."""
    root = fill(elsewhere / "export", "train/images", "valid/images")
    text = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['a', 'b']\nroboflow:\n  license: CC BY 4.0\n"
    spec = load_dataset(write_yaml(root, text))
    assert spec.splits == {"train": (root / "train/images",), "val": (root / "valid/images",)}


def test_lists_patterns_and_several_paths(elsewhere: Path) -> None:
    root = fill(elsewhere / "sets" / "set", "a", "b/1", "b/2")
    (root / "train.txt").write_text("./a/1.jpg\n")
    (root / "gone.txt").write_text("./absent/1.jpg\n")
    start = "path: set\nnames: [x]\n"
    spec = load_dataset(write_yaml(elsewhere, start + "train: [train.txt, a]\nval: b/*/*.jpg\n"))
    assert spec.splits == {"train": (root / "train.txt", root / "a"), "val": (root / "b/*/*.jpg",)}
    with pytest.raises(UserError, match=r"incomplete \(train, val\); tried .*gone\.txt"):
        load_dataset(write_yaml(elsewhere, start + "train: gone.txt\nval: c/*/*.jpg\n"))


def test_split_of_a_spec(elsewhere: Path) -> None:
    root = fill(elsewhere / "sets" / "set")
    spec = load_dataset(write_yaml(elsewhere, f"path: set\ntest: # none\n{USUAL}"))
    assert spec.split("val") == (root / "images/val",)
    with pytest.raises(UserError, match=r"has no 'test' images, only train, val"):
        spec.split("test")
    with pytest.raises(UserError, match="key 'test' is missing"):
        load_dataset(write_yaml(elsewhere, f"path: set\n{USUAL}"), need=("test",))


def test_not_found_names_every_place(elsewhere: Path) -> None:
    file = write_yaml(elsewhere / "yaml", f"# mine\npath: set\n{USUAL}")
    with pytest.raises(UserError) as error:
        load_dataset(file)
    text = str(error.value)
    for place in ("yaml/set", "cwd/set", "cwd/datasets/set", "sets/set"):
        assert f"{elsewhere / place / 'images/train'}" in text
    assert f"mend 'path' in {file}:2" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: a\nvla: b\nnames: [x]", ":2: unknown key 'vla' (did you mean 'val'?)"),
        ("train: a\nnames: [x]", ": key 'val' is missing"),
        ("train: a\nval: b", ": 'names' must list the classes"),
        ("train: a\nval: b\nnames: []", ":3: 'names' must list the classes"),
        ("train: a\nval: b\nnames: cat", ":3: 'names' must list the classes"),
        ("train: a\nval: b\nnames: [x, y]\nnc: 3", ":4: nc is 3, but there are 2 names"),
        ("train: a\nval: b\nnames: [x]\nnc: many", ":4: nc is the number of classes"),
        ("train: a\nval: b\nnc: 0\nnames: [x]", ":3: nc is the number of classes"),
        ("train: a\nval: b\nnames:\n  1: x\n  2: y", ":3: 2 names need ids 0 to 1, not 1, 2"),
        ("train: a\nval: b\nnames:\n  - yes\n  - no", ":4: class name True is no text; put it in quotes"),
        ("train: {a: b}\nval: b\nnames: [x]", ":1: 'train' is a path or a list of paths"),
        ("train: [a, 3]\nval: b\nnames: [x]", ":1: 'train' is a path or a list of paths"),
        ("path: [a]\ntrain: a\nval: b\nnames: [x]", ":1: 'path' is the folder"),
        ("train: a\nval: b\nnames: [x]\nconvert: vok", ":4: unknown convert 'vok' (did you mean 'voc'?)"),
        ("train: a\nval: b\nnames: [x]\ngenerate: shape", ":4: unknown generate 'shape' (did you mean 'shapes'?)"),
        ("train: a\n  val: b", ":2: not valid YAML"),
    ],
)
def test_mistakes_in_the_yaml(elsewhere: Path, text: str, message: str) -> None:
    file = write_yaml(elsewhere, text)
    with pytest.raises(UserError) as error:
        load_dataset(file)
    assert str(error.value).startswith(f"{file}{message}")
    assert "\n" not in str(error.value)


def test_names_may_be_numbers_and_mappings(elsewhere: Path) -> None:
    fill(elsewhere / "sets" / "set")
    start = "path: set\ntrain: images/train\nval: images/val\n"
    assert load_dataset(write_yaml(elsewhere, start + "names: [7, 8]")).names == {0: "7", 1: "8"}
    assert load_dataset(write_yaml(elsewhere, start + "nc: 2\nnames: {1: b, 0: a}")).names == {0: "a", 1: "b"}


def test_unknown_file_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"data set 'coco12.yaml' not found.*did you mean 'coco128.yaml'"):
        load_dataset("coco12.yaml")


@pytest.mark.parametrize("script", ["bash data/scripts/get_coco.sh", "|\n  from utils import x\n  run(x)\n"])
def test_scripts_are_accepted_and_never_run(elsewhere: Path, script: str) -> None:
    """Published YAMLs have them; with the data on disk they do no harm, without it the error says what to do."""
    file = write_yaml(elsewhere / "yaml", f"path: ../datasets/set\n{USUAL}download: {script}")
    with pytest.raises(
        UserError, match=rf"my\.yaml:5: .*is a script, which is not run; .*by hand into {elsewhere}/sets/set"
    ):
        load_dataset(file)
    fill(elsewhere / "sets" / "set")
    assert load_dataset(file).path == elsewhere / "sets" / "set"


def test_check_dataset_has_the_form_scripts_expect(elsewhere: Path) -> None:
    root = fill(elsewhere / "sets" / "set", "a", "b", "c")
    file = write_yaml(elsewhere, "path: set\ntrain: [a, b]\nval: c\nnames: [x]")
    assert check_dataset(file) == {
        "path": root,
        "train": [str(root / "a"), str(root / "b")],
        "val": str(root / "c"),
        "test": None,
        "names": {0: "x"},
        "nc": 1,
    }


@pytest.mark.parametrize(
    ("name", "nc", "first", "last"),
    [
        ("coco.yaml", 80, "person", "toothbrush"),
        ("coco128.yaml", 80, "person", "toothbrush"),
        ("coco128-seg.yaml", 80, "person", "toothbrush"),
        ("VOC.yaml", 20, "aeroplane", "tvmonitor"),
        ("shapes.yaml", 4, "circle", "star"),
        ("shapes-seg.yaml", 4, "circle", "star"),
    ],
)
def test_our_own_files_are_well_formed(elsewhere: Path, name: str, nc: int, first: str, last: str) -> None:
    from utils.data.recipe import read_recipe
    from utils.data.spec import read_names
    from utils.yamls import load_yaml

    file = ROOT / "data" / name
    content = load_yaml(file)
    names = read_names(content, file)
    assert (len(names), names[0], names[nc - 1]) == (nc, first, last)
    assert not read_recipe(content, file).is_script
    if content.get("generate") != "shapes":
        with pytest.raises(UserError, match="not found or incomplete"):
            load_dataset(name, download=False)


def test_real_yamls(shared_data) -> None:
    for name in ("coco128", "coco128-seg"):
        spec = load_dataset(shared_data / "data" / f"{name}.yaml")
        assert spec.nc == 80
        assert spec.split("train") == (shared_data / "data" / name / "images/train2017",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nc: 10000000\n", "d.yaml:3: nc is the number of classes, 1 to 50000, not 10000000"),
        ("nc: -1\n", "d.yaml:3: nc is the number of classes"),
        ("nc: [2]\n", "d.yaml:3: nc is the number of classes"),
        ("nc: 2.5\n", "d.yaml:3: nc is the number of classes"),
        ("names: [[a, b], [c]]\n", "d.yaml:3: class name ['a', 'b'] is no text"),
        ("names: {0: {a: b}}\n", "class name {'a': 'b'} is no text"),
        ("names: {0: a, 2: b}\n", "d.yaml:3: 2 names need ids 0 to 1"),
        ("names: {cat: 0}\n", "d.yaml:3: 1 names need ids 0 to 0"),
        ("names: [2024-01-01]\n", "is no text; put it in quotes"),
        ("names: [on, off]\n", "class name True is no text; put it in quotes"),
        ('names: ["a\\nb"]\n', "class name 'a\\nb' holds a line break"),
        ('names: ["a\\x1b[2J"]\n', "holds a line break or the like"),
        (f"names: [{'a,' * 50_001}]\n", "d.yaml:3: 50001 names, and 50000 are the most"),
        ("names: cat\n", "d.yaml:3: 'names' must list the classes"),
        ("names: []\n", "d.yaml:3: 'names' must list the classes"),
        ("names: [a]\npath: [a, b]\n", "d.yaml:4: 'path' is the folder of the data set, not ['a', 'b']"),
        ("names: [a]\npath: []\n", "d.yaml:4: 'path' is the folder of the data set, not []"),
        ("names: [a]\npath: 5\n", "d.yaml:4: 'path' is the folder"),
        ("names: [a]\npath: ~nobody-of-this-name/x\n", "not found or incomplete"),
        (f"names: [a]\npath: {'a' * 300}\n", "not found or incomplete"),
        (f"names: [a]\ntest: {'a' * 300}\n", "not found or incomplete"),
    ],
)
def test_hostile_values(elsewhere: Path, text: str, told: str) -> None:
    file = elsewhere / "d.yaml"
    file.write_text(f"train: images/train\nval: images/val\n{text}")
    with pytest.raises(UserError) as error:
        load_dataset(file)
    assert told in str(error.value)


@pytest.mark.parametrize("value", ["{a: b}", "[1, 2]", "[[a]]", "['']", "5", "true", "[null]", "2024-01-01"])
def test_a_split_is_a_path_or_a_list_of_paths(elsewhere: Path, value: str) -> None:
    (elsewhere / "d.yaml").write_text(f"val: images/val\ntrain: {value}\nnames: [a]\n")
    with pytest.raises(UserError, match=r"d.yaml:2: 'train' is a path or a list of paths"):
        load_dataset(elsewhere / "d.yaml")


def test_a_list_is_not_blamed_for_absent_images(elsewhere: Path) -> None:
    (elsewhere / "train.txt").write_text("./images/0.png\n./images/1.png\n")
    (elsewhere / "d.yaml").write_text("train: train.txt\nval: train.txt\nnames: [a]\n")
    with pytest.raises(UserError, match=r"tried \S*images/0.png \(the first image in \S*train.txt\)"):
        load_dataset(elsewhere / "d.yaml")
    (elsewhere / "train.txt").write_text("\n")
    with pytest.raises(UserError, match=r"train.txt \(an empty list\)"):
        load_dataset(elsewhere / "d.yaml")


def test_lists_that_hold_no_paths(elsewhere: Path) -> None:
    (elsewhere / "d.yaml").write_text("train: train.txt\nval: train.txt\nnames: [a]\n")
    for content, told in (
        (b"a\nb\0.png\n", "train.txt:2: not a list of image paths"),
        (b"\xff\xfe", "not a UTF-8 list"),
    ):
        (elsewhere / "train.txt").write_bytes(content)
        with pytest.raises(UserError, match=told):
            load_dataset(elsewhere / "d.yaml")
