"""Renews the snapshots of shards' hidden rows, so that starts read little of ``listings.hidden``.

Costs are those of the shards' own rows and of what is new since their snapshots. It has to run within
the topic's retention: a shard whose snapshot is older than the log cannot be served any more.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shashin.errors import CorruptShard, ShashinError
from shashin.kafka.lost_records import OnLostRecords, note_lost
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.offsets.log_position import LogPosition, lowest
from shashin.repository.hidden_snapshots import HiddenSnapshots, StoredSnapshots
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.serving.catch_up import (
    HiddenLog,
    OpenLog,
    apply_between,
    bounds_of,
    lost_after_snapshot,
)
from shashin.serving.hidden_listings import LogBounds
from shashin.serving.hiding import first_offset
from shashin.serving.served_shards import hashes_of
from shashin.shards.format.hidden_snapshot import (
    HiddenSnapshot,
    combined,
)
from shashin.shards.format.manifest import ROWS_FILE
from shashin.shards.format.rows_file import SealedRows
from shashin.shards.listing_index import Hashes, ListingIndex
from shashin.shards.masked_rows import MaskedRows
from shashin.shards.visibility import HiddenEntry

ROWS_AT_ONCE = 50_000_000
"""Shards with so many rows together share one reading of the log; about 20 bytes of memory per row."""


@dataclass
class Renewed:
    """What a renewal did, by shard."""

    hidden_rows: dict[str, int] = field(default_factory=dict)
    """Of each shard whose snapshot was written."""
    unchanged: list[str] = field(default_factory=list)
    """Shards whose snapshot is that of the log's end already."""
    refused: dict[str, ShashinError] = field(default_factory=dict)
    """Shards of which it is not known what is hidden, or that cannot be read."""
    unreadable: list[str] = field(default_factory=list)
    """Records that could not be read: the snapshots end before them."""

    @property
    def whole(self) -> bool:
        """Whether nothing was refused or unreadable."""
        return not self.refused and not self.unreadable


@dataclass(frozen=True)
class _Shard:
    """A shard's rows, without its index."""

    stored: StoredShard
    masked: MaskedRows
    listing_hashes: Hashes
    snapshots: StoredSnapshots
    begin: LogPosition
    """Where the log has to be read from."""


class SnapshotRenewal:
    """Writes new snapshots of shards."""

    def __init__(
        self,
        repository: ModelRepository,
        snapshots: HiddenSnapshots,
        open_log: OpenLog,
        scratch: Path,
        *,
        on_lost_records: OnLostRecords = "stop",
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        self._repository = repository
        self._snapshots = snapshots
        self._open_log = open_log
        self._scratch = scratch
        self._on_lost_records = on_lost_records
        self._rows_at_once = rows_at_once

    async def renew(
        self, shards: Sequence[StoredShard], on_progress: Callable[[int], None] = lambda _done: None
    ) -> Renewed:
        """Write a snapshot of each shard as of the log's end now, and delete those before it.

        ``on_progress`` is called with the number of shards that are done. A shard that cannot be read
        stops no other.

        Raises:
            KafkaUnavailable: when the broker does not respond.
            ObjectStoreError: when the store does not respond or refuses.
        """
        renewed = Renewed()
        done = 0
        async with self._open_log() as log:
            bounds = await bounds_of(log)
            for some in _in_passes(shards, self._rows_at_once):
                await self._renew_some(some, log, bounds, renewed)
                done += len(some)
                on_progress(done)
        return renewed

    async def _renew_some(
        self, shards: Sequence[StoredShard], log: HiddenLog, bounds: LogBounds, renewed: Renewed
    ) -> None:
        end = LogPosition(bounds.topic_id, bounds.ends)
        opened = await self._open_all(shards, end, bounds, renewed)
        if not opened:
            return
        index = await asyncio.to_thread(ListingIndex[_Shard]().over, opened)

        def hide_all(entries: Sequence[HiddenEntry]) -> None:
            for position, shard in index.matches(hashes_of(entries)):
                shard.masked.hide(entries[position].listing_id, entries[position].below_version)

        begin = lowest(bounds.topic_id, [shard.begin for shard in opened])
        for partition, record in (await apply_between(log, begin, end, hide_all)).items():
            renewed.unreadable.append(f"{record}: {record.problem}")
            # Readers read it again: another replica of the broker may have it whole.
            offsets = {**end.offsets, partition: min(first_offset(record), end.offset(partition))}
            end = replace(end, offsets=offsets)
        for shard in opened:
            await self._write(shard, end)
            folder = self._scratch / shard.stored.manifest.shard_id
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            renewed.hidden_rows[shard.stored.manifest.shard_id] = shard.masked.hidden

    async def _open_all(
        self, shards: Sequence[StoredShard], end: LogPosition, bounds: LogBounds, renewed: Renewed
    ) -> list[_Shard]:
        """Return the shards to renew, and note the others."""
        opened = []
        for stored in shards:
            shard_id = stored.manifest.shard_id
            try:
                shard = await self._open(stored, end, bounds)
            except ShashinError as error:
                if error.retryable:
                    raise
                renewed.refused[shard_id] = error
            else:
                if shard is None:
                    renewed.unchanged.append(shard_id)
                else:
                    opened.append(shard)
        return opened

    async def _open(
        self, stored: StoredShard, end: LogPosition, bounds: LogBounds
    ) -> _Shard | None:
        """Read a shard's rows and snapshots; None if there is nothing to do.

        Raises:
            RecordsLost: when the log no longer has what came after its snapshots, unless told to
                continue.
            RepositoryError: when the rows cannot be read.
        """
        manifest = stored.manifest
        snapshots = await self._snapshots.read(manifest)
        state = combined(manifest, snapshots.by_key.values(), bounds.topic_id)
        lost = lost_after_snapshot(manifest.shard_id, state, end, bounds)
        if lost is not None:
            if self._on_lost_records == "stop":
                raise lost.error
            note_lost(lost.error, LISTINGS_HIDDEN, lost.offsets)
        elif state.position.offsets and state.position.reaches(end) and len(snapshots.by_key) == 1:
            return None
        folder = await self._repository.fetch(stored, self._scratch, names={ROWS_FILE})
        rows = await asyncio.to_thread(SealedRows, folder / ROWS_FILE)
        masked = MaskedRows(rows)
        masked.hide_rows(state.rows)
        begin = {
            p: max(bounds.begins.get(p, 0), min(state.position.offset(p), offset))
            for p, offset in end.offsets.items()
        }
        return _Shard(
            stored, masked, rows.sorted_hashes, snapshots, LogPosition(bounds.topic_id, begin)
        )

    async def _write(self, shard: _Shard, end: LogPosition) -> None:
        manifest = shard.stored.manifest
        written = await self._snapshots.write(
            manifest,
            HiddenSnapshot(
                manifest.shard_id,
                manifest.rows_sha256,
                shard.masked.hidden_rows(),
                end,
                time.time(),
            ),
        )
        # Those of a newer format stay: their reader knows better.
        damaged = {
            key
            for key, error in shard.snapshots.unreadable.items()
            if isinstance(error, CorruptShard)
        }
        await self._snapshots.delete({*shard.snapshots.by_key, *damaged} - {written})


def _in_passes(shards: Sequence[StoredShard], rows: int) -> Iterator[list[StoredShard]]:
    some: list[StoredShard] = []
    for stored in shards:
        if some and sum(s.manifest.rows for s in some) + stored.manifest.rows > rows:
            yield some
            some = []
        some.append(stored)
    if some:
        yield some
