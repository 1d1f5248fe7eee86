"""Files that are damaged, hostile or not checkpoints at all: each gives one clear line and takes no memory."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.checkpoints.archive import open_archive
from models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.checkpoints.decoder import Decoder

from .conftest import Reduce, Storage, assert_refused, ours, tensor_claim

Writer = Callable[..., Path]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\n\n  <html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"\x00" * 300, "begins with"),
        (b"names: [a, b]\n", "begins with"),
        (b"cposix\nsystem\n(S'true'\ntR.", "begins with"),
        (b"PK\x03\x04" + b"\x00" * 100, "truncated or damaged"),
        (pickle.dumps({"model": 1}, 2), "a pickle, but not one written by torch.save"),
    ],
)
def test_other_files_are_named(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    assert_refused(path, match)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path, "is a folder")
    assert_refused(tmp_path / "none.pt", "cannot read .* No such file")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files(share: float, legacy: bool, tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "x.pt"
    if legacy:
        content = {"format": "yolov5-mobilenetv2", "version": 1, "state_dict": {"w": torch.ones(100)}}
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        save_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert_refused(path, "damaged|truncated")


def test_pickle_alone_in_the_old_container_is_read_with_the_same_care(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")
    assert_refused(path, "pickled class posix.system, which is not on the allow-list")


def test_torchscript_plain_zip_and_state_dict(tmp_path: Path, write_torch_zip: Writer) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer torch recommends torch.export
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    assert_refused(path, "TorchScript program")

    path = tmp_path / "photos.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    assert_refused(path, "not one written by torch.save")

    path = tmp_path / "mobilenet.pth"
    torch.save(nn.Sequential(OrderedDict(features=nn.Conv2d(3, 4, 1))).state_dict(), path)
    assert_refused(path, r"plain state dict \(2 tensors, the first is 'features.weight'\)")

    assert_refused(write_torch_zip({"weights": 1, "note": "x"}), "it holds weights, note, but no 'model'")
    assert_refused(write_torch_zip([1, 2]), "it holds a list")


def test_compressed_entries_are_refused(write_torch_zip: Writer) -> None:
    """A few kilobytes could unpack to gigabytes."""
    assert_refused(
        write_torch_zip({"a": "x" * 10_000_000}, compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"
    )


def test_zip_paths_are_names_only(write_torch_zip: Writer, tmp_path: Path) -> None:
    """Entry names that lead out of the folder do no harm, because nothing is unpacked."""
    before = set(tmp_path.rglob("*"))
    extra = {"../../evil.txt": b"x", "/tmp/evil.txt": b"x", "archive/data/../../evil": b"x"}
    path = write_torch_zip({"format": "yolov5-mobilenetv2", "version": 1}, extra=extra)
    assert_refused(path, "'task' is missing")
    assert set(tmp_path.rglob("*")) - before == {path}
    assert_refused(write_torch_zip({"model": 1}, extra={"other/data.pkl": b"."}), "not one written by torch.save")


def test_sizes_in_the_zip_directory_are_checked(write_torch_zip: Writer) -> None:
    path = write_torch_zip({"a": 1}, {"0": b"\x00" * 64})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"archive/data/0") - 46  # its record in the directory at the end
    data[entry + 20 : entry + 28] = (1 << 31).to_bytes(4, "little") * 2
    path.write_bytes(data)
    assert_refused(path, "reaches beyond the end of the file")


@pytest.mark.parametrize(
    ("claim", "match"),
    [
        (tensor_claim(Storage("0", 1 << 50), 0, (1 << 50,), (1,)), "claims .* bytes and the file does not hold them"),
        (tensor_claim(Storage("0", -1), 0, (1,), (1,)), "does not hold them"),
        (tensor_claim(Storage("7", 4), 0, (4,), (1,)), "storage '7' is missing"),
        (tensor_claim(Storage("../../x", 4), 0, (4,), (1,)), "is missing"),
        (tensor_claim(Storage("0", 4), 0, (1 << 20, 1 << 20), (0, 0)), "larger than its storage"),
        (tensor_claim(Storage("0", 4), 0, (5,), (1,)), "beyond its storage"),
        (tensor_claim(Storage("0", 4), 4, (1,), (1,)), "beyond its storage"),
        (tensor_claim(Storage("0", 4), 0, (2, 2), (1 << 40, 1)), "beyond its storage"),
        (tensor_claim(Storage("0", 4), 0, (2, -2), (2, 1)), "malformed shape"),
        (tensor_claim(Storage("0", 4), -1, (2,), (1,)), "malformed shape"),
        (tensor_claim(Storage("0", 4), 0, (2,), (1, 1)), "malformed shape"),
        (tensor_claim(Storage("0", 4), 0, ("a",), (1,)), "malformed shape"),
        (tensor_claim(Storage("0", 4), 0, 5, (1,)), "TypeError"),
        (tensor_claim(Storage("0", 4, torch.Size), 0, (4,), (1,)), "unsupported type"),
        (Reduce(torch._utils._rebuild_tensor_v2, 1, 2), "TypeError"),
        (Reduce(torch._utils._rebuild_parameter), "IndexError"),
    ],
)
def test_claims_about_tensors_are_checked(claim: Any, match: str, write_torch_zip: Writer) -> None:
    path = write_torch_zip(ours(state_dict={"w": claim}), {"0": b"\x00" * 16})
    assert_refused(path, f"damaged or malicious: .*{match}")


def test_a_good_claim_is_read(write_torch_zip: Writer) -> None:
    data = torch.arange(6, dtype=torch.float32).numpy().tobytes()
    path = write_torch_zip(ours(state_dict={"w": tensor_claim(Storage("0", 6), 1, (2, 2), (1, 2))}), {"0": data})
    assert load_checkpoint(path).state_dict["w"].tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_trees_without_end(write_torch_zip: Writer) -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert_refused(write_torch_zip(ours(state_dict={"w": loop})), "nested deeper|more values")
    wide: Any = "x"
    for _ in range(40):  # 2^40 leaves out of forty pairs
        wide = [wide, wide]
    assert_refused(write_torch_zip(ours(state_dict={"w": wide})), "more values than any checkpoint")


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_both_containers_hold_the_same(legacy: bool, mapped: bool, tmp_path: Path) -> None:
    """What is read equals what torch wrote, for every type of element, views and shared storages."""
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "view": base[1:3, ::2],
        "transposed": base.t(),
        "shared": base,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        **{str(t): torch.tensor([0, 1, 1], dtype=t) for t in (
            torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
        )},
        "parameter": nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    path = tmp_path / "x.pt"
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    archive = open_archive(path, mapped=mapped)
    read = Decoder(archive).decode(archive.tree)
    assert list(read) == list(value)
    for name, tensor in value.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach()), name
    assert read["view"].data_ptr() == read["shared"][1:3].data_ptr()
    read["shared"].zero_()  # memory only: the file stays as it is
    archive = open_archive(path)
    assert torch.equal(Decoder(archive).decode(archive.tree)["shared"], base)
