"""What `torch.hub` users hold: a network that takes any picture, and its results."""

from models.hub.autoshape import AutoShape
from models.hub.detections import Detections

__all__ = ["AutoShape", "Detections"]
