"""The classes that `torch.hub` users work with: a network that takes images of any kind, and its results."""

from models.hub.autoshape import AutoShape
from models.hub.detections import Detections

__all__ = ["AutoShape", "Detections"]
