"""The builder: level-triggered, and never overwrites a concurrent pointer change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from services.image_builder.handlers import Builder
from services.image_builder.rescan import Rescan
from services.image_builder.rollout import PointerRollout, Rollout
from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import ObjectNotFound, ObjectStoreUnavailable, SettingsError
from shashin.objectstore.protocol import ObjectInfo, Version
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import merge_ranges
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.horizons import Horizons
from shashin.repository.pointer import PointedShard, Pointer, pointer_key
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.health import Health
from shashin.serving.index_servers import HeldShard
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.shard_id import shard_id
from shashin.tiers import DAILY, HOURLY, MONTHLY
from tests.support import loops
from tests.support.made_shards import MODEL, WatchedStore, commit, listings, open_shard
from tests.support.waiting import until

NOWHERE = "static:index-server/daily=127.0.0.1:1"


class Watched(WatchedStore):
    """A store that can be unavailable."""

    down = False

    async def read(self, key: str) -> tuple[bytes, Version]:
        if self.down:
            raise ObjectStoreUnavailable("the store is down")
        return await super().read(key)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "store")


@pytest.fixture
def repository(store: Watched) -> ModelRepository:
    return ModelRepository(store)


Sealed = Callable[[int, int], "asyncio.Future[StoredShard]"]


@pytest.fixture
def sealed(repository: ModelRepository, tmp_path: Path) -> Sealed:
    """Commit a shard of these offsets."""

    def seal(begin: int, end: int) -> asyncio.Future[StoredShard]:
        shard = open_shard(listings(begin, end), from_offset=begin)
        return asyncio.ensure_future(commit(repository, shard, tmp_path / "scratch"))

    return seal


class Servers:
    """Index servers that hold what a test says."""

    def __init__(self) -> None:
        self.holding: list[HeldShard] = []
        self.asked = 0

    async def held(self) -> list[HeldShard]:
        self.asked += 1
        return self.holding


@asynccontextmanager
async def running(
    repository: ModelRepository,
    rollout: Rollout | None = None,
    *,
    servers: Servers | None = None,
    rescans: bool = False,
    resync_seconds: float = 3600.0,
    **changes: Any,
) -> AsyncIterator[tuple[Builder, Health]]:
    """Run a builder that, after its first round, plans only when woken, unless told otherwise."""
    settings = ImageBuilderSettings(
        model_id=MODEL,
        repository="file:///unused",
        discovery=NOWHERE,
        resync_seconds=resync_seconds,
        hand_over_after_seconds=0,
        **changes,
    )
    health = Health()
    builder = Builder(
        settings,
        repository,
        rollout or PointerRollout(repository),
        servers or Servers(),
        Horizons(repository._store, MODEL),
    )
    rescan = Rescan(MODEL, repository._store, builder.wake).loop()
    async with loops.running(builder.loop(), *([rescan] if rescans else []), health=health):
        yield builder, health


async def pointed(repository: ModelRepository) -> list[str]:
    pointer, _ = await repository.read_pointer(MODEL, HOURLY)
    return [shard.shard_id for shard in pointer.shards] if pointer else []


def ids(*stored: StoredShard) -> list[str]:
    return [shard.manifest.shard_id for shard in stored]


async def run_one_round(builder: Builder, store: Watched) -> None:
    """Wake the builder and wait until a full round has passed."""
    reads = pointer_reads(store)
    builder.wake()
    await until(lambda: pointer_reads(store) > reads, "the builder reads the pointer")
    # A second read starts only after the first round has ended.
    reads = pointer_reads(store)
    builder.wake()
    await until(lambda: pointer_reads(store) > reads, "the builder reads it again")


def pointer_reads(store: Watched) -> int:
    key = pointer_key(MODEL, HOURLY)
    return store.stats.count(key) + store.reads.count(key)


async def test_shards_committed_before_startup_are_rolled_out(
    repository: ModelRepository, sealed: Sealed
) -> None:
    first, second = await sealed(0, 5), await sealed(5, 9)
    async with running(repository) as (_, health):
        await until(lambda: not health.readiness_problems(), "it is ready")
        assert await pointed(repository) == ids(first, second)
    pointer, _ = await repository.read_pointer(MODEL, HOURLY)
    assert pointer is not None
    assert [s.manifest_key for s in pointer.shards] == [first.manifest_key, second.manifest_key]


async def test_a_new_shard_is_rolled_out_and_an_unchanged_plan_is_not(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    async with running(repository) as (builder, health):
        await until(lambda: not health.readiness_problems(), "it is ready with nothing to serve")
        assert (await repository.read_pointer(MODEL, HOURLY))[0] is None
        first = await sealed(0, 5)
        builder.wake()
        await until(lambda: _is(repository, ids(first)), "the shard is rolled out")
        _, version = await repository.read_pointer(MODEL, HOURLY)
        store.reads.clear()
        await run_one_round(builder, store)
        assert (await repository.read_pointer(MODEL, HOURLY))[1] == version, "the plan is unchanged"
        absent = {pointer_key(MODEL, tier) for tier in (DAILY, MONTHLY)}
        assert set(store.reads) <= absent, "unchanged objects are not read again"


async def _is(repository: ModelRepository, expected: list[str]) -> bool:
    return await pointed(repository) == expected


class ConcurrentChange:
    """Simulates a concurrent pointer change right before the first rollout."""

    def __init__(self, repository: ModelRepository, theirs: Pointer | None) -> None:
        self._repository = repository
        self._theirs = theirs
        self.planned: list[list[str]] = []

    async def roll_out(self, pointer: Pointer, *, over: Version | None) -> None:
        self.planned.append([shard.shard_id for shard in pointer.shards])
        theirs, self._theirs = self._theirs, None
        if theirs is not None:
            await self._repository.move_pointer(theirs, over=over)
        await PointerRollout(self._repository).roll_out(pointer, over=over)


async def test_a_concurrent_pointer_change_leads_to_a_new_plan(
    repository: ModelRepository, sealed: Sealed
) -> None:
    early, late = await sealed(0, 5), await sealed(5, 9)
    theirs = Pointer(MODEL, HOURLY, (PointedShard.of(late.manifest),))
    rollout = ConcurrentChange(repository, theirs)
    async with running(repository, rollout) as (_, health):
        await until(lambda: not health.readiness_problems(), "it has planned again")
    assert rollout.planned == [ids(early, late)] * 2
    assert await pointed(repository) == ids(early, late)


async def test_an_unreadable_manifest_is_skipped_and_the_others_are_rolled_out(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    good, bad = await sealed(0, 5), await sealed(5, 9)
    whole, _ = await store.read(bad.manifest_key)
    await store.write(bad.manifest_key, b"[]")
    async with running(repository) as (builder, health):
        await until(lambda: _is(repository, ids(good)), "the good one is rolled out")
        await until(lambda: refused("unreadable") == 1, "it is counted")
        # The first round has not ended yet, so the builder may not be ready.
        (problem,) = await until(
            lambda: len(found := health.problems()) == 1 and found, "it is the only problem"
        )
        assert problem.startswith("manifests of hourly: 1 cannot be read, 1 of them not served")
        assert bad.manifest.shard_id in problem
        await store.write(bad.manifest_key, whole)
        builder.wake()
        await until(
            lambda: _is(repository, ids(good, bad)), "once fixed, the other one is rolled out"
        )
        await until(lambda: not health.problems(), "nothing is wrong any more")
        assert refused("unreadable") == 0


def refused(reason: str) -> float | None:
    name, labels = "shashin_image_builder_refused_shards", {"tier": HOURLY, "reason": reason}
    return REGISTRY.get_sample_value(name, labels)


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_served_shard_stays_when_its_manifest_becomes_unreadable_and_leaves_when_it_is_gone(
    store: Watched, repository: ModelRepository, sealed: Sealed, newer: bool, restarted: bool
) -> None:
    first, second = await sealed(0, 5), await sealed(5, 9)
    whole = second.manifest.to_json()
    unreadable = whole.replace(b"manifest/3", b"manifest/5") if newer else whole[:100]
    async with running(repository, resync_seconds=0.05) as (builder, health):
        await until(lambda: _is(repository, ids(first, second)), "both are rolled out")
        if not restarted:
            await store.write(second.manifest_key, unreadable)
            await run_one_round(builder, store)
    await store.write(second.manifest_key, unreadable)
    # Another shard with some of its offsets does not take its place.
    third = await sealed(7, 12)
    # One of which it contains every offset is not needed beside it.
    await sealed(6, 8)
    other = ModelRepository(store) if restarted else repository
    async with running(other, resync_seconds=0.05) as (builder, health):
        await until(lambda: _is(repository, ids(first, second, third)), "the third is rolled out")
        await run_one_round(builder, store)
        pointer, _ = await repository.read_pointer(MODEL, HOURLY)
        served = (PointedShard.of(shard.manifest) for shard in (first, second, third))
        assert pointer == Pointer(MODEL, HOURLY, tuple(served)), "nothing known of it is forgotten"
        assert second.manifest.shard_id in str(health.problems())
        await store.delete(second.manifest_key)
        await until(lambda: _is(repository, ids(first, third)), "it is gone, so it is not served")


async def test_between_checks_no_served_manifest_is_looked_up_and_unreadable_ones_stay_reported(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    first, second = await sealed(0, 5), await sealed(5, 9)
    async with running(repository):
        await until(lambda: _is(repository, ids(first, second)), "both are rolled out")
    await store.write(second.manifest_key, b"garbage")
    async with running(repository) as (builder, health):
        await until(health.problems, "the check at the start reports it")
        await run_one_round(builder, store)
        store.stats.clear()
        third = await sealed(9, 12)
        builder.wake()
        await until(lambda: _is(repository, ids(first, second, third)), "a new one is rolled out")
        await run_one_round(builder, store)
    assert not {first.manifest_key, second.manifest_key} & set(store.stats)
    (problem,) = health.problems()
    assert second.manifest.shard_id in problem
    assert refused("unreadable") == 1


async def test_a_shard_that_is_committed_and_pointed_to_during_a_round_stays(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    class AnotherBuilder(Watched):
        """Another builder rolls a new shard out while the shards are listed for this one."""

        async def list_objects(self, prefix: str) -> list[ObjectInfo]:
            listed = await super().list_objects(prefix)
            if await pointed(repository) == ids(first):
                second = await sealed(5, 9)
                both = (PointedShard.of(s.manifest) for s in (first, second))
                _, version = await repository.read_pointer(MODEL, HOURLY)
                await repository.move_pointer(Pointer(MODEL, HOURLY, tuple(both)), over=version)
            return listed

    first = await sealed(0, 5)
    pointer = Pointer(MODEL, HOURLY, (PointedShard.of(first.manifest),))
    await repository.move_pointer(pointer, over=None)
    rollout = ConcurrentChange(repository, None)
    async with running(ModelRepository(AnotherBuilder(store.root)), rollout) as (_, health):
        await until(lambda: not health.readiness_problems(), "it has planned")
    assert rollout.planned == [], "it took nothing out of the other's pointer"
    assert len(await pointed(repository)) == 2


async def test_an_unreadable_pointer_is_not_overwritten(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    stored = await sealed(0, 5)
    key = f"serving/{MODEL}/hourly.json"
    await store.write(key, b"garbage")
    async with running(repository) as (builder, health):
        await run_one_round(builder, store)
        assert (await store.read(key))[0] == b"garbage"
        waiting, unreadable = health.readiness_problems()
        assert waiting == "planning: waiting for the first plan"
        assert unreadable.startswith(f"planning of hourly: {key} is not a pointer")
        (store.root / key).unlink()
        builder.wake()
        await until(lambda: _is(repository, ids(stored)), "once it is removed, the tier is planned")
        await until(lambda: not health.problems(), "nothing is wrong any more")


async def test_an_unavailable_repository_is_retried(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    stored = await sealed(0, 5)
    store.down = True
    async with running(repository) as (builder, health):
        await until(
            lambda: health.readiness_problems() == ["planning: the store is down"],
            "the problem is reported",
        )
        store.down = False
        builder.wake()
        await until(lambda: not health.readiness_problems(), "it is ready")
        assert await pointed(repository) == ids(stored)


async def announcements(store: Watched) -> list[str]:
    return [info.key for info in await store.list_objects("announced/")]


async def test_an_announcement_is_settled_once_its_shard_is_served(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    first = await sealed(0, 5)
    assert len(await announcements(store)) == 1
    async with running(repository):
        await until(lambda: _is(repository, ids(first)), "the shard is rolled out")
        await until(lambda: _none(announcements(store)), "its announcement is settled")


async def _none(found: Awaitable[list[str]]) -> bool:
    return not await found


async def test_what_is_served_and_new_is_planned_without_listing_what_was_ever_sealed(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    first = await sealed(0, 5)
    async with running(repository) as (builder, _):
        await until(lambda: _is(repository, ids(first)), "the shard is rolled out")
        await run_one_round(builder, store)
        store.lists.clear()
        second = await sealed(5, 9)
        builder.wake()
        await until(lambda: _is(repository, ids(first, second)), "the next one, too")
    listed = set(store.lists) - {f"indexes/{MODEL}/{tier}/" for tier in (DAILY, MONTHLY)}
    bucket = f"indexes/{MODEL}/hourly/{first.manifest.bucket_start}/"
    planned = {f"announced/{MODEL}/", f"serving/{MODEL}/rejected/"}
    assert listed == {*planned, bucket}, "a commit lists the bucket that it is in"


async def test_an_unfinished_shard_stays_announced_until_it_is_committed_or_abandoned(
    store: Watched, repository: ModelRepository, sealed: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = f"{MODEL}.hourly.p0000.000000000000-000000000005"
    await repository.announce(f"indexes/{MODEL}/hourly/0/{shard}/manifest.json")
    (key,) = await announcements(store)
    async with running(repository) as (builder, _):
        await run_one_round(builder, store)
        assert await announcements(store) == [key]
        monkeypatch.setattr("shashin.repository.repository.ABANDONED_AFTER_SECONDS", 0.0)
        builder.wake()
        await until(lambda: _none(announcements(store)), "it is given up")


async def test_a_rescan_finds_a_shard_that_was_never_announced(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    first = await sealed(0, 5)
    async with running(repository):
        await until(lambda: _is(repository, ids(first)), "the shard is rolled out")
    second = await sealed(5, 9)
    for key in await announcements(store):
        await store.delete(key)
    async with running(repository, rescans=True):
        await until(lambda: _is(repository, ids(first, second)), "the other one is found")
        await until(lambda: _none(announcements(store)), "and settled")


def built(*parents: StoredShard, tier: str) -> Manifest:
    """Return the manifest of a shard that a build made from these."""
    ranges = tuple(merge_ranges(r for p in parents for r in p.manifest.source_ranges))
    return replace(
        parents[0].manifest,
        shard_id=shard_id(MODEL, tier, ranges),
        tier=tier,
        source_ranges=ranges,
        rewrites=1,
        parents=tuple(p.manifest.shard_id for p in parents),
    )


async def put(store: Watched, repository: ModelRepository, manifest: Manifest) -> None:
    """Commit the manifest of a built shard: planning reads nothing else."""
    await repository.announce(manifest.key)
    await store.write(manifest.key, manifest.to_json())


async def of_tier(repository: ModelRepository, tier: str) -> list[str]:
    pointer, _ = await repository.read_pointer(MODEL, tier)
    return [shard.shard_id for shard in pointer.shards] if pointer else []


async def test_parents_leave_their_tier_once_an_index_server_of_the_older_one_has_their_child(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    parents = [await sealed(0, 5), await sealed(5, 9)]
    today = await sealed(9, 12)
    servers = Servers()
    async with running(repository, servers=servers) as (builder, _):
        await until(lambda: _is(repository, ids(*parents, today)), "all are served")
        assert servers.asked == 0, "nothing can be handed over"
        child = built(*parents, tier=DAILY)
        await put(store, repository, child)
        builder.wake()
        await until(lambda: _of(repository, DAILY, [child.shard_id]), "the child is in its tier")
        await run_one_round(builder, store)
        assert await pointed(repository) == ids(*parents, today)
        held = HeldShard(HOURLY, "x", child.source_ranges)
        servers.holding = [held]
        await run_one_round(builder, store)
        assert await pointed(repository) == ids(*parents, today), "its own tier does not count"
        servers.holding = [replace(held, tier=DAILY)]
        await until(lambda: _is(repository, ids(today)), "the parents are not served any more")
        servers.holding = []
        await run_one_round(builder, store)
        assert await pointed(repository) == ids(today)
        assert await of_tier(repository, DAILY) == [child.shard_id]


async def _of(repository: ModelRepository, tier: str, expected: list[str]) -> bool:
    return await of_tier(repository, tier) == expected


async def test_what_is_too_old_is_retired_after_its_horizon_was_raised(
    store: Watched, repository: ModelRepository, sealed: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await sealed(0, 5)
    new = await sealed(5, 9)
    recent = replace(new.manifest, bucket_start=int(time.time()), shard_id=new.manifest.shard_id)
    await store.delete(new.manifest_key)
    await put(store, repository, recent)
    horizons = Horizons(store, MODEL)
    await horizons.keep(0, 0)
    async with running(repository, retention_days=365) as (builder, _):
        await until(
            lambda: _horizon_is(horizons, 5), "the horizon is where what is not too old begins"
        )
        assert await pointed(repository) == [old.manifest.shard_id, recent.shard_id]
        monkeypatch.setattr("services.image_builder.handlers.RETIRE_AFTER_SECONDS", 0.0)
        builder.wake()
        await until(lambda: _is(repository, [recent.shard_id]), "then the old one is retired")


async def _horizon_is(horizons: Horizons, offset: int) -> bool:
    horizon = await horizons.read(0)
    return horizon is not None and horizon.offset == offset


async def test_a_rejected_shard_is_replaced_by_its_parents_without_a_gap_and_then_deleted(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    parents = [await sealed(0, 5), await sealed(5, 9)]
    child = built(*parents, tier=DAILY)
    servers = Servers()
    servers.holding = [HeldShard(DAILY, child.shard_id, child.source_ranges)]
    async with running(repository, servers=servers) as (builder, _):
        await until(lambda: _is(repository, ids(*parents)), "the parents are served")
        await put(store, repository, child)
        builder.wake()
        await until(lambda: _is(repository, []), "the child takes their place")
        await repository.reject(child)
        builder.wake()
        await until(lambda: _is(repository, ids(*parents)), "the parents are served again")
        assert await of_tier(repository, DAILY) == [child.shard_id], "until then it stays"
        servers.holding += [
            HeldShard(HOURLY, p.manifest.shard_id, p.manifest.source_ranges) for p in parents
        ]
        await until(lambda: _of(repository, DAILY, []), "then it leaves")
        await until(lambda: _is_gone(store, child.key), "and its manifest is deleted")
        await until(lambda: _none(_rejections(store)), "it may be built again")
        assert await pointed(repository) == ids(*parents)


async def _is_gone(store: Watched, key: str) -> bool:
    return not await store.list_objects(key)


async def _rejections(store: Watched) -> list[str]:
    return [info.key for info in await store.list_objects(f"serving/{MODEL}/rejected/")]


async def test_a_shard_whose_parents_were_pruned_cannot_be_rejected(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    parents = [await sealed(0, 5), await sealed(5, 9)]
    child = built(*parents, tier=DAILY)
    await put(store, repository, child)
    await store.delete(parents[1].manifest_key)
    with pytest.raises(ObjectNotFound, match=parents[1].manifest.shard_id):
        await repository.reject(child)
    assert await _rejections(store) == []


async def test_a_rescan_measures_how_old_the_oldest_snapshot_of_a_served_shard_is(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    first, second = await sealed(0, 5), await sealed(5, 9)
    async with running(repository, rescans=True):
        await until(lambda: _is(repository, ids(first, second)), "both are rolled out")
    async with running(repository, rescans=True):
        await until(lambda: oldest_snapshot() == 0, "none has a snapshot")
    for stored, made_at in ((first, 1_800_000_000.0), (second, 1_700_000_000.0)):
        manifest = stored.manifest
        rows = np.array([], dtype=np.uint32)
        position = LogPosition("topic", {0: 7})
        snapshot = HiddenSnapshot(manifest.shard_id, manifest.rows_sha256, rows, position, made_at)
        await HiddenSnapshots(store).write(manifest, snapshot)
    async with running(repository, rescans=True):
        await until(lambda: oldest_snapshot() == 1_700_000_000.0, "the older one counts")


def oldest_snapshot() -> float | None:
    return REGISTRY.get_sample_value("shashin_image_builder_oldest_snapshot_timestamp_seconds")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "SHASHIN_INDEX_SERVER_IMAGE and SHASHIN_IMAGE_REPOSITORY not set"),
        ({"index_server_image": "registry.example/a:1"}, "SHASHIN_IMAGE_REPOSITORY not set"),
    ],
)
def test_a_rollout_by_images_needs_to_know_which_and_where(
    changes: dict[str, Any], why: str
) -> None:
    settings = ImageBuilderSettings(
        repository="file:///unused", discovery=NOWHERE, rollout="images", **changes
    )
    with pytest.raises(SettingsError, match=why):
        settings.check_images()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index_server_image", "Registry.example/UPPER"),
        ("image_repository", "registry.example/a@sha256:1"),
        ("image_grace_days", 0.01),
        ("image_max_layers", 101),
    ],
)
def test_a_wrong_setting_for_images_is_refused(name: str, value: object) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(ValidationError, match=name):
        ImageBuilderSettings(repository="file:///unused", discovery=NOWHERE, **wrong)
