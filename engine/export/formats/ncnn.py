"""ncnn: a folder with a .param and a .bin file, for phones and boards; pnnx converts it from a traced network."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import torch

from engine.export.request import ExportRequest
from models.backends.openvino import only_file
from utils.errors import UserError
from utils.logging import silenced

_REFUSED = {
    "int8": "--int8: ncnn quantises with tools of its own, which take an ncnn folder; leave --int8 out",
    "dynamic": "--dynamic: the decoding of an ncnn file is made for one size; leave --dynamic out",
}


def check(request: ExportRequest) -> None:
    """Raise `UserError` where the request asks for something that this format cannot do."""
    for name, reason in _REFUSED.items():
        if getattr(request.metadata, name):
            raise UserError(reason)
    if request.metadata.layout == "nms":
        raise UserError("--nms: ncnn has no suppression; leave --nms out and suppress in your app")
    if (batch := request.metadata.batch) != 1:
        raise UserError(f"--batch-size {batch}: ncnn takes one image at a time; leave --batch-size out")


@torch.no_grad()
def write(request: ExportRequest, path: Path) -> None:
    """Write the folder `path`. With ``--half`` the weights are in half precision."""
    import pnnx

    plain = request.in_float()
    example = plain.example()
    name = path.name.removesuffix("_ncnn_model")
    path.mkdir()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # pnnx leaves eight files where it runs
        with silenced():
            traced = torch.jit.trace(plain.network(), (example,), strict=False, check_trace=False)
            torch.jit.save(traced, f"{folder}/network.pt")
        shape = ",".join(map(str, example.shape))
        done = subprocess.run(  # noqa: S603 -- the program of the pnnx package, with numbers as arguments
            [pnnx.EXEC_PATH, "network.pt", f"inputshape=[{shape}]f32", f"fp16={int(request.metadata.half)}"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        for suffix in ("param", "bin"):
            made = Path(folder) / f"network.ncnn.{suffix}"
            if not made.is_file():
                said = done.stderr.strip().splitlines()
                raise UserError(f"pnnx made no .{suffix} (exit code {done.returncode}): {said[-1] if said else ''}")
            made.replace(path / f"{name}.{suffix}")


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """Words about the folder for the report."""
    lines = only_file(path, "*.param").read_text(encoding="ascii").splitlines()
    return [f"{lines[1].split()[0]} layers"]
