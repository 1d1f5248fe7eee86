"""What the machine refuses becomes a line; what came from outside cannot forge one."""

from __future__ import annotations

import errno
import os

import cv2
import numpy as np
import pytest
import torch

from utils.errors import UserError, one_line, out_of_memory_means, printable, refusal
from utils.logging import LOGGER


def no_memory_of_numpy() -> None:
    np.empty(1 << 55, np.uint8)


def no_memory_of_torch() -> None:
    torch.empty(1 << 55, dtype=torch.uint8)


def a_size_beyond_torch() -> None:
    torch.empty(4, 3, 10**9, 10**9)


def no_memory_of_opencv() -> None:
    raise cv2.error("OpenCV(5) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 3000000000000 bytes")


def a_library_that_does_not_fit() -> None:
    raise ImportError("libtorch_cuda.so: failed to map segment from shared object")


@pytest.mark.parametrize(
    "cause",
    [
        no_memory_of_numpy,
        no_memory_of_torch,
        a_size_beyond_torch,
        no_memory_of_opencv,
        a_library_that_does_not_fit,
    ],
)
def test_out_of_memory_has_many_names(cause) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Exception) as error:
        cause()
    assert (refusal(error.value) or "").startswith("not enough memory (")


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; ...)"),
        torch.cuda.OutOfMemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    ],
)
def test_a_gpu_runs_out_of_memory_in_many_words(error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"^not enough memory here; try there \(.+\)$"),
        out_of_memory_means("here; try there"),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("out of memory")]
)
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, out_of_memory_means("here"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "name", ["ENOSPC", "EFBIG", "EMFILE", "ENAMETOOLONG", "EISDIR", "EROFS", "EACCES", "EDQUOT", "EIO", "ELOOP"]
)
def test_what_the_file_system_refuses(name: str) -> None:
    number = getattr(errno, name)
    assert refusal(OSError(number, os.strerror(number), "a.pt")) == f"{os.strerror(number)}: 'a.pt'"
    assert refusal(OSError(number, os.strerror(number))) == os.strerror(number)


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EBADF, "x"), RuntimeError("shape"), KeyError("k")])
def test_defects_stay_defects(error: Exception) -> None:
    assert refusal(error) is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nerror: fake.png", "a\\nerror: fake.png"),
        ("\x1b[2J.png", "\\x1b[2J.png"),
        ("a\rb", "a\\rb"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("line\u2028end", "line\\u2028end"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("\x07\x08\x7f", "\\x07\\x08\\x7f"),
        ("für 猫 🐈", "für 猫 🐈"),
    ],
)
def test_names_cannot_forge_lines(name: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(name) == one_line(name) == shown
    LOGGER.error(f"{name}: no picture")
    LOGGER.warning(f"{name}: no picture")
    assert capsys.readouterr().err == f"error: {shown}: no picture\nwarning: {shown}: no picture\n"


def test_information_keeps_its_layout_and_colours_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.info("\na\tb\n\033[1mbold\033[0m \033[2J\033]0;title\007")
    assert capsys.readouterr().out == "\na\tb\n\033[1mbold\033[0m \\x1b[2J\\x1b]0;title\\x07\n"
