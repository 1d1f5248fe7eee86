"""EarlyStopping on a fitness curve with one peak."""

from __future__ import annotations

from utils.training.early_stopping import EarlyStopping


def test_stops_patience_epochs_after_the_best() -> None:
    stopper = EarlyStopping(patience=3)
    curve = [0.1, 0.5, 0.4, 0.4, 0.4, 0.9]
    assert [stopper(epoch, value) for epoch, value in enumerate(curve[:5])] == [False] * 4 + [True]
    assert (stopper.best_epoch, stopper.best_fitness) == (1, 0.5)


def test_zero_patience_never_stops() -> None:
    stopper = EarlyStopping(patience=0)
    assert not any(stopper(epoch, 1.0 if epoch == 0 else 0.0) for epoch in range(500))


def test_flat_zeros_are_no_plateau() -> None:
    stopper = EarlyStopping(patience=2)
    assert not any(stopper(epoch, 0.0) for epoch in range(10))
