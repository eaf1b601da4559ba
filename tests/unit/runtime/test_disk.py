"""The free space of the disks that a process writes to."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from prometheus_client import REGISTRY

from shashin.runtime.disk import watch_disk


def exposed(name: str) -> float:
    value = REGISTRY.get_sample_value(f"shashin_folder_{name}_bytes", {"folder": "work"})
    assert value is not None
    return value


def test_a_scrape_has_the_size_and_the_free_space_of_the_disk(tmp_path: Path) -> None:
    watch_disk("work", tmp_path)
    assert exposed("size") == shutil.disk_usage(tmp_path).total
    assert 0 < exposed("free") <= exposed("size")


def test_a_folder_that_is_gone_has_no_figures(tmp_path: Path) -> None:
    watch_disk("work", tmp_path / "gone")
    assert math.isnan(exposed("free"))
