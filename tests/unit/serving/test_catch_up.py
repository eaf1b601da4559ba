"""Masks of joining shards: what snapshots, recent records and the log tell together is a dictionary."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import KafkaUnavailable, RecordsLost
from shashin.offsets.log_position import LogPosition
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.serving.catch_up import CatchUp, Joined, Joining
from shashin.serving.hidden_listings import HiddenListings, LogBounds, RecentlyHidden
from shashin.serving.hiding import Hiding
from shashin.serving.served_shards import ServedShards
from shashin.serving.snapshot_renewal import Renewed, SnapshotRenewal
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.visibility import HiddenEntry
from shashin.v1 import events_pb2
from tests.support.hidden_log import MemoryLog
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import WatchedStore, commit, new_row, open_shard

LISTINGS = ["lamp", "chair", "mug", "hat"]
SHARDS = [
    [("lamp", 1), ("chair", 1), ("lamp", 2)],
    [("mug", 1), ("lamp", 3), ("chair", 2)],
    [("hat", 1), ("mug", 2), ("mug", 3), ("chair", 3)],
]
DEADLINE_SECONDS = 2.0


class Repository:
    """Three sealed shards in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = WatchedStore(folder / "store")
        self.repository = ModelRepository(self.store)
        self.snapshots = HiddenSnapshots(self.store)
        self.shards: list[StoredShard] = []

    async def seal(self) -> None:
        offset = 0
        for rows in SHARDS:
            shard = open_shard([new_row(*row) for row in rows], from_offset=offset)
            offset += len(rows)
            self.shards.append(await commit(self.repository, shard, self.folder / "scratch"))

    async def forget_snapshots(self) -> None:
        for stored in self.shards:
            found = await self.snapshots.read(stored.manifest)
            await self.snapshots.delete([*found.by_key, *found.unreadable])

    async def joining(self, number: int) -> Joining:
        stored = self.shards[number]
        folder = await self.repository.fetch(stored, self.folder / "cache")
        found = await self.snapshots.read(stored.manifest)
        shard = SealedShard(stored.manifest, folder)
        return Joining(shard, tuple(found.by_key.values()))

    async def write_snapshot(self, number: int, hidden: HiddenMap, position: LogPosition) -> None:
        """Write what an indexer writes that sealed the shard."""
        manifest = self.shards[number].manifest
        rows = [i for i, row in enumerate(SHARDS[number]) if not hidden.visible(*row)]
        numbers = np.array(rows, dtype=np.uint32)
        snapshot = HiddenSnapshot(manifest.shard_id, manifest.rows_sha256, numbers, position, 0.0)
        await self.snapshots.write(manifest, snapshot)

    async def renew(self, log: MemoryLog, numbers: Sequence[int], rows_at_once: int) -> Renewed:
        renewal = SnapshotRenewal(
            self.repository,
            self.snapshots,
            log.opened,
            self.folder / "renewal",
            rows_at_once=rows_at_once,
        )
        return await renewal.renew([self.shards[number] for number in numbers])


@pytest.fixture(scope="module")
def sealed() -> Iterator[Repository]:
    with tempfile.TemporaryDirectory() as folder:
        made = Repository(Path(folder))
        asyncio.run(made.seal())
        yield made


@pytest.fixture
async def repository(sealed: Repository) -> Repository:
    await sealed.forget_snapshots()
    return sealed


class Follower:
    """What the follower's loop does, without Kafka."""

    def __init__(self, log: MemoryLog, hidden: HiddenListings, served: ServedShards) -> None:
        self.now = 0.0
        self.log, self.hidden, self.served = log, hidden, served
        self.hiding = Hiding(superseded_after_seconds=DEADLINE_SECONDS, clock=lambda: self.now)
        self.applied = hidden.open_at(log.bounds())
        self.read = dict(self.applied.offsets)

    def follow(self, at_most: int) -> None:
        for partition, records in self.log.records.items():
            new = [r for r in records if r.offset >= self.read[partition]][:at_most]
            self.served.supersede_all(self.hiding.take(new, delay_updates=True))
            if new:
                self.read[partition] = new[-1].offset + 1
        self.apply_due()

    def apply_due(self) -> None:
        due = self.hiding.due()
        reached = LogPosition(self.log.id, self.hiding.applied(self.read))
        self.hidden.note(due, reached)
        self.served.hide_all(due)
        self.applied = reached


class KeptMap:
    """What an indexer's store is: it survives restarts with its position."""

    def __init__(self) -> None:
        self.map = HiddenMap()
        self.position: LogPosition | None = None

    def __len__(self) -> int:
        return len(self.map)

    def open_at(self, bounds: LogBounds) -> LogPosition:
        return self.position or LogPosition(bounds.topic_id, dict(bounds.begins))

    def note(self, entries: Sequence[HiddenEntry], position: LogPosition) -> None:
        for entry in entries:
            self.map.raise_to(entry.listing_id, entry.below_version)
        self.position = position


class Server:
    """An index server: what it serves and how it follows."""

    def __init__(self, repository: Repository, log: MemoryLog, limit: int) -> None:
        self.repository = repository
        self.served, self.recent = ServedShards(), RecentlyHidden(limit)
        self.follower = Follower(log, self.recent, self.served)
        self.catch_up = CatchUp(self.served, self.recent, log.opened, "stop")

    async def swap(self, numbers: set[int]) -> Joined:
        served = {shard.shard_id: shard for shard in self.served.snapshot().shards}
        wanted = {self.repository.shards[n].manifest.shard_id for n in numbers}
        joining = [
            await self.repository.joining(n)
            for n in sorted(numbers)
            if self.repository.shards[n].manifest.shard_id not in served
        ]
        joined = await self.catch_up.join(joining)
        masked = [one.shard for one in joining if one.shard.shard_id not in joined.refused]
        self.served.serve([*(s for i, s in served.items() if i in wanted), *masked])
        self.served.leave(joined.shards)
        return joined

    def visible(self) -> set[tuple[str, int]]:
        return {
            (row.listing_id, row.version)
            for shard in self.served.snapshot().shards
            for listing in LISTINGS
            for _, row in shard.visible_rows_of(listing)
        }


RECORD = st.tuples(
    st.just("record"), st.sampled_from(LISTINGS), st.integers(1, 4), st.integers(0, 3)
)
SWAP = st.tuples(st.just("swap"), st.integers(0, 7), st.just(0), st.just(0))
STEPS = st.lists(
    # Long, since most ghosts need a record, a snapshot, a restart and a swap, in this order.
    st.one_of(
        RECORD,
        RECORD,
        RECORD,
        SWAP,
        SWAP,
        st.tuples(st.just("snapshot"), st.integers(0, 2), st.just(0), st.just(0)),
        st.tuples(st.just("renew"), st.integers(0, 7), st.integers(1, 12), st.just(0)),
        st.tuples(st.just("server follows"), st.integers(1, 3), st.just(0), st.just(0)),
        st.tuples(st.just("indexer follows"), st.integers(1, 3), st.just(0), st.just(0)),
        st.tuples(st.just("time passes"), st.integers(1, 3), st.just(0), st.just(0)),
        st.tuples(st.just("server restarts"), st.integers(0, 4), st.just(0), st.just(0)),
        st.tuples(st.just("indexer restarts"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("retention"), st.just(0), st.just(0), st.just(0)),
    ),
    min_size=25,
    max_size=50,
)


def chosen(bits: int) -> set[int]:
    return {number for number in range(3) if bits >> number & 1}


class World:
    """A log, an indexer that writes snapshots, an index server, and a dictionary."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.log = MemoryLog()
        self.below: dict[str, int] = {}
        self.kept = KeptMap()
        self.indexer = Follower(self.log, self.kept, ServedShards())
        self.server = Server(repository, self.log, limit=3)
        self.pointed: set[int] = set()

    async def step(  # noqa: C901
        self, what: str, one: object, two: int, three: int
    ) -> None:
        number = one if isinstance(one, int) else 0
        match what:
            case "record":
                self._hide(str(one), two, partition=three % 2, superseded=three >= 2)
            case "snapshot":
                await self.repository.write_snapshot(number, self.kept.map, self.indexer.applied)
            case "renew":
                renewed = await self.repository.renew(self.log, sorted(chosen(number)), two)
                assert renewed.refused == {}
            case "swap":
                self.pointed = chosen(number)
                assert (await self.server.swap(self.pointed)).refused == {}
            case "server follows":
                self.server.follower.follow(number)
            case "indexer follows":
                self.indexer.follow(number)
            case "time passes":
                self._pass(number)
            case "server restarts":
                self.server = Server(self.repository, self.log, limit=number)
                await self.server.swap(self.pointed)
            case "indexer restarts":
                self.indexer = Follower(self.log, self.kept, ServedShards())
            case "retention":
                await self._delete_what_nobody_needs()

    def _hide(self, listing: str, below: int, *, partition: int, superseded: bool) -> None:
        reason = (
            events_pb2.HIDDEN_REASON_SUPERSEDED if superseded else events_pb2.HIDDEN_REASON_SOLD
        )
        self.log.append(listing, below, partition=partition, reason=reason)
        self.below[listing] = max(below, self.below.get(listing, 0))

    def _pass(self, seconds: int) -> None:
        for follower in (self.server.follower, self.indexer):
            follower.now += seconds
            follower.apply_due()

    async def _delete_what_nobody_needs(self) -> None:
        """Delete as much as a retention may that suffices for the snapshots there are."""
        for partition in self.log.records:
            needed = min(
                self.indexer.applied.offset(partition), self.server.follower.read[partition]
            )
            for stored in self.repository.shards:
                found = await self.repository.snapshots.read(stored.manifest)
                reflected = [s.position.offset(partition) for s in found.by_key.values()]
                needed = min(needed, max(reflected, default=0))
            self.log.delete_before(partition, max(needed, self.log.begins[partition]))

    def check(self) -> None:
        """Let everything be read, and compare what is visible with the dictionary."""
        follower = self.server.follower
        follower.follow(1_000)
        follower.now += DEADLINE_SECONDS
        follower.apply_due()
        assert self.server.visible() == {
            row
            for number in self.pointed
            for row in SHARDS[number]
            if row[1] >= self.below.get(row[0], 0)
        }


def test_after_any_records_snapshots_swaps_restarts_and_retention_the_visible_rows_are_the_dictionary_s(
    sealed: Repository,
) -> None:
    @settings(deadline=None, max_examples=60)
    @given(STEPS)
    def in_any_order(steps: list[tuple[str, object, int, int]]) -> None:
        async def run() -> None:
            await sealed.forget_snapshots()
            world = World(sealed)
            for step in steps:
                await world.step(*step)
                if step[0] in {"swap", "server restarts"}:
                    world.check()
            world.check()

        asyncio.run(run())

    in_any_order()


def fill(log: MemoryLog, records: int) -> None:
    for number in range(records):
        log.append(f"someone-else-{number}", 2, partition=number % 2)


async def hidden_at(
    repository: Repository, number: int, log: MemoryLog, *entries: HiddenEntry
) -> None:
    """Write a snapshot as of the log's end now."""
    hidden = HiddenMap()
    for entry in entries:
        hidden.raise_to(entry.listing_id, entry.below_version)
    await repository.write_snapshot(number, hidden, LogPosition(log.id, log.bounds().ends))


async def test_a_start_reads_only_what_came_after_the_oldest_snapshot(
    repository: Repository,
) -> None:
    log = MemoryLog()
    log.append("lamp", 2)
    fill(log, 500)
    await hidden_at(repository, 0, log, HiddenEntry("lamp", 2))
    log.append("chair", 2)
    await hidden_at(repository, 1, log, HiddenEntry("lamp", 2), HiddenEntry("chair", 2))
    log.append("mug", 2, partition=1)
    server = Server(repository, log, limit=100)
    await server.swap({0, 1})
    assert server.visible() == {("lamp", 2), ("lamp", 3), ("chair", 2)}
    assert log.read == 2


async def test_a_shard_that_joins_with_a_recent_snapshot_reads_nothing_even_without_kafka(
    repository: Repository,
) -> None:
    log = MemoryLog()
    fill(log, 50)
    server = Server(repository, log, limit=100)
    await hidden_at(repository, 0, log)
    log.append("lamp", 2)
    server.follower.follow(1_000)
    log.down = True
    await server.swap({0})
    assert server.visible() == {("chair", 1), ("lamp", 2)}
    assert log.read == 0


async def test_a_shard_that_needs_the_log_waits_for_kafka_and_the_others_are_served(
    repository: Repository,
) -> None:
    log = MemoryLog()
    log.append("mug", 2)
    await hidden_at(repository, 0, log)
    server = Server(repository, log, limit=100)
    log.down = True
    joined = await server.swap({0, 1})
    ((shard_id, error),) = joined.refused.items()
    assert shard_id == repository.shards[1].manifest.shard_id
    assert isinstance(error, KafkaUnavailable)
    assert server.visible() == set(SHARDS[0])
    log.down = False
    assert (await server.swap({0, 1})).refused == {}
    assert server.visible() == {*SHARDS[0], ("lamp", 3), ("chair", 2)}


async def test_a_damaged_or_missing_snapshot_costs_a_longer_reading_and_no_ghost(
    repository: Repository,
) -> None:
    log = MemoryLog()
    log.append("lamp", 2)
    fill(log, 20)
    await hidden_at(repository, 0, log, HiddenEntry("lamp", 2))
    manifest = repository.shards[0].manifest
    (key,) = (await repository.snapshots.read(manifest)).by_key
    await repository.store.write(key, b"damaged")
    server = Server(repository, log, limit=100)
    assert (await server.swap({0, 2})).refused == {}
    assert server.visible() == {("chair", 1), ("lamp", 2), *SHARDS[2]}
    assert log.read == 21


async def lost(server: Server, number: int) -> str:
    ((shard_id, error),) = (await server.swap({0, 1, 2})).refused.items()
    assert shard_id == server.repository.shards[number].manifest.shard_id
    assert isinstance(error, RecordsLost)
    return error.message


async def test_a_shard_whose_offsets_retention_has_deleted_is_named_with_the_gap_and_not_served(
    repository: Repository,
) -> None:
    log = MemoryLog()
    fill(log, 20)
    await hidden_at(repository, 0, log)
    fill(log, 20)
    for number in (1, 2):
        await hidden_at(repository, number, log)
    log.delete_before(0, 15)
    server = Server(repository, log, limit=100)
    message = await lost(server, 0)
    assert "end at offset 10 of listings.hidden[0], but the log begins at 15" in message
    assert server.visible() == {*SHARDS[1], *SHARDS[2]}


async def test_a_shard_without_a_snapshot_is_not_served_once_the_log_has_lost_its_beginning(
    repository: Repository,
) -> None:
    log = MemoryLog()
    fill(log, 20)
    for number in (0, 2):
        await hidden_at(repository, number, log)
    log.delete_before(1, 3)
    server = Server(repository, log, limit=100)
    assert "end at offset 0 of listings.hidden[1], but the log begins at 3" in await lost(server, 1)


async def test_a_recreated_topic_is_noticed_though_it_has_the_offsets_of_the_snapshots(
    repository: Repository,
) -> None:
    log = MemoryLog()
    fill(log, 20)
    await hidden_at(repository, 0, log, HiddenEntry("lamp", 2))
    log.recreate("second")
    fill(log, 60)
    for number in (1, 2):
        await hidden_at(repository, number, log)
    log.append("chair", 2)
    server = Server(repository, log, limit=100)
    assert "belong to another listings.hidden than the present one (second)" in await lost(
        server, 0
    )


async def test_a_topic_without_an_id_that_ends_before_a_snapshot_was_recreated(
    repository: Repository,
) -> None:
    log = MemoryLog(id="")
    fill(log, 20)
    await hidden_at(repository, 0, log)
    log.recreate("")
    for number in (1, 2):
        await hidden_at(repository, number, log)
    server = Server(repository, log, limit=100)
    assert "but the log ends at 0" in await lost(server, 0)


async def test_told_to_continue_it_serves_what_is_known_of_a_shard(
    repository: Repository,
) -> None:
    log = MemoryLog()
    await hidden_at(repository, 0, log, HiddenEntry("lamp", 2))
    fill(log, 40)
    log.append("chair", 2)
    log.delete_before(0, 15)
    server = Server(repository, log, limit=100)
    server.catch_up = CatchUp(server.served, server.recent, log.opened, "continue")
    assert (await server.swap({0})).refused == {}
    assert server.visible() == {("lamp", 2)}


async def test_a_build_that_left_hidden_rows_out_counts_as_a_snapshot(
    repository: Repository,
) -> None:
    log = MemoryLog()
    fill(log, 20)
    log.append("lamp", 2)
    joining = await repository.joining(0)
    joining.shard.manifest = replace(joining.shard.manifest, hidden_offsets={"0": 10, "1": 10})
    server = Server(repository, log, limit=100)
    joined = await server.catch_up.join([joining])
    server.served.serve(joined.shards)
    assert server.visible() == {("chair", 1), ("lamp", 2)}
    assert log.read == 1


async def test_a_shard_that_leaves_gets_nothing_more(repository: Repository) -> None:
    log = MemoryLog()
    server = Server(repository, log, limit=100)
    joined = await server.catch_up.join([await repository.joining(0)])
    server.served.leave(joined.shards)
    log.append("lamp", 9)
    server.follower.follow(10)
    (shard,) = joined.shards.shards
    assert shard.hidden_rows == 0


async def test_renewing_reads_what_is_new_once_and_deletes_what_it_replaces(
    repository: Repository,
) -> None:
    log = MemoryLog()
    fill(log, 30)
    for number in range(3):
        await hidden_at(repository, number, log)
    log.append("lamp", 3)
    fill(log, 4)
    renewed = await repository.renew(log, [0, 1, 2], 1_000)
    assert list(renewed.hidden_rows.values()) == [2, 0, 0]
    assert log.read == 5
    for stored in repository.shards:
        (snapshot,) = (await repository.snapshots.read(stored.manifest)).by_key.values()
        assert snapshot.position == LogPosition(log.id, log.bounds().ends)
    again = await repository.renew(log, [0, 1, 2], 1_000)
    assert (len(again.unchanged), again.hidden_rows, log.read) == (3, {}, 5)


async def test_renewing_refuses_a_shard_that_it_knows_too_little_of_and_goes_on(
    repository: Repository,
) -> None:
    log = MemoryLog()
    fill(log, 20)
    await hidden_at(repository, 0, log)
    log.delete_before(0, 5)
    log.append("lamp", 2)
    renewed = await repository.renew(log, [0, 1], 1_000)
    assert list(renewed.hidden_rows.values()) == [1]
    assert list(renewed.refused) == [repository.shards[1].manifest.shard_id]


async def test_no_snapshot_passes_a_record_that_could_not_be_read(repository: Repository) -> None:
    log = MemoryLog()
    fill(log, 4)
    damaged = log.append("lamp", 2, problem="the record is damaged")
    log.append("chair", 2)
    server = Server(repository, log, limit=100)
    joined = await server.swap({0})
    assert joined.unreadable == {0: damaged}
    assert server.visible() == {("lamp", 1), ("lamp", 2)}, "what can be read is applied"
    renewed = await repository.renew(log, [0], 1_000)
    assert renewed.unreadable == ["listings.hidden[0]@2: the record is damaged"]
    # Another replica of the broker has it whole.
    log.records[0][2] = replace(damaged, problem="")
    server = Server(repository, log, limit=100)
    await server.swap({0})
    assert server.visible() == {("lamp", 2)}
