"""The options of a resumed training: those of its checkpoint, and which of these this version knows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from engine.training.resume import resume_options
from engine.training.saver import snapshot
from models.checkpoints.checkpoint import save_checkpoint
from tests.engine.training.step import make_options, make_task, make_trainer
from utils.logging import LOGGER


def test_options_that_this_version_does_not_have_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)  # whatever other tests have configured
    checkpoint = snapshot(make_trainer("detect", tmp_path, "cpu").session, epoch=0)
    last = tmp_path / "last.pt"
    for known, said in (({"seed": 7}, ""), ({"seed": 8, "warp": 3, "bend": True}, "does not have: bend, warp")):
        checkpoint.opt = {**make_options("detect", data="shapes.yaml", epochs=9).to_dict(), **known}
        save_checkpoint(last, checkpoint)
        with caplog.at_level(logging.WARNING):
            options, _, _ = resume_options(make_options("detect", resume=str(last)), make_task("detect"), {"resume"})
        assert said in caplog.text
        assert bool(said) is bool(caplog.text)
        assert (options.seed, options.data, options.epochs) == (known["seed"], "shapes.yaml", 9)
