"""Release: sealed rows stay in the live tier until an index server is seen to hold them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import grpc

from services.indexer.live_tier import LiveTier
from shashin.discovery.protocol import Discovery, Endpoint
from shashin.offsets.coverage import Position, coverage
from shashin.offsets.ranges import OffsetRange
from shashin.rpc.channel import open_channel
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.shards.shard import Shard
from shashin.v1 import index_pb2, index_pb2_grpc

_POLL_SECONDS = 0.5

log = get_logger(__name__)


def held_elsewhere(shard: Shard, held: Iterable[OffsetRange]) -> bool:
    """Whether the ranges that index servers hold contain all of the shard's."""
    held = list(held)
    return all(
        coverage(held, {r.partition: Position(r.from_offset, r.to_offset)}).complete
        for r in shard.ranges
    )


def due_for_release(
    shards: Sequence[Shard],
    held: Iterable[OffsetRange],
    seen_since: Mapping[str, float],
    now: float,
    after_seconds: float,
) -> tuple[list[Shard], dict[str, float]]:
    """Return the shards to let go, and since when each of the others has been held elsewhere.

    A search that began before the index server had the shard may still be on its way here, so a
    shard is let go only when it has been held elsewhere for ``after_seconds`` without a break.
    """
    held = list(held)
    due, since = [], {}
    for shard in shards:
        if not held_elsewhere(shard, held):
            continue
        first = seen_since.get(shard.shard_id, now)
        if now - first >= after_seconds:
            due.append(shard)
        else:
            since[shard.shard_id] = first
    return due, since


class IndexServers:
    """Asks the index servers that discovery names what they hold."""

    def __init__(self, discovery: Discovery, model_id: str) -> None:
        self._discovery = discovery
        self._model_id = model_id
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def held_ranges(self) -> list[OffsetRange]:
        """Return the ranges that ready index servers of the model hold now."""
        endpoints = [e for e in await self._discovery.endpoints() if e.role == "index-server"]
        for address in set(self._channels) - {e.address for e in endpoints}:
            await self._channels.pop(address).close()
        held: list[OffsetRange] = []
        for endpoint in endpoints:
            held += await self._held_by(endpoint)
        return held

    async def _held_by(self, endpoint: Endpoint) -> list[OffsetRange]:
        channel = self._channels.get(endpoint.address)
        if channel is None:
            channel = self._channels[endpoint.address] = open_channel(endpoint.address)
        try:
            answer = await index_pb2_grpc.IndexServiceStub(channel).Describe(
                index_pb2.DescribeRequest(), timeout=2.0
            )
        except grpc.aio.AioRpcError as error:
            log.info("an index server does not answer", endpoint=endpoint.name, code=error.code())
            return []
        if answer.model_id != self._model_id:
            return []
        return [
            OffsetRange(r.partition, r.from_offset, r.to_offset)
            for shard in answer.shards
            for r in shard.ranges
        ]

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


class Release:
    """Has the live tier release sealed shards that index servers hold."""

    def __init__(self, live: LiveTier, servers: IndexServers, after_seconds: float) -> None:
        self._live = live
        self._servers = servers
        self._after_seconds = after_seconds
        self._seen_since: dict[str, float] = {}

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("release of sealed shards", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Ask index servers, as long as there is something to release, until stopped."""
        while await loop.sleep(_POLL_SECONDS):
            candidates = self._live.held.releasable()
            if not candidates:
                continue
            with loop.waiting_for("index servers to describe themselves"):
                held = await self._servers.held_ranges()
            due, self._seen_since = due_for_release(
                candidates, held, self._seen_since, time.monotonic(), self._after_seconds
            )
            if due:
                failpoint("before-release")
                self._live.release(due)
                failpoint("after-release")
                log.info("released", shards=[shard.shard_id for shard in due])
