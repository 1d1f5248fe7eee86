"""The genetic search apart from the trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.training.evolve import RANGES, EvolutionTable, mutate
from utils.errors import UserError
from utils.hyp import load_hyp


def test_mutations_stay_in_range_and_change_something() -> None:
    rng = np.random.default_rng(0)
    start = {k: v for k, v in load_hyp("hyp.scratch-low.yaml").items() if k in RANGES}
    for _ in range(50):
        child = mutate(start, rng)
        assert child != start
        for name, value in child.items():
            _, low, high = RANGES[name]
            assert low <= value <= high
        assert child["iou_t"] == start["iou_t"], "a gene of gain 0 is kept"


def test_table_round_trip_best_and_children(tmp_path: Path) -> None:
    genes = ["lr0", "momentum"]
    table = EvolutionTable(tmp_path / "evolve.csv", genes)
    start = {"lr0": 0.01, "momentum": 0.9, "other": 7}
    rng = np.random.default_rng(1)
    assert table.child(start, rng) == start
    table.add(start, [0.3, 0.1, 0.2, 0.3, 0.4])
    table.add({**start, "lr0": 0.02}, [0.8, 0.1, 0.2, 0.3, 0.4])
    again = EvolutionTable(tmp_path / "evolve.csv", genes)
    assert again.rows == table.rows
    assert again.best(start) == {"lr0": 0.02, "momentum": 0.9, "other": 7}
    parents = [again.child(start, rng)["lr0"] for _ in range(40)]
    assert np.median(parents) == pytest.approx(0.02, rel=0.3), "children descend from the fitter generation"


def test_only_numbers_are_genes_and_the_rest_is_handed_down(tmp_path: Path) -> None:
    start = load_hyp({"iou_loss": "siou", "qfl": True})
    genes = [name for name in RANGES if name in start]
    assert all(type(start[name]) in (int, float) for name in genes)
    table = EvolutionTable(tmp_path / "evolve.csv", genes)
    table.add(start, [0.3, 0.1, 0.2, 0.3, 0.4])
    child = table.child(start, np.random.default_rng(0))
    assert load_hyp(child) == child != start
    assert (child["iou_loss"], child["qfl"]) == ("siou", True)


def test_table_of_another_search(tmp_path: Path) -> None:
    EvolutionTable(tmp_path / "e.csv", ["lr0"]).add({"lr0": 1}, [0.0] * 5)
    with pytest.raises(UserError, match="e.csv:1: columns differ"):
        EvolutionTable(tmp_path / "e.csv", ["momentum"])
