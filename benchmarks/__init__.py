"""How fast the project is: each file is a command of its own, ``python -m benchmarks`` a short version of all.

What is measured is the checkout `ROOT`: this one, or that which the environment variable BENCHMARKS_ROOT names (set by
``--against``), so that these very measures can be taken of an older commit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
ROOT = Path(os.environ.get("BENCHMARKS_ROOT", HERE)).resolve()
if ROOT != HERE:
    sys.path.insert(0, str(ROOT))  # `utils`, `models` and `engine` are those of the checkout that is measured
