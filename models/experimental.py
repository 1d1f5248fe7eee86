"""Names that scripts written for YOLOv5 import from here."""

from models.ensemble import Ensemble
from models.loading import attempt_load

__all__ = ["Ensemble", "attempt_load"]
