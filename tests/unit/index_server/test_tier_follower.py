"""TierFollower over a real repository: serving, rejecting, retrying and evicting shards."""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pytest

from services.index_server.settings import IndexServerSettings
from services.index_server.swap import INITIAL_RETRY_SECONDS, MAX_RETRY_SECONDS, ShardSwapper
from services.index_server.tier import TierFollower
from shashin.errors import ObjectStoreUnavailable
from shashin.objectstore.protocol import ObjectInfo, Version
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import OffsetRange
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.pointer import PointedShard, Pointer, pointer_key
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.health import Health
from shashin.runtime.work_folder import MARKER, WorkFolder, mark_work_folder
from shashin.serving.catch_up import CatchUp
from shashin.serving.hidden_listings import RecentlyHidden
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import ROWS_FILE
from shashin.shards.format.shard_id import shard_id
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE
from shashin.shards.row_filter import RowFilter
from shashin.tiers import HOURLY
from tests.support.hidden_log import MemoryLog, catch_up_of
from tests.support.loops import running
from tests.support.made_shards import (
    DIMENSIONS,
    MODEL,
    WatchedStore,
    commit,
    listings,
    object_key,
    open_shard,
    vector_of,
)
from tests.support.searching import search_shards
from tests.support.waiting import until

SECOND = OffsetRange(0, 5, 9)
"""What the second shard of a test covers."""


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Store(WatchedStore):
    """A store that can be unavailable or slow."""

    down = False
    refused = 0
    download_seconds = 0.0

    def __init__(self, root: Path, clock: Clock, health: Health) -> None:
        super().__init__(root)
        self._clock = clock
        self._health = health
        self.problems: list[str] = []
        """Liveness problems during downloads."""

    async def stat(self, key: str) -> ObjectInfo:
        self._check_available()
        return await super().stat(key)

    async def read(self, key: str) -> tuple[bytes, Version]:
        self._check_available()
        return await super().read(key)

    def _check_available(self) -> None:
        if self.down:
            self.refused += 1
            raise ObjectStoreUnavailable("the store is down")

    async def download(self, key: str, path: Path) -> None:
        self._clock.now += self.download_seconds
        self.problems += self._health.liveness_problems()
        await super().download(key, path)


class Tier:
    """A repository and the index server that follows its hourly tier."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.clock = Clock()
        self.health = Health(clock=self.clock)
        self.health.ready_when_degraded = True
        self.store = Store(folder / "store", self.clock, self.health)
        self.repository = ModelRepository(self.store)
        self.served = ServedShards()
        self.hidden_log = MemoryLog()
        self.catch_up = catch_up_of(self.served, self.hidden_log)
        self.snapshots = HiddenSnapshots(self.store)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        settings = IndexServerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository=(self.folder / "store").as_uri(),
            work_folder=self.cache,
            poll_seconds=0.001,
        )
        with closing(WorkFolder(self.cache)) as work:
            swapper = ShardSwapper(
                settings.space, HOURLY, self.served, self.snapshots, self.catch_up, clock=self.clock
            )
            follower = TierFollower(settings, work, self.repository, swapper)
            async with running(follower.loop(), health=self.health):
                yield

    async def sealed(self, begin: int, end: int, **changes: object) -> StoredShard:
        shard = open_shard(listings(begin, end), from_offset=begin)
        return await commit(self.repository, shard, self.folder / "scratch", **changes)

    async def point_to(self, *shards: StoredShard) -> None:
        _, version = await self.repository.read_pointer(MODEL, HOURLY)
        named = tuple(PointedShard.of(s.manifest) for s in shards)
        await self.repository.move_pointer(Pointer(MODEL, HOURLY, named), over=version)

    async def damage(self, shard: StoredShard, name: str = ROWS_FILE) -> bytes:
        """Overwrite a file of a shard; returns its original content."""
        key = object_key(shard, name)
        whole, _ = await self.store.read(key)
        await self.store.write(key, b"damaged")
        return whole

    async def serves(self, *shards: StoredShard) -> None:
        """Wait until exactly these shards are served."""
        expected = [s.manifest.shard_id for s in shards]
        await until(lambda: self.ids() == expected, f"{expected} are served")

    async def several_polls(self) -> None:
        """Wait for a few more iterations of the follower."""
        reads = self.pointer_reads()
        await until(lambda: self.pointer_reads() > reads + 5, "the follower polls the pointer")

    def pointer_reads(self) -> int:
        key = pointer_key(MODEL, HOURLY)
        return self.store.stats.count(key) + self.store.reads.count(key)

    async def attempted(self, shard: StoredShard, times: int) -> None:
        await until(lambda: self.attempts(shard) == times, f"{times} attempts are made")
        # The next attempt is scheduled only after this one has failed.
        await self.several_polls()

    def ids(self) -> list[str]:
        return [shard.shard_id for shard in self.served.snapshot().shards]

    def attempts(self, shard: StoredShard, name: str = ROWS_FILE) -> int:
        return self.store.downloads.count(object_key(shard, name))

    def finds(self, listing: str) -> bool:
        query = vector_of(listing)[None, :]
        (hits,) = search_shards(self.served.snapshot().shards, query, 1, RowFilter())
        return [hit.row.listing_id for hit in hits] == [listing]

    def cached(self) -> set[str]:
        return {path.name for path in self.cache.glob("*") if path.name != MARKER}


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    return Tier(tmp_path)


async def test_without_a_pointer_it_is_ready_and_serves_nothing(tier: Tier) -> None:
    async with tier.followed():
        await until(lambda: not tier.health.readiness_problems(), "it is ready")
        assert tier.ids() == []


async def test_it_is_ready_once_the_shards_in_the_pointer_are_served(tier: Tier) -> None:
    first, second = await tier.sealed(0, 5), await tier.sealed(5, 9)
    unnamed = await tier.sealed(9, 12)
    await tier.point_to(first, second)
    async with tier.followed():
        await until(lambda: not tier.health.readiness_problems(), "it is ready")
        assert tier.ids() == [first.manifest.shard_id, second.manifest.shard_id]
        assert all(tier.finds(f"listing-{n}") for n in range(9))
        assert not tier.finds("listing-10")
        await tier.point_to(first, second, unnamed)
        await tier.serves(first, second, unnamed)
        assert tier.finds("listing-10")
    assert tier.attempts(first) == 1, "served shards are not fetched again"


async def test_an_unchanged_pointer_is_not_read_again_and_a_changed_one_is(tier: Tier) -> None:
    first, second = await tier.sealed(0, 5), await tier.sealed(5, 9)
    await tier.point_to(first)
    tier.store.reads.clear()
    async with tier.followed():
        await tier.serves(first)
        await tier.several_polls()
        read_count = tier.store.reads.count(pointer_key(MODEL, HOURLY))
        await tier.point_to(first, second)
        await tier.serves(first, second)
    assert read_count <= 1


async def test_rows_hidden_earlier_are_hidden_in_new_shards(tier: Tier) -> None:
    stored = await tier.sealed(0, 5)
    tier.hidden_log.append("listing-2", 2)
    tier.catch_up = catch_up_of(tier.served, tier.hidden_log)
    await tier.point_to(stored)
    async with tier.followed():
        await tier.serves(stored)
    assert not tier.finds("listing-2")
    assert tier.finds("listing-3")


async def test_the_folder_of_a_shard_that_left_the_pointer_is_deleted(
    tier: Tier,
) -> None:
    parents = [await tier.sealed(0, 5), await tier.sealed(5, 9)]
    await tier.point_to(*parents)
    async with tier.followed():
        await tier.serves(*parents)
        snapshot_shards = tier.served.snapshot().shards
        assert tier.cached() == set(tier.ids())
        await tier.point_to(parents[1])
        await until(lambda: tier.cached() == {parents[1].manifest.shard_id}, "its folder is gone")
        assert tier.ids() == [parents[1].manifest.shard_id]
        # A search that started before continues on the unlinked file.
        query = vector_of("listing-2")[None, :]
        (hits,) = search_shards(snapshot_shards, query, 1, RowFilter())
        assert hits[0].row.listing_id == "listing-2"


async def test_what_is_dropped_is_unmapped_in_another_thread(tier: Tier) -> None:
    parents, child = [await tier.sealed(0, 5), await tier.sealed(5, 9)], await tier.sealed(9, 12)
    await tier.point_to(*parents)
    freed_in: list[int] = []
    async with tier.followed():
        await tier.serves(*parents)
        for shard in tier.served.snapshot().shards:
            weakref.finalize(shard, lambda: freed_in.append(threading.get_ident()))
        del shard
        await tier.point_to(child)
        await until(lambda: len(freed_in) == len(parents), "both are freed")
    assert threading.get_ident() not in freed_in


async def test_folders_of_an_earlier_process_are_deleted_and_foreign_ones_stay(
    tier: Tier,
) -> None:
    old, new = await tier.sealed(0, 5), await tier.sealed(5, 9)
    await tier.repository.fetch(old, tier.cache)
    (tier.cache / "unrelated").mkdir()
    mark_work_folder(tier.cache)
    await tier.point_to(new)
    async with tier.followed():
        await tier.serves(new)
        expected = {new.manifest.shard_id, "unrelated"}
        await until(lambda: tier.cached() == expected, "the old folder is gone")


async def test_a_restart_uses_intact_cached_files(tier: Tier) -> None:
    stored = await tier.sealed(0, 5)
    await tier.point_to(stored)
    for _ in range(2):
        async with tier.followed():
            await tier.serves(stored)
        tier.served.serve([])
    assert len(tier.store.downloads) == 2, "each file once"


@pytest.mark.parametrize("name", [INDEX_FILE, ROWS_FILE])
async def test_a_corrupt_shard_is_rejected_until_fixed_and_the_others_are_served(
    tier: Tier, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, good, bad = [await tier.sealed(*bounds) for bounds in ((0, 5), (5, 9), (9, 12))]
    await tier.point_to(old)
    async with tier.followed():
        await tier.serves(old)
        whole = await tier.damage(bad, name)
        await tier.point_to(good, bad)
        await tier.serves(good, old)
        assert tier.finds("listing-2"), "no shard is removed while a new one is missing"
        await tier.store.write(object_key(bad, name), whole)
        tier.clock.now += MAX_RETRY_SECONDS
        await tier.serves(good, bad)
        assert tier.finds("listing-10")
        await until(lambda: old.manifest.shard_id not in tier.cached(), "the old one is evicted")
    assert f"{object_key(bad, name)} has 7 bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"model_id": "another-model", "shard_id": shard_id("another-model", HOURLY, (SECOND,))},
        {"dimensions": 4},
        {"index_kind": "faiss-ivf"},
    ],
)
async def test_an_incompatible_shard_is_rejected_and_the_others_are_served(
    tier: Tier, changes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    good, other = await tier.sealed(0, 5), await tier.sealed(5, 9, **changes)
    await tier.point_to(good, other)
    async with tier.followed():
        await tier.serves(good)
        await tier.several_polls()
        assert tier.ids() == [good.manifest.shard_id]
    assert str(next(iter(changes.values()))) in capsys.readouterr().out


@pytest.mark.parametrize("newer", [False, True])
async def test_a_shard_whose_manifest_becomes_unreadable_stays_and_holds_up_no_other(
    tier: Tier, newer: bool
) -> None:
    first, second, third = [await tier.sealed(*bounds) for bounds in ((0, 5), (5, 9), (9, 12))]
    await tier.point_to(first, second)
    whole = second.manifest.to_json()
    async with tier.followed():
        await tier.serves(first, second)
        # A newer one: what a reader meets after a rollback past a change of the format.
        newer_format = whole.replace(b"manifest/3", b"manifest/4")
        await tier.store.write(second.manifest_key, newer_format if newer else whole[:100])
        await tier.point_to(first, second, third)
        await tier.serves(first, second, third)
        assert not tier.health.problems()
    tier.served.serve([])
    async with tier.followed():
        await tier.serves(first, third)
        problem = f"shards: 1 cannot be served: {second.manifest.shard_id}"
        await until(lambda: problem in tier.health.problems(), "a restarted server names it")
        await tier.store.write(second.manifest_key, whole)
        tier.clock.now += MAX_RETRY_SECONDS
        await tier.serves(first, second, third)


async def test_a_pointer_entry_with_the_key_of_another_shard_is_rejected(tier: Tier) -> None:
    first, second = await tier.sealed(0, 5), await tier.sealed(5, 9)
    wrong = PointedShard(second.manifest.shard_id, first.manifest_key)
    pointer = Pointer(MODEL, HOURLY, (wrong,))
    await tier.repository.move_pointer(pointer, over=None)
    async with tier.followed():
        await until(lambda: not tier.health.readiness_problems(), "the pointer was applied")
        assert tier.ids() == []
        assert tier.health.problems() == [f"shards: 1 cannot be served: {wrong.shard_id}"]


async def test_an_unreadable_pointer_changes_nothing(tier: Tier) -> None:
    first, second = await tier.sealed(0, 5), await tier.sealed(5, 9)
    await tier.point_to(first)
    async with tier.followed():
        await tier.serves(first)
        key = f"serving/{MODEL}/hourly.json"
        await tier.store.write(key, b"garbage")
        await tier.several_polls()
        assert tier.ids() == [first.manifest.shard_id]
        (tier.store.root / key).unlink()
        await tier.point_to(second)
        await tier.serves(second)


async def test_an_unavailable_store_is_retried(tier: Tier) -> None:
    stored = await tier.sealed(0, 5)
    await tier.point_to(stored)
    tier.store.down = True
    async with tier.followed():
        await until(lambda: tier.store.refused > 3, "it retries")
        assert tier.health.readiness_problems() == [
            "pointer follower: waiting for the tier's pointer"
        ]
        reported = any(p.startswith("model repository: ") for p in tier.health.problems())
        assert reported
        tier.store.down = False
        await tier.serves(stored)
        await until(lambda: not tier.health.problems(), "the problem is cleared")


async def test_a_bad_shard_is_retried_with_backoff(tier: Tier) -> None:
    good, bad = await tier.sealed(0, 5), await tier.sealed(5, 9)
    await tier.damage(bad)
    await tier.point_to(good, bad)
    async with tier.followed():
        await tier.attempted(bad, 1)
        wait, attempts = INITIAL_RETRY_SECONDS, 1
        for _ in range(7):
            # Delays have jitter: each is between half and all of a base that doubles.
            tier.clock.now += 0.49 * wait
            await tier.several_polls()
            assert tier.attempts(bad) == attempts, "it is too early"
            tier.clock.now += 0.51 * wait
            attempts += 1
            await tier.attempted(bad, attempts)
            wait = min(2 * wait, MAX_RETRY_SECONDS)
        assert wait == MAX_RETRY_SECONDS
        assert tier.attempts(bad, INDEX_FILE) == 1, "its intact file is kept"
        assert tier.attempts(good) == 1


async def test_a_pointer_change_retries_bad_shards_immediately(tier: Tier) -> None:
    bad, good = await tier.sealed(0, 5), await tier.sealed(5, 9)
    await tier.damage(bad)
    await tier.point_to(bad)
    async with tier.followed():
        await tier.attempted(bad, 1)
        for attempts in (2, 3, 4, 5):
            tier.clock.now += MAX_RETRY_SECONDS
            await tier.attempted(bad, attempts)
        await tier.point_to(bad, good)
        await tier.attempted(bad, 6)
        await tier.serves(good)
        # The backoff restarts as well.
        tier.clock.now += INITIAL_RETRY_SECONDS
        await tier.attempted(bad, 7)


async def test_a_bad_shard_that_left_the_pointer_is_not_retried_and_is_deleted(tier: Tier) -> None:
    bad, good = await tier.sealed(0, 5), await tier.sealed(5, 9)
    await tier.damage(bad)
    await tier.point_to(bad)
    async with tier.followed():
        await tier.attempted(bad, 1)
        assert tier.cached() == {bad.manifest.shard_id}
        await tier.point_to(good)
        await tier.serves(good)
        await until(lambda: tier.cached() == {good.manifest.shard_id}, "its folder is gone")
        tier.clock.now += MAX_RETRY_SECONDS
        await tier.several_polls()
    assert tier.attempts(bad) == 1


async def test_a_slow_first_start_is_not_a_stall(tier: Tier) -> None:
    shards = [await tier.sealed(5 * n, 5 * n + 5) for n in range(4)]
    await tier.point_to(*shards)
    tier.store.download_seconds = 100.0  # longer than a stall
    async with tier.followed():
        await tier.serves(*shards)
    assert tier.store.problems == []


async def test_deleting_the_cache_does_not_affect_searches(tier: Tier) -> None:
    stored = await tier.sealed(0, 5)
    await tier.point_to(stored)
    async with tier.followed():
        await tier.serves(stored)
        shutil.rmtree(tier.cache)
        assert tier.finds("listing-4")
        second = await tier.sealed(5, 9)
        await tier.point_to(stored, second)
        await tier.serves(stored, second)


async def test_a_shard_of_which_it_is_not_known_what_is_hidden_is_named_and_the_others_are_served(
    tier: Tier,
) -> None:
    old, new = await tier.sealed(0, 5), await tier.sealed(5, 9)
    tier.hidden_log.append("listing-7", 2)
    tier.hidden_log.append("someone-else", 2)
    tier.hidden_log.delete_before(0, 2)
    position = LogPosition(tier.hidden_log.id, {0: 2, 1: 0})
    await tier.snapshots.write(
        new.manifest,
        HiddenSnapshot(
            new.manifest.shard_id,
            new.manifest.rows_sha256,
            np.array([2], dtype=np.uint32),
            position,
            0.0,
        ),
    )
    tier.catch_up = catch_up_of(tier.served, tier.hidden_log)
    await tier.point_to(old, new)
    async with tier.followed():
        await tier.serves(new)
        problems = str(tier.health.problems())
        assert f"shards: 1 cannot be served: {old.manifest.shard_id}" in problems
        assert "but the log begins at 2: what was hidden in between is unknown" in problems
        assert not tier.finds("listing-7")
        assert tier.finds("listing-6")


async def test_shards_wait_until_the_log_of_hidden_listings_is_reached(tier: Tier) -> None:
    stored = await tier.sealed(0, 5)
    recent = RecentlyHidden()
    tier.catch_up = CatchUp(tier.served, recent, tier.hidden_log.opened, "stop")
    await tier.point_to(stored)
    async with tier.followed():
        await until(lambda: tier.attempts(stored) == 1, "the shard is fetched")
        assert tier.ids() == []
        assert tier.health.readiness_problems() != []
        recent.open_at(tier.hidden_log.bounds())
        await tier.serves(stored)
