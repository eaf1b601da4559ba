"""Releases sealed shards from the live tier once index servers hold them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from services.indexer.live_tier import LiveTier
from shashin.offsets.ranges import MergedRanges, OffsetRange
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.index_servers import IndexServers
from shashin.shards.shard import Shard

_POLL_SECONDS = 0.5

log = get_logger(__name__)


def held_elsewhere(shard: Shard, held: MergedRanges) -> bool:
    """Whether the ranges that index servers hold contain all ranges of the shard."""
    return held.contain_all(shard.ranges)


def due_for_release(
    shards: Sequence[Shard],
    held: Iterable[OffsetRange],
    held_since: Mapping[str, float],
    now: float,
    after_seconds: float,
) -> tuple[list[Shard], dict[str, float]]:
    """Return the shards to release, and since when each remaining one has been held elsewhere.

    A search that started before the index server had the shard may still be about to reach this
    indexer, so a shard is released only after it has been held elsewhere for ``after_seconds``
    without interruption.
    """
    merged = MergedRanges(held)
    due, since = [], {}
    for shard in shards:
        if not held_elsewhere(shard, merged):
            continue
        first = held_since.get(shard.shard_id, now)
        if now - first >= after_seconds:
            due.append(shard)
        else:
            since[shard.shard_id] = first
    return due, since


class Release:
    """Releases sealed shards from the live tier once index servers hold them."""

    def __init__(self, live: LiveTier, servers: IndexServers, after_seconds: float) -> None:
        self._live = live
        self._servers = servers
        self._after_seconds = after_seconds
        self._held_since: dict[str, float] = {}

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("shard release", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Poll index servers while there are shards to release, until stopped."""
        while await loop.sleep(_POLL_SECONDS):
            candidates = self._live.held.releasable()
            if not candidates:
                continue
            with loop.waiting_for("index servers to describe themselves"):
                held = [r for shard in await self._servers.held() for r in shard.ranges]
            due, self._held_since = due_for_release(
                candidates, held, self._held_since, time.monotonic(), self._after_seconds
            )
            if due:
                failpoint("before-release")
                self._live.release(due)
                failpoint("after-release")
                log.info("released", shards=[shard.shard_id for shard in due])
