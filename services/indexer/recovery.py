"""The start of the live tier: manifests say where each partition is read from, and which sealed
shards nobody serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.indexer.live_tier import LiveTier
from services.indexer.settings import IndexerSettings, parse_partitions
from services.indexer.start_offsets import StartOffset, start_offsets
from shashin.errors import RepositoryError, UserError
from shashin.kafka.log_reader import LogReader
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY

log = get_logger(__name__)


@dataclass(frozen=True)
class Found:
    """What the repository and the log say at a start."""

    starts: Mapping[int, StartOffset]
    unserved: Sequence[StoredShard]
    """Sealed shards that the tier's pointer does not name: to be adopted."""


class Recovery:
    """Brings a live tier to where the last process left it."""

    def __init__(
        self, settings: IndexerSettings, repository: ModelRepository, reader: LogReader
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._reader = reader

    async def run(self, live: LiveTier, loop: LoopScope) -> None:
        """Begin the live tier's partitions and adopt what nobody serves.

        Raises:
            UserError: when a partition that this replica is to index does not exist.
        """
        loop.not_ready("reading manifests")
        found = await loop.retry("manifests and the log's offsets", self._find)
        live.begin(found.starts)
        for stored in found.unserved:
            loop.not_ready(f"adopting shard {stored.manifest.shard_id}")
            await self._adopt(stored, live, loop)

    async def _find(self) -> Found:
        partitions = await self._wanted_partitions()
        stored, errors = await self._repository.shards(self._settings.model_id, HOURLY)
        for error in errors:
            log.error("unreadable manifest: its range is read from the log", error=error.message)
        ranges = [r for shard in stored for r in shard.manifest.source_ranges]
        starts = start_offsets(ranges, await self._reader.begin_offsets(partitions))
        pointer, _ = await self._repository.read_pointer(self._settings.model_id, HOURLY)
        pointed = {shard.shard_id for shard in pointer.shards} if pointer else set()
        unserved = [
            shard
            for shard in stored
            if shard.manifest.shard_id not in pointed and _is_before_open(shard, starts)
        ]
        return Found(starts, unserved)

    async def _wanted_partitions(self) -> list[int]:
        existing = await self._reader.partitions()
        wanted = parse_partitions(self._settings.partitions)
        if wanted is None:
            return existing
        if missing := set(wanted) - set(existing):
            raise UserError(
                f"SHASHIN_PARTITIONS names partitions {sorted(missing)}, but {VECTORS_EMBEDDED} "
                f"has {len(existing)}: name partitions from 0 to {len(existing) - 1}"
            )
        return wanted

    async def _adopt(self, stored: StoredShard, live: LiveTier, loop: LoopScope) -> None:
        cache = self._settings.work_folder / "held"
        try:
            folder = await loop.retry(
                f"shard {stored.manifest.shard_id}", lambda: self._repository.fetch(stored, cache)
            )
            shard = await asyncio.to_thread(SealedShard, stored.manifest, folder)
        except RepositoryError as error:
            log.error(  # noqa: TRY400 - the message says all
                "a sealed shard cannot be served: its range is missing until it is fixed",
                shard=stored.manifest.shard_id,
                error=error.message,
            )
        else:
            live.adopt(shard)


def _is_before_open(stored: StoredShard, starts: Mapping[int, StartOffset]) -> bool:
    """Whether every range of the shard lies before the open range of its partition, which is ours."""
    return all(
        r.partition in starts and r.to_offset <= starts[r.partition].from_offset
        for r in stored.manifest.source_ranges
    )
