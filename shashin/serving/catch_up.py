"""Masks sealed shards before an index server serves them.

A shard starts with the rows that its snapshots hide, and joins: what is hidden from then on reaches it.
What was hidden between its snapshots and then, the process knows if it is recent; the rest is read
from ``listings.hidden``, once for all shards that join together. So the costs are those of the shards'
own rows and of what is new since their snapshots.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from shashin.errors import KafkaUnavailable, RecordsLost, ShashinError
from shashin.kafka.lost_records import OnLostRecords, note_lost
from shashin.kafka.records import InRecord
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.metrics import index as metrics
from shashin.offsets.log_position import LogPosition, lowest
from shashin.serving.hidden_listings import LogBounds, RecentlyHidden
from shashin.serving.hiding import entry_of
from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.format.hidden_snapshot import HiddenSnapshot, HiddenState, combined
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.visibility import HiddenEntry

_BATCH_RECORDS = 1_000


class HiddenLog(Protocol):
    """What is read of ``listings.hidden``; shashin.kafka.log_reader.LogReader in production."""

    async def topic_id(self) -> str:
        """Return the topic's id."""
        ...

    async def partitions(self) -> list[int]:
        """Return the topic's partitions."""
        ...

    async def begin_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the first offset that each partition still retains."""
        ...

    async def end_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return each partition's end."""
        ...

    def between(
        self, begins: Mapping[int, int], ends: Mapping[int, int]
    ) -> AsyncIterator[InRecord]:
        """Yield the records of each partition from its begin up to, but not including, its end."""
        ...


OpenLog = Callable[[], AbstractAsyncContextManager[HiddenLog]]


@dataclass(frozen=True)
class Joining:
    """A shard that shall be served, with its snapshots."""

    shard: SealedShard
    snapshots: Sequence[HiddenSnapshot] = ()


@dataclass(frozen=True)
class Joined:
    """Shards that now get what is newly hidden, to be served or to leave again."""

    shards: Snapshot
    refused: Mapping[str, ShashinError] = field(default_factory=dict)
    """By id, the shards that may not be served, since it is not known what is hidden of them."""
    unreadable: Mapping[int, InRecord] = field(default_factory=dict)
    """By partition, the first record that could not be read: a sold listing may now be found."""


class CatchUp:
    """Masks the shards that join the served ones."""

    def __init__(
        self,
        served: ServedShards,
        recent: RecentlyHidden,
        open_log: OpenLog,
        on_lost_records: OnLostRecords,
    ) -> None:
        self._served = served
        self._recent = recent
        self._open_log = open_log
        self._on_lost_records = on_lost_records

    @property
    def possible(self) -> bool:
        """Whether the log was reached, so that shards can join."""
        return self._recent.reached

    async def join(self, joining: Sequence[Joining]) -> Joined:
        """Mask shards up to now, and apply what is newly hidden to them from now on."""
        shards = await asyncio.to_thread(Snapshot, [one.shard for one in joining])
        self._served.join(shards)
        try:
            since, states = await asyncio.to_thread(self._mask, joining, shards)
            refused, unreadable = await self._read_what_is_older(shards, states, since)
            return Joined(shards, refused, unreadable)
        except BaseException:
            self._served.leave(shards)
            raise

    def _mask(
        self, joining: Sequence[Joining], shards: Snapshot
    ) -> tuple[LogPosition, dict[str, HiddenState]]:
        """Hide what the snapshots and the remembered entries say.

        Returns from where on these are known, and by id what the snapshots reflect.
        """
        known = self._recent.known()
        states = {}
        for one in joining:
            state = combined(one.shard.manifest, one.snapshots, known.since.topic_id)
            one.shard.hide_rows(state.rows)
            states[one.shard.shard_id] = state
        begin = lowest("", [state.position for state in states.values()])
        shards.hide_all(known.from_position(begin))
        return known.since, states

    async def _read_what_is_older(
        self, shards: Snapshot, states: Mapping[str, HiddenState], since: LogPosition
    ) -> tuple[dict[str, ShashinError], dict[int, InRecord]]:
        """Apply the records between the snapshots and what is known.

        Returns the shards refused, and the first unreadable record of each partition.
        """
        # Without a topic id, only its end can tell whether a position is one of this topic.
        behind = {
            shard_id: state
            for shard_id, state in states.items()
            if not since.topic_id or not state.position.reaches(since)
        }
        refused: dict[str, ShashinError] = {}
        unreadable: dict[int, InRecord] = {}
        if not behind:
            return refused, unreadable
        try:
            async with self._open_log() as log:
                bounds = await bounds_of(log)
                begins = []
                for shard_id, state in behind.items():
                    try:
                        begins.append(self._begin(shard_id, state, since, bounds))
                    except RecordsLost as error:
                        refused[shard_id] = error
                if begins:
                    begin = lowest(since.topic_id, begins)
                    unreadable = await apply_between(log, begin, since, shards.hide_all)
        except (KafkaUnavailable, RecordsLost) as error:
            return dict.fromkeys(behind, error), unreadable
        return refused, unreadable

    def _begin(
        self, shard_id: str, state: HiddenState, since: LogPosition, bounds: LogBounds
    ) -> LogPosition:
        """Return where the log has to be read from for a shard.

        Raises:
            RecordsLost: when the log no longer has what came after the shard's snapshots, unless
                told to continue.
        """
        lost = lost_after_snapshot(shard_id, state, since, bounds)
        if lost is not None:
            if self._on_lost_records == "stop":
                raise lost.error
            note_lost(lost.error, LISTINGS_HIDDEN, lost.offsets)
        return LogPosition(
            since.topic_id,
            {p: max(bounds.begins.get(p, 0), state.position.offset(p)) for p in since.offsets},
        )


@dataclass(frozen=True)
class Lost:
    """What a shard needs of the log, and the log no longer has."""

    error: RecordsLost
    offsets: int


def lost_after_snapshot(
    shard_id: str, state: HiddenState, until: LogPosition, bounds: LogBounds
) -> Lost | None:
    """Return what is lost of the records between a shard's snapshots and a position; None if nothing."""
    what_to_do = (
        "Restore a newer snapshot (hidden-*.roaring) in its folder, or delete its manifest so that it "
        "is sealed again; or restart with SHASHIN_ON_LOST_RECORDS=continue to serve it as it is known"
    )
    if state.of_another_topic:
        return Lost(
            RecordsLost(
                f"shard {shard_id}: its snapshots of hidden rows belong to another {LISTINGS_HIDDEN} "
                f"than the present one ({bounds.topic_id}): the topic was deleted and created again, "
                f"and what was hidden after them is unknown. {what_to_do}"
            ),
            0,
        )
    for partition in sorted({*until.offsets, *state.position.offsets}):
        offset = state.position.offset(partition)
        begin, end = bounds.begins.get(partition, 0), bounds.ends.get(partition, 0)
        if offset > end:
            return Lost(
                RecordsLost(
                    f"shard {shard_id}: its snapshots of hidden rows end at offset {offset} of "
                    f"{LISTINGS_HIDDEN}[{partition}], but the log ends at {end}: the topic was "
                    f"probably deleted and created again. {what_to_do}"
                ),
                0,
            )
        if offset < min(begin, until.offset(partition)):
            return Lost(
                RecordsLost(
                    f"shard {shard_id}: its snapshots of hidden rows end at offset {offset} of "
                    f"{LISTINGS_HIDDEN}[{partition}], but the log begins at {begin}: what was hidden "
                    f"in between is unknown. {what_to_do}"
                ),
                begin - offset,
            )
    return None


async def bounds_of(log: HiddenLog) -> LogBounds:
    """Return what ``listings.hidden`` has now.

    Raises:
        KafkaUnavailable: when the broker does not respond.
    """
    topic_id, partitions = await log.topic_id(), await log.partitions()
    return LogBounds(
        topic_id, await log.begin_offsets(partitions), await log.end_offsets(partitions)
    )


async def apply_between(
    log: HiddenLog,
    begin: LogPosition,
    end: LogPosition,
    hide_all: Callable[[Sequence[HiddenEntry]], object],
) -> dict[int, InRecord]:
    """Apply the records between two positions, in batches that other threads parse and hide.

    Returns the first record of each partition that could not be read: reading on is right, since
    order does not matter, but what it hid may now be found.

    Raises:
        KafkaUnavailable: when the broker does not respond.
        RecordsLost: when the log no longer has a position.
    """
    batch: list[InRecord] = []
    unreadable: dict[int, InRecord] = {}
    begins = {p: begin.offset(p) for p in end.offsets}

    def apply(records: Sequence[InRecord]) -> None:
        parsed = map(entry_of, records)
        hide_all([entry for entry, _ in filter(None, parsed)])

    async for record in log.between(begins, end.offsets):
        if record.problem:
            metrics.BAD_HIDDEN_RECORDS.inc()
            unreadable.setdefault(record.partition, record)
        else:
            batch.append(record)
        if len(batch) >= _BATCH_RECORDS:
            await asyncio.to_thread(apply, batch)
            batch = []
    await asyncio.to_thread(apply, batch)
    return unreadable
