"""promtool, which is part of Prometheus."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str, folder: Path) -> None:
    """Run it in a folder, and fail with what it says; skips the test where it is not installed."""
    if (program := shutil.which("promtool")) is None:
        pytest.skip("needs promtool, which is part of Prometheus")
    ended = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
