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


def test_a_folder_that_is_not_there_yet_has_the_figures_of_the_one_above(tmp_path: Path) -> None:
    watch_disk("work", tmp_path / "not" / "made")
    assert exposed("size") == shutil.disk_usage(tmp_path).total
    assert exposed("free") > 0


def test_a_disk_that_cannot_be_asked_has_no_figures(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    watch_disk("work", file / "below")
    assert math.isnan(exposed("free"))
