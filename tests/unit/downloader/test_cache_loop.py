"""The loop that keeps the cache within its limits and reports when it cannot be written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from services.downloader.cache_loop import cache_loop
from shashin.originals import Original, OriginalsCache, SourceVersion
from shashin.runtime.health import Health
from tests.support.loops import running
from tests.support.waiting import until


def store(cache: OriginalsCache, name: str, size: int) -> None:
    data = name.encode() * (size // len(name))
    cache.store(name, Original(data, hashlib.sha256(data).digest()), SourceVersion())


async def test_what_does_not_fit_is_removed_while_the_process_runs(tmp_path: Path) -> None:
    cache = OriginalsCache(tmp_path / "cache", max_bytes=50_000, keep_seconds=1000.0)
    async with running(cache_loop(cache)):
        for name in "abcdefgh":
            store(cache, name, 10_000)
        await until(lambda: cache.stats().bytes <= 50_000, "the cache is pruned")
    assert cache.stats().originals >= 1


async def test_a_cache_that_cannot_be_written_is_a_problem_until_it_can(tmp_path: Path) -> None:
    now, health = 1000.0, Health()
    (tmp_path / "volume").touch()
    cache = OriginalsCache(
        tmp_path / "volume" / "cache", max_bytes=50_000, keep_seconds=1000.0, clock=lambda: now
    )
    async with running(cache_loop(cache), health=health):
        store(cache, "a", 1000)
        await until(health.problems, "the problem is reported")
        assert "cache of originals: photos are not cached" in health.problems()[0]
        (tmp_path / "volume").unlink()
        now += 60
        store(cache, "b", 1000)
        await until(lambda: not health.problems(), "the problem is gone")
    assert not health.liveness_problems()
