"""YOLOv5 with a MobileNetV2 backbone, installed from a wheel: this package holds the project's folder as it is.

Its modules (`train`, `models`, `utils` and others) keep the names that YOLOv5's scripts and checkpoints use. Other
packages may need these names, so the modules can be imported only after `use()`, or inside `yolov5-mobilenet`.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def use() -> None:
    """Make `import train`, `from models.yolo import Model` and the like find this project, in this process."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
