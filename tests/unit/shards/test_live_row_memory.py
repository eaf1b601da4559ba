"""What a row of the live tier takes, measured as ``make bench`` does, with fewer rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = "from bench.live_row import bytes_per_row; print(bytes_per_row(40_000, after=20_000))"


@pytest.mark.skipif(
    sys.platform != "linux", reason="allocators of other systems return other pages"
)
def test_a_live_row_costs_at_most_450_bytes() -> None:
    run = subprocess.run(  # a process of its own has only its own memory
        [sys.executable, "-c", MEASURE],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
        text=True,
    )
    # Vectors of 128 dimensions alone take 256 bytes a row.
    assert 256 <= float(run.stdout) <= 450
