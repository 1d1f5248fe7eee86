"""The networks that exports are tested with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.export.samples import fused


@pytest.fixture(scope="module", params=["Detect", "Segment"])
def model(request: pytest.FixtureRequest) -> Any:
    """A fused detector, then a fused segmenter."""
    return fused(request.param)
