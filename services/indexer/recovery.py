"""Startup recovery: start offsets and unserved sealed shards, derived from manifests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.indexer.hidden_store import HiddenStore
from services.indexer.live_start import BesideActiveModel, LiveStart
from services.indexer.live_tier import LiveTier
from services.indexer.settings import IndexerSettings
from services.indexer.start_offsets import StartOffset, first_horizons, start_offsets
from shashin.errors import RecordsLost, RepositoryError, ShashinError
from shashin.kafka.log_reader import LogReader
from shashin.kafka.lost_records import lost_below, note_lost
from shashin.kafka.topics import LISTINGS_HIDDEN, VECTORS_EMBEDDED
from shashin.offsets.ranges import OffsetRange
from shashin.repository.given_up import GivenUpOffsets
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.horizons import Horizon, Horizons
from shashin.repository.known_shards import read_known_shards
from shashin.repository.repository import ModelRepository, StoredShard, UnreadableShard
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope
from shashin.serving.catch_up import lost_after_snapshot
from shashin.serving.hidden_listings import LogBounds
from shashin.shards.format.hidden_snapshot import combined
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY

_LOOKED_UP_AT_ONCE = 10_000

log = get_logger(__name__)


@dataclass(frozen=True)
class RecoveryState:
    """The state to restore, read from the repository and the log."""

    starts: Mapping[int, StartOffset]
    unserved: Sequence[StoredShard]
    """Sealed shards that are not in the tier's pointer, to be adopted."""
    unreadable: Sequence[UnreadableShard]
    """Sealed shards whose manifest cannot be read: their ranges count as sealed."""


class Starts:
    """Where partitions start, from the repository and the log."""

    def __init__(
        self, reader: LogReader, horizons: Horizons, beside: BesideActiveModel | None = None
    ) -> None:
        self._reader = reader
        self._horizons = horizons
        self._beside = beside

    async def of(
        self, partitions: Sequence[int], sealed: Iterable[OffsetRange] = ()
    ) -> dict[int, StartOffset]:
        """Return the start offsets, given the source ranges of the committed shards.

        A partition's first start stores its horizon, with the offset from which a model reads that
        is not the active one. One that cannot be read counts as 0: what the log no longer holds is
        then missing, and nothing else stops.

        Raises:
            KafkaUnavailable: when the broker does not respond.
            ObjectStoreError: when the store does not respond or refuses.
            RepositoryError: when the active model cannot be read.
        """
        sealed = list(sealed)
        log_starts = await self._reader.begin_offsets(partitions)
        horizons: dict[int, Horizon] = {}
        new = []
        for partition in log_starts:
            try:
                stored = await self._horizons.read(partition)
            except RepositoryError as error:
                log.error("unreadable horizon: taken as 0", error=error.message)  # noqa: TRY400
                stored = Horizon("", partition, 0)
            if stored is None:
                new.append(partition)
            else:
                horizons[partition] = stored
        beside = await self._beside.starts(new) if self._beside and new else {}
        firsts = first_horizons(sealed, log_starts)
        for partition in new:
            start = beside.get(partition, LiveStart(firsts[partition], None))
            horizons[partition] = await self._horizons.keep(
                partition, start.horizon, start.live_from
            )
        return start_offsets(sealed, log_starts, horizons)


class Recovery:
    """Restores the live tier of the previous process."""

    def __init__(
        self,
        settings: IndexerSettings,
        repository: ModelRepository,
        snapshots: HiddenSnapshots,
        hidden: HiddenStore,
        hidden_bounds: LogBounds,
        reader: LogReader,
        starts: Starts,
        given_up: GivenUpOffsets,
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._snapshots = snapshots
        self._hidden = hidden
        self._hidden_bounds = hidden_bounds
        """What listings.hidden had when the store was opened."""
        self._reader = reader
        self._starts = starts
        self._given_up = given_up

    async def run(self, live: LiveTier, loop: LoopScope) -> Sequence[UnreadableShard]:
        """Open the live tier's partitions and adopt unserved shards.

        Returns the shards whose manifest cannot be read: nothing here serves their ranges.

        Raises:
            UserError: when a partition assigned to this replica does not exist.
        """
        loop.not_ready("reading manifests")
        state = await loop.retry(
            "manifests and the log's offsets",
            self._read_state,
            # A person has to decide: until then nothing is read, and /healthz says so.
            also=(RecordsLost,),
        )
        live.open_partitions(state.starts)
        for stored in state.unserved:
            loop.not_ready(f"adopting shard {stored.manifest.shard_id}")
            await self._adopt(stored, live, loop)
        return state.unreadable

    async def _read_state(self) -> RecoveryState:
        partitions = await self._assigned_partitions()
        known = await read_known_shards(self._repository, self._settings.model_id)
        # Those of manifests that cannot be read as well: reading them from the log again would end
        # at the same manifest, once they are sealed.
        starts = await self._starts.of(partitions, known.ranges)
        await self._check_nothing_was_lost(starts)
        # None if the tier's pointer cannot be read: all may be served, and adopting a year of
        # shards would delay the start for hours.
        unserved = [
            shard
            for shard in known.new
            if shard.manifest.tier == HOURLY and _precedes_open_ranges(shard, starts)
        ]
        return RecoveryState(starts, unserved, known.unreadable)

    async def _check_nothing_was_lost(self, starts: Mapping[int, StartOffset]) -> None:
        """Compare what is sealed with the begin of the log.

        What is given up is stored: until a shard after the gap is sealed, nothing else tells a later
        start that it is to go on.

        Raises:
            RecordsLost: when records were deleted before they were read, unless told to continue, now
                or at an earlier start.
        """
        for partition, start in starts.items():
            for lost in start.lost:
                # A gap before a shard is a shard that is missing: coverage reports it.
                if lost.to_offset != start.from_offset:
                    continue
                first = max(lost.from_offset, await self._given_up_below(partition))
                if first >= lost.to_offset:
                    continue
                error = lost_below(
                    VECTORS_EMBEDDED, partition, first, lost.to_offset, lost.to_offset
                )
                if self._settings.on_lost_records == "stop":
                    raise error
                try:
                    await self._given_up.give_up(partition, lost.to_offset)
                except RepositoryError as unreadable:
                    log.error("given-up offsets are not stored", error=unreadable.message)  # noqa: TRY400
                note_lost(error, VECTORS_EMBEDDED, lost.to_offset - first)

    async def _given_up_below(self, partition: int) -> int:
        try:
            return await self._given_up.below(partition)
        except RepositoryError as error:
            log.error("unreadable given-up offsets: taken as none", error=error.message)  # noqa: TRY400
            return 0

    async def _assigned_partitions(self) -> list[int]:
        return self._settings.partition_choice().of(await self._reader.partitions())

    async def _adopt(self, stored: StoredShard, live: LiveTier, loop: LoopScope) -> None:
        cache = self._settings.work_folder / "held"
        try:
            folder = await loop.retry(
                f"shard {stored.manifest.shard_id}", lambda: self._repository.fetch(stored, cache)
            )
            shard = await asyncio.to_thread(SealedShard, stored.manifest, folder)
            await self._mask(shard, loop)
        except ShashinError as error:
            if error.retryable:
                raise
            log.error(  # noqa: TRY400 - the message is enough
                "sealed shard cannot be served: its range is missing until it is fixed",
                shard=stored.manifest.shard_id,
                error=error.message,
            )
        else:
            live.adopt(shard)

    async def _mask(self, shard: SealedShard, loop: LoopScope) -> None:
        """Hide what was hidden up to where the store is: the follower reads on from there.

        Raises:
            RecordsLost: when the store has not all that came after the shard's snapshots, unless told
                to continue.
        """
        snapshots = await loop.retry(
            f"snapshots of shard {shard.shard_id}", lambda: self._snapshots.read(shard.manifest)
        )
        for key, error in snapshots.unreadable.items():
            log.error("unreadable snapshot: not used", key=key, error=error.message)
        known = replace(self._hidden_bounds, begins=self._hidden.begin.offsets)
        state = combined(shard.manifest, snapshots.by_key.values(), known.topic_id)
        lost = lost_after_snapshot(shard.shard_id, state, self._hidden.position, known)
        if lost is not None:
            if self._settings.on_lost_records == "stop":
                raise lost.error
            note_lost(lost.error, LISTINGS_HIDDEN, lost.offsets)
        shard.hide_rows(state.rows)
        await asyncio.to_thread(self._hide_known, shard)

    def _hide_known(self, shard: SealedShard) -> None:
        listing_ids = shard.listing_ids()
        for first in range(0, len(listing_ids), _LOOKED_UP_AT_ONCE):
            some = listing_ids[first : first + _LOOKED_UP_AT_ONCE]
            for listing_id, below in self._hidden.below_each(some):
                if below:
                    shard.hide(listing_id, below)


def _precedes_open_ranges(stored: StoredShard, starts: Mapping[int, StartOffset]) -> bool:
    """Whether all ranges of the shard are in our partitions and precede the open ranges."""
    return all(
        r.partition in starts and r.to_offset <= starts[r.partition].from_offset
        for r in stored.manifest.source_ranges
    )
