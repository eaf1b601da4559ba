"""Asks the index servers in discovery which shards they hold."""

from __future__ import annotations

from dataclasses import dataclass

from shashin.codecs.ranges import ranges_in
from shashin.discovery.protocol import INDEX_SERVER, Discovery
from shashin.errors import ShashinError
from shashin.offsets.ranges import OffsetRange
from shashin.runtime.logging import get_logger
from shashin.serving.fleet import Fleet, ask_all
from shashin.v1 import index_pb2

DESCRIBE_TIMEOUT_SECONDS = 2.0
"""Timeout of a Describe call; all index servers are called concurrently."""

log = get_logger(__name__)


@dataclass(frozen=True)
class HeldShard:
    """A shard that an index server holds."""

    tier: str
    """Of the index server."""
    shard_id: str
    ranges: tuple[OffsetRange, ...]


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
        self.silent = tuple(failure.endpoint.name for failure in results.failures)
        for failure in results.failures:
            log.info(
                "index server does not respond",
                endpoint=failure.endpoint.name,
                error=failure.error,
            )
        return [
            HeldShard(answer.tier, shard.shard_id, tuple(ranges_in(shard.ranges)))
            for _, answer in results.answers
            for shard in answer.shards
        ]

    async def close(self) -> None:
        """Close every channel."""
        await self._fleet.close()
