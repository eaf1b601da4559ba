"""The cache in real processes: killed while they write, and many of them in one folder."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shashin.runtime.failpoints import VARIABLE
from tests.support.cache_worker import MAX_BYTES, URIS, editions, open_cache, photo, store

ROOT = Path(__file__).parents[3]


def worker(
    mode: str, folder: Path, *, seconds: float = 0.0, seed: int = 0, failpoints: Path | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.support.cache_worker"),
            *(mode, str(folder), str(seconds), str(seed)),
        ],
        cwd=ROOT,
        env=os.environ | ({VARIABLE: str(failpoints)} if failpoints else {}),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("point", ["amid-content", "after-content", "after-entry"])
@pytest.mark.parametrize("before", ["empty", "older edition"])
def test_a_writer_that_is_killed_leaves_the_old_photo_or_the_new_one_or_none(
    tmp_path: Path, point: str, before: str
) -> None:
    folder, failpoints = tmp_path / "cache", tmp_path / "failpoints"
    cache = open_cache(folder)
    if before != "empty":
        store(cache, URIS[0], 0)
    failpoints.mkdir()
    (failpoints / f"downloader.{point}").touch()
    with worker("store", folder, failpoints=failpoints) as killed:
        assert killed.wait() == -signal.SIGKILL
    found = cache.cached(URIS[0])
    if point == "after-entry":
        assert found is not None
        assert found.data == photo(URIS[0], 1)
    elif before == "empty":
        assert found is None
    else:
        assert found is not None
        assert found.data == photo(URIS[0], 0)
    assert store(cache, URIS[0], 2)
    found = cache.cached(URIS[0])
    assert found is not None
    assert found.data == photo(URIS[0], 2)


def test_what_a_killed_writer_left_is_removed_once_nobody_can_be_writing_it(
    tmp_path: Path,
) -> None:
    folder, failpoints = tmp_path / "cache", tmp_path / "failpoints"
    failpoints.mkdir()
    (failpoints / "downloader.amid-content").touch()
    with worker("store", folder, failpoints=failpoints) as killed:
        assert killed.wait() == -signal.SIGKILL
    cache = open_cache(folder)
    cache.prune()
    assert cache.stats().unfinished == 1
    (left,) = (folder / "unfinished").iterdir()
    os.utime(left, (0, 0))
    cache.prune()
    assert cache.stats().unfinished == 0


def test_processes_that_share_a_folder_never_read_a_wrong_photo_even_if_some_are_killed(
    tmp_path: Path,
) -> None:
    folder, rng = tmp_path / "cache", random.Random(7)
    survivors = [worker("hammer", folder, seconds=4.0, seed=seed) for seed in range(2)]
    killed = 0
    while any(process.poll() is None for process in survivors):
        victim = worker("hammer", folder, seconds=60.0, seed=100 + killed)
        try:
            victim.wait(0.4 + 0.5 * rng.random())
        except subprocess.TimeoutExpired:
            victim.kill()
            killed += 1
        _, errors = victim.communicate()
        assert victim.returncode == -signal.SIGKILL, errors
    for process in survivors:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert killed
    cache = open_cache(folder)
    for uri in URIS:
        found = cache.cached(uri)
        assert found is None or found.data in editions(uri)
    cache.prune()
    assert cache.stats().original_bytes <= MAX_BYTES
