"""Asks the index servers in discovery which shards they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import grpc

from shashin.codecs.ranges import ranges_in
from shashin.discovery.protocol import INDEX_SERVER, Discovery, GroupKey
from shashin.errors import ShashinError
from shashin.offsets.ranges import OffsetRange
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.fleet import Fleet, ask_all
from shashin.v1 import index_pb2

DESCRIBE_TIMEOUT_SECONDS = 2.0
"""Timeout of a Describe call; all index servers are called concurrently."""

_WATCH_SECONDS = 1.0

log = get_logger(__name__)


@dataclass(frozen=True)
class HeldShard:
    """A shard that an index server holds."""

    tier: str
    """Of the index server."""
    shard_id: str
    ranges: tuple[OffsetRange, ...]
    group: str = ""
    """Name of the index server's group; empty if it has none."""


def held_by_every_replica(
    replicas: Iterable[tuple[GroupKey, Sequence[HeldShard]]],
) -> list[HeldShard]:
    """Return each group's shards that all its replicas hold, in the order of its first replica."""
    common: dict[GroupKey, list[HeldShard]] = {}
    for group, shards in replicas:
        if group in common:
            common[group] = [shard for shard in common[group] if shard in shards]
        else:
            common[group] = list(shards)
    return [shard for shards in common.values() for shard in shards]


class IndexServers:
    """Queries the index servers in discovery for the ranges that they hold."""

    def __init__(self, discovery: Discovery, model_id: str) -> None:
        self._discovery = discovery
        self._model_id = model_id
        self._fleet = Fleet(model_id)
        self.silent: tuple[str, ...] = ()
        """Names of the index servers that did not respond when they were asked last."""

    async def held(self) -> list[HeldShard]:
        """Return the shards that ready index servers of the model hold now.

        Of a group of replicas, these are the shards that each ready one holds: a search may go to any.
        A replica that refuses searches or connections is not ready. One that does not respond within
        ``DESCRIBE_TIMEOUT_SECONDS`` may still answer searches, so it counts as holding none.
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
        self.silent = tuple(failure.endpoint.name for failure in results.failures)
        for failure in results.failures:
            log.info(
                "index server does not respond",
                endpoint=failure.endpoint.name,
                error=failure.error,
            )
        replicas = [
            (
                peer.endpoint.group_key,
                [
                    HeldShard(
                        answer.tier,
                        shard.shard_id,
                        tuple(ranges_in(shard.ranges)),
                        peer.endpoint.group,
                    )
                    for shard in answer.shards
                ],
            )
            for peer, answer in results.answers
            if not answer.not_serving
        ]
        replicas += [
            (failure.endpoint.group_key, [])
            for failure in results.failures
            if failure.status == grpc.StatusCode.DEADLINE_EXCEEDED.name
        ]
        return held_by_every_replica(replicas)

    def discovery_watch(self) -> Loop:
        """Return the loop that reports on /healthz when discovery may be out of date."""
        return Loop("discovery watch", self._watch_discovery)

    async def _watch_discovery(self, loop: LoopScope) -> None:
        while loop.next_turn():
            try:
                with loop.waiting_for("discovery"):
                    await self._discovery.endpoints()
                problem = self._discovery.problem
            except ShashinError as error:
                problem = error.message
            if problem is None:
                loop.clear("discovery")
            else:
                loop.degraded("discovery", problem)
            await loop.sleep(_WATCH_SECONDS)

    async def close(self) -> None:
        """Close every channel."""
        await self._fleet.close()
