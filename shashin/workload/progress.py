"""Progress of each pipeline stage, read from topics, the repository and the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from shashin.client.router import RouterClient, covered_records, records_in
from shashin.client.topic_tails import TopicTail
from shashin.errors import ShashinError
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.repository.repository import ModelRepository
from shashin.tiers import HOURLY
from shashin.v1 import search_pb2

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class PipelineProgress:
    """Number of listing versions that have reached each stage."""

    published: int = 0
    downloaded: int = 0
    embedded: int = 0
    searchable: int = 0
    """In any tier, as reported by the router."""
    sealed: int = 0
    """In a shard of the repository."""
    served: int = 0
    """In a shard held by a ready index server of the hourly tier."""
    shards_sealed: int = 0
    shards_served: int = 0
    coverage: search_pb2.Coverage | None = None


class PipelineWatch:
    """Reads the progress of all stages."""

    def __init__(
        self,
        tails: Mapping[str, TopicTail],
        repository: ModelRepository,
        model_id: str,
        router: RouterClient,
    ) -> None:
        self._tails = tails
        self._repository = repository
        self._model_id = model_id
        self._router = router

    async def look(self) -> PipelineProgress:
        """Return the progress of all stages.

        Raises:
            ShashinError: if Kafka, the repository or the router does not respond.
        """
        published = await self._tails[LISTINGS_EVENTS].end()
        downloaded = await self._tails[IMAGES_DOWNLOADED].end()
        embedded = await self._tails[VECTORS_EMBEDDED].end()
        shards, _ = await self._repository.shards(self._model_id, HOURLY)
        status = await self._router.status()
        return PipelineProgress(
            published=published,
            downloaded=downloaded,
            embedded=embedded,
            searchable=covered_records(status),
            sealed=records_in(r for s in shards for r in s.manifest.source_ranges),
            served=covered_records(status, HOURLY),
            shards_sealed=len(shards),
            shards_served=max(
                (e.shards for e in status.endpoints if e.ready and e.tier == HOURLY), default=0
            ),
            coverage=status.coverage,
        )

    @asynccontextmanager
    async def showing(self, show: Callable[[PipelineProgress], None]) -> AsyncIterator[None]:
        """Show the progress twice a second while the context is open."""

        async def follow() -> None:
            while True:
                # Only a display: callers that need the result call look() and see its errors.
                with suppress(ShashinError):
                    show(await self.look())
                await asyncio.sleep(_POLL_SECONDS)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
