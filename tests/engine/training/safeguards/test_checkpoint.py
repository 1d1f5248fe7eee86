"""Resuming from a damaged last.pt, or with damaged tables beside it: one line, before anything is trained."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from engine.training.evolve import EvolutionTable
from models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.cli import run_command
from utils.errors import UserError
from utils.hyp import load_hyp
from utils.training.optimizer import smart_optimizer

Change = Callable[[Checkpoint], Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """The run folder of a training of one epoch."""
    folder = tmp_path_factory.mktemp("runs")
    net = folder / "net.yaml"
    rows = "nc: 2\nanchors: 2\nbackbone:\n  - [-1, 1, Conv, [8, 3, 4]]\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n"
    net.write_text(f"{rows}  - [[1], 1, Detect, [nc, anchors]]\n")
    hyp = {"nbs": 4}
    train.run(
        cfg=str(net), data=str(tiny_data), hyp=hyp, epochs=1, imgsz=32, batch_size=4, workers=0, device="cpu",
        noplots=True, noautoanchor=True, project=str(folder), name="exp",
    )  # fmt: skip
    return folder / "exp"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it; nothing in it may change."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "train" / "exp"
    shutil.copytree(trained, folder)
    yield folder
    assert {p.name for p in folder.rglob("*")} == {p.name for p in trained.rglob("*")}


def first(values: dict[Any, Any]) -> Any:
    return next(iter(values.values()))


def setting(place: str, **values: Any) -> Change:
    """Puts `values` into a part of the checkpoint."""

    def change(checkpoint: Checkpoint) -> None:
        getattr(checkpoint, place).update(values)

    return change


def replacing(**values: Any) -> Change:
    """Puts `values` in the place of whole parts."""

    def change(checkpoint: Checkpoint) -> None:
        for name, value in values.items():
            setattr(checkpoint, name, value)

    return change


def bad_slot(checkpoint: Checkpoint, value: Any) -> None:
    first(checkpoint.optimizer["state"])["momentum_buffer"] = value  # type: ignore[index]


def bad_group(checkpoint: Checkpoint, **values: Any) -> None:
    checkpoint.optimizer["param_groups"][1].update(values)  # type: ignore[index]


def without(place: str, key: str) -> Change:
    return lambda checkpoint: getattr(checkpoint, place).pop(key)


def reshaped(checkpoint: Checkpoint) -> None:
    checkpoint.ema["model.1.conv.weight"] = torch.zeros(3)  # type: ignore[index]


SCALE = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}
DAMAGE: dict[str, tuple[Change, str]] = {
    "epoch below -1": (replacing(epoch=-7), "its number of epochs does not fit"),
    "epoch huge": (replacing(epoch=10**15), "its number of epochs does not fit"),
    "average's updates": (replacing(ema_updates=-1), "its number of epochs does not fit"),
    "fitness nan": (replacing(best_fitness=float("nan")), "its best fitness does not fit"),
    "fitness inf": (replacing(best_fitness=float("inf")), "its best fitness does not fit"),
    "best epoch of text": (setting("extra", best_epoch="x"), "its best epoch does not fit"),
    "best epoch a list": (setting("extra", best_epoch=[1]), "its best epoch does not fit"),
    "option batch of text": (setting("opt", batch_size="many"), "its option batch_size"),
    "option epochs of text": (setting("opt", epochs="x"), "its option epochs"),
    "option epochs zero": (setting("opt", epochs=0), "its option epochs"),
    "option workers": (setting("opt", workers=-1), "its option workers"),
    "option imgsz": (setting("opt", imgsz=[-32]), "its option imgsz"),
    "option optimizer": (setting("opt", optimizer="Best"), "its option optimizer"),
    "option seed": (setting("opt", seed=2**63), "its option seed"),
    "option rect": (setting("opt", rect="perhaps"), "its option rect"),
    "option name": (setting("opt", name=""), "its option name"),
    "option label smoothing": (setting("opt", label_smoothing=7.0), "its option label_smoothing"),
    "option hyp": (setting("opt", hyp={"lr0": 1e300}), "lr0 is 1e+300, but must be above 0"),
    "no data": (setting("opt", data=None), "does not hold the option 'data'"),
    "no epochs": (without("opt", "epochs"), "does not hold the option 'epochs'"),
    "no options": (replacing(opt={}), "has no optimiser state to resume from"),
    "other options": (replacing(opt={"x": 1}), "does not hold the option 'data'"),
    "another optimiser": (setting("opt", optimizer="Adam"), "its optimiser state does not fit"),
    "empty optimiser": (replacing(optimizer={}), "its optimiser state does not fit"),
    "no groups": (without("optimizer", "param_groups"), "its optimiser state does not fit"),
    "one group": (setting("optimizer", param_groups=[]), "its optimiser state does not fit"),
    "a group of text": (setting("optimizer", param_groups=["a", "b", "c"]), "its optimiser state does not fit"),
    "fewer parameters": (lambda c: bad_group(c, params=[0]), "its optimiser state does not fit"),
    "lr of text": (lambda c: bad_group(c, lr="fast"), "its optimiser state does not fit"),
    "lr nan": (lambda c: bad_group(c, lr=float("nan")), "its optimiser state does not fit"),
    "momentum of text": (lambda c: bad_group(c, momentum="some"), "its optimiser state does not fit"),
    "slot of another shape": (lambda c: bad_slot(c, torch.zeros(7)), "its optimiser state does not fit"),
    "slot nan": (lambda c: bad_slot(c, first(c.state_dict) * float("nan")), "its optimiser state does not fit"),
    "slots of nothing": (lambda c: first(c.optimizer["state"]).clear(), "its optimiser state does not fit"),  # type: ignore[index]
    "a slot too many": (lambda c: c.optimizer["state"].update({10**6: {}}), "its optimiser state does not fit"),  # type: ignore[index]
    "scaler of text": (replacing(scaler=SCALE | {"scale": "x"}), "its loss scale does not fit"),
    "scaler nan": (replacing(scaler=SCALE | {"scale": float("nan")}), "its loss scale does not fit"),
    "scaler without scale": (replacing(scaler={"x": 1}), "its loss scale does not fit"),
    "average incomplete": (without("ema", "model.0.conv.weight"), "the moving average does not fit its network"),
    "average reshaped": (reshaped, "the moving average does not fit its network"),
    "weights incomplete": (without("state_dict", "model.0.conv.weight"), "does not fit its network"),
    "weights nan": (lambda c: first(c.state_dict).fill_(float("nan")), "its weights contain NaN or infinite values"),
    "names swapped": (replacing(names={0: "dark", 1: "light"}), "classes (light, dark) are not those that"),
    "another name": (replacing(names={0: "light", 1: "grey"}), "was trained for (light, grey)"),
    "random empty": (replacing(rng={}), "the state of its random numbers does not fit"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_checkpoint_that_cannot_be_resumed(kind: str, run: Path) -> None:
    change, told = DAMAGE[kind]
    last = run / "weights" / "last.pt"
    checkpoint = copy.deepcopy(load_checkpoint(last))
    change(checkpoint)
    save_checkpoint(last, checkpoint)
    before = last.read_bytes()
    with pytest.raises(UserError) as caught:
        train.run(resume=str(last), **({} if kind.startswith("option epochs") else {"epochs": 3}))
    message = str(caught.value)
    assert told in message
    assert message.isprintable()
    assert len(message) < 800
    assert last.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "results.csv:1: columns differ from epoch, train/box_loss"),
        ("epoch,loss\n0,1\n", "results.csv:1: columns differ"),
        ("{head}\n0,1\n", "results.csv:2: 2 values in 14 columns"),
        ("{head}\nzero{commas}\n", "results.csv: row 1: 'zero' is no number"),
        ("{head}\nnan{commas}\n", "results.csv: row 1: 'nan' is no number"),
        ('{head}\n"0{commas}\n', "results.csv:2: 1 values in 14 columns"),
        ("\ud800", "results.csv: not a UTF-8 text file"),
    ],
)
def test_a_damaged_table(text: str, told: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = run / "results.csv"
    head = table.read_text().splitlines()[0]
    content = text.replace("{head}", head).replace("{commas}", "," * head.count(","))
    table.write_bytes(content.encode("utf-8", "surrogatepass"))
    before = table.read_bytes()
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: train.run(resume=str(run / "weights" / "last.pt"), epochs=3))
    err = capsys.readouterr().err
    assert stop.value.code == 1
    assert next(line for line in err.splitlines() if not line.startswith("warning: ")).startswith("error: ")
    assert told in err
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fitness,lr0\n1,2\n", "e.csv:1: columns differ"),
        ("{head}\n1,2\n", "e.csv:2: 2 values in 6 columns"),
        ("{head}\n1,2,3,4,5,x\n", "e.csv: row 1: 'x' is no number"),
        ("{head}\nnan,2,3,4,5,6\n", "e.csv: row 1: 'nan' is no number"),
        ("{head}\n1e999,2,3,4,5,6\n", "e.csv: row 1: '1e999' is no number"),
        ("{head}\n" + "9" * 200_000 + ",2,3,4,5,6\n", "e.csv: not a table"),
        ("\0", "e.csv:1: columns differ"),
    ],
)
def test_a_damaged_search(text: str, told: str, tmp_path: Path) -> None:
    head = "fitness,precision,recall,mAP_0.5,mAP_0.5:0.95,lr0"
    (tmp_path / "e.csv").write_text(text.replace("{head}", head))
    with pytest.raises(UserError) as caught:
        EvolutionTable(tmp_path / "e.csv", ["lr0"])
    assert told in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("lr0", 1e300, "lr0 is 1e+300, but must be above 0, at most 1e+06"),
        ("lr0", 10**400, "lr0 must be a number, not one of so many digits"),
        pytest.param("lr0", 10**6000, "lr0 must be a number, not one of so many digits", id="digits"),
        ("lr0", float("nan"), "lr0 must be a number, not nan"),
        ("lr0", float("inf"), "lr0 must be a number, not inf"),
        ("lr0", "1e999", "lr0 must be a number, not inf"),
        ("warmup_epochs", 1e308, "warmup_epochs is 1e+308, but must be 0 or more, at most 1e+06"),
        ("nbs", 1e300, "nbs is 1e+300"),
        ("weight_decay", 1e300, "weight_decay is 1e+300"),
        ("box", 1e307, "box is 1e+307"),
        ("fl_gamma", [1] * 10_000, "fl_gamma must be a number, not [1, 1, 1, 1, 1, 1, ...]"),
        ("iou_loss", "c" * 10_000, "iou_loss is 'ccc"),
        ("qfl", "y" * 10_000, "qfl must be true or false, not 'yyy"),
    ],
)
def test_hyper_parameters_beyond_all_use(key: str, value: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_hyp({key: value})
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


def test_momentum_at_its_ends() -> None:
    net = torch.nn.Conv2d(1, 1, 1)
    plain: Any = smart_optimizer(net, "SGD", momentum=0.0)
    assert not plain.defaults["nesterov"], "without momentum SGD is plain"
    with pytest.raises(UserError, match="--optimizer Adam cannot have momentum 1 and lr0 0.01: Invalid beta"):
        smart_optimizer(net, "Adam", lr=0.01, momentum=1.0)


def test_an_undamaged_one_is_resumed(run: Path) -> None:
    last = run / "weights" / "last.pt"
    train.run(resume=str(last), epochs=2)
    assert load_checkpoint(last).epoch == 1
