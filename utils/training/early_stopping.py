"""Stop when the fitness has not risen for a while."""

from __future__ import annotations

from utils.logging import LOGGER


class EarlyStopping:
    """``stopper(epoch, fitness)`` is True once `patience` epochs have passed since the best one (0: never)."""

    def __init__(self, patience: int = 30) -> None:
        self.best_fitness = 0.0
        self.best_epoch = 0
        self.patience = patience or float("inf")
        self.possible_stop = False  # the next epoch may be the last: a reason to validate it

    def __call__(self, epoch: int, fitness: float) -> bool:
        if fitness >= self.best_fitness:  # >= so that the zeros of the first epochs do not count as a plateau
            self.best_epoch, self.best_fitness = epoch, fitness
        waited = epoch - self.best_epoch
        self.possible_stop = waited >= self.patience - 1
        stop = waited >= self.patience
        if stop:
            LOGGER.info(
                f"Stopped early: no improvement in the last {self.patience} epochs, the best was epoch"
                f" {self.best_epoch} (kept as best.pt). --patience N waits longer, --patience 0 for ever."
            )
        return stop
