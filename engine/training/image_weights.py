"""--image-weights: images of classes that are still poor are drawn more often."""

from __future__ import annotations

import numpy as np

from engine.training.session import Session


class ImageWeights:
    """Listens for the start of an epoch and chooses its images.

    An image weighs what its labels weigh: inverse class frequency times ``(1 - mAP of the class)²``.
    """

    def epoch_start(self, session: Session, epoch: int) -> None:
        dataset = session.train_loader.dataset
        nc = len(session.names)
        maps = np.zeros(nc) if session.class_maps is None else session.class_maps
        weights = dataset.index.image_weights(dataset.index.class_weights(nc) * (1 - maps) ** 2)
        rng = np.random.default_rng((session.options["seed"], epoch))
        dataset.indices = rng.choice(len(weights), size=len(weights), p=weights / weights.sum())
