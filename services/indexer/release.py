"""Releases sealed shards from the live tier once index servers hold them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from services.indexer.live_tier import LiveTier
from shashin.codecs.ranges import ranges_in
from shashin.discovery.protocol import INDEX_SERVER, Discovery
from shashin.errors import ShashinError
from shashin.offsets.ranges import MergedRanges, OffsetRange
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.fleet import Fleet, ask_all
from shashin.shards.shard import Shard
from shashin.v1 import index_pb2

DESCRIBE_TIMEOUT_SECONDS = 2.0
"""Timeout of a Describe call; all index servers are called concurrently."""

_POLL_SECONDS = 0.5

log = get_logger(__name__)


def held_elsewhere(shard: Shard, held: MergedRanges) -> bool:
    """Whether the ranges that index servers hold contain all ranges of the shard."""
    return all(map(held.contain, shard.ranges))


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


class IndexServers:
    """Queries the index servers in discovery for the ranges that they hold."""

    def __init__(self, discovery: Discovery, model_id: str) -> None:
        self._discovery = discovery
        self._model_id = model_id
        self._fleet = Fleet(model_id)

    async def held_ranges(self) -> list[OffsetRange]:
        """Return the ranges that ready index servers of the model hold now.

        An index server that does not respond within ``DESCRIBE_TIMEOUT_SECONDS`` counts as holding none.
        """
        try:
            endpoints = await self._discovery.endpoints()
        except ShashinError as error:
            log.warning(
                "discovery unavailable: keeping the known index servers", error=error.message
            )
        else:
            self._fleet.sync(e for e in endpoints if e.role == INDEX_SERVER)
        with self._fleet.hold(INDEX_SERVER) as held:
            results = await ask_all(
                held.peers,
                lambda peer: peer.index.Describe(
                    index_pb2.DescribeRequest(), timeout=DESCRIBE_TIMEOUT_SECONDS
                ),
                method="Describe",
                model_id=self._model_id,
            )
        for failure in results.failures:
            log.info(
                "index server does not respond",
                endpoint=failure.endpoint.name,
                error=failure.error,
            )
        return [
            held_range
            for _, answer in results.answers
            for shard in answer.shards
            for held_range in ranges_in(shard.ranges)
        ]

    async def close(self) -> None:
        """Close every channel."""
        await self._fleet.close()


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
                held = await self._servers.held_ranges()
            due, self._held_since = due_for_release(
                candidates, held, self._held_since, time.monotonic(), self._after_seconds
            )
            if due:
                failpoint("before-release")
                self._live.release(due)
                failpoint("after-release")
                log.info("released", shards=[shard.shard_id for shard in due])
