"""A process that dies in mid-epoch: torchrun starts all again, and they go on as if nothing had been."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.checkpoints.checkpoint import load_checkpoint
from tests.engine.training.torchrun import ACCIDENT, finish, start, training_flags

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("signals_of_a_terminal")]
STANDALONE = ("--standalone", "--nproc_per_node", "2", "--max-restarts", "3")
GO_ON = "go on with --resume runs/exp/weights/last.pt"
MID_EPOCH = "4"  # the second of the three batches of epoch 1


@pytest.fixture(scope="module")
def undisturbed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training by two processes of one machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, [ACCIDENT, "0", "0", "none", *training_flags(tiny_data, folder)], *STANDALONE)
    output = finish(process)
    assert process.returncode == 0, output
    return folder / "runs" / "exp"


def assert_same_training(run: Path, other: Path) -> None:
    assert (run / "results.csv").read_text() == (other / "results.csv").read_text()
    mine, theirs = (load_checkpoint(folder / "weights" / "last.pt") for folder in (run, other))
    for key, value in theirs.state_dict.items():
        assert torch.equal(mine.state_dict[key], value), key
    assert mine.rng is not None
    assert len(mine.rng["others"]) == 1


def test_pictures_in_memory_that_both_read(undisturbed: Path, tiny_data: Path, tmp_path: Path) -> None:
    flags = [*training_flags(tiny_data, tmp_path), "--cache", "ram"]
    process = start(tmp_path, [ACCIDENT, "0", "0", "none", *flags], *STANDALONE)
    output = finish(process)
    assert process.returncode == 0, output
    assert re.search(r"train: caching images \(0\.0 GiB RAM\) +6/6", output), "one copy, of which each fills a half"
    assert_same_training(tmp_path / "runs" / "exp", undisturbed)


def test_a_killed_process(undisturbed: Path, tiny_data: Path, tmp_path: Path) -> None:
    other = tmp_path / "runs" / "exp"  # a run of somebody else, which has not been finished either
    other.mkdir(parents=True)
    (other / "torchrun.yaml").write_text("agents: [elsewhere:/tmp/x]\noptions: abc\n")
    process = start(tmp_path, [ACCIDENT, "1", MID_EPOCH, "kill", *training_flags(tiny_data, tmp_path)], *STANDALONE)
    output = finish(process)
    assert process.returncode == 0, output
    assert "started again by torchrun: going on with runs/exp2" in output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["exp", "exp2"]
    assert sorted(path.name for path in other.iterdir()) == ["torchrun.yaml"]
    assert not (tmp_path / "runs" / "exp2" / "torchrun.yaml").exists()
    assert_same_training(tmp_path / "runs" / "exp2", undisturbed)


@pytest.mark.parametrize(
    ("what", "causes"),
    [
        ("mistake", ["images/7.jpg cannot be read on this machine"]),
        ("end", [f"terminated (SIGTERM); {GO_ON}"]),
        ("kill", [f"another process ended; {GO_ON}", f"terminated (SIGTERM); {GO_ON}"]),
    ],
)
def test_one_line_and_the_end_of_all(tiny_data: Path, tmp_path: Path, what: str, causes: list[str]) -> None:
    """Long before any timeout, which is 10 minutes.

    After a kill the other process learns of it from its connection, or first from `torchrun`, which terminates it.
    """
    script = [ACCIDENT, "1", "1", what, *training_flags(tiny_data, tmp_path)]
    process = start(tmp_path, script, "--standalone", "--nproc_per_node", "2")
    output = finish(process)
    assert process.returncode != 0
    told = re.findall(r"error: (.*)", output)  # perhaps in the middle of a line that C++ code writes piece by piece
    assert told in [[cause] for cause in causes], output
    assert (tmp_path / "runs" / "exp" / "weights" / "last.pt").is_file()


# --- two machines -----------------------------------------------------------------------------------------------------


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Two network namespaces with a cable between them: name and address of each."""
    names = {"yolo-a": "10.77.0.1", "yolo-b": "10.77.0.2"}
    if shutil.which("ip") is None:
        pytest.skip("no `ip` command (Debian: iproute2) to make network namespaces with")
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "cable", "netns", "yolo-a", "type", "veth", "peer", "name", "cable", "netns", "yolo-b")
        for name, address in names.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
    except subprocess.CalledProcessError as error:
        for name in made:
            ip("netns", "delete", name)
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    yield names
    for name in names:
        ip("netns", "delete", name)


def test_two_machines_without_a_common_disk(
    undisturbed: Path, tiny_data: Path, tmp_path: Path, machines: dict[str, str]
) -> None:
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29400", "--rdzv-id", "shapes")
    processes = []
    for name, address in machines.items():
        flags = training_flags(tiny_data, tmp_path / name)
        processes.append(
            start(
                tmp_path / name, [ACCIDENT, "1", MID_EPOCH, "kill", *flags], "--nnodes", "2", "--nproc_per_node", "1",
                "--max-restarts", "3", *meeting, "--local-addr", address,
                "--rdzv-conf", f"is_host={int(address == '10.77.0.1')}",
                before=("ip", "netns", "exec", name), GLOO_SOCKET_IFNAME="cable",
            )
        )  # fmt: skip
    outputs = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert sum("started again by torchrun: going on with runs/exp" in output for output in outputs) == 1
    runs = [tmp_path / name / "runs" for name in machines]
    (main,) = (folder for folder in runs if folder.exists())
    assert [path.name for path in main.iterdir()] == ["exp"], "one process writes, on its machine alone"
    assert_same_training(main / "exp", undisturbed)
