from __future__ import annotations

import subprocess
import sys

import pytest

from utils.files import ROOT


def test_names_come_from_their_owners() -> None:
    import utils.metrics as facade
    from utils.losses.focal import smooth_bce
    from utils.metrics.average_precision import ap_per_class

    assert facade.ap_per_class is ap_per_class
    assert facade.smooth_bce is smooth_bce
    assert set(dir(facade)) >= {"ConfusionMatrix", "bbox_iou", "box_iou", "compute_ap", "fitness"}
    for name in dir(facade):
        assert callable(getattr(facade, name))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = facade.nonsense


def test_the_import_is_light() -> None:
    code = "import sys, utils.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
