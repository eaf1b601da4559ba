"""The builder: level-triggered, and never overwrites a concurrent pointer change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.image_builder.handlers import Builder
from services.image_builder.rollout import PointerRollout, Rollout
from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import ObjectStoreUnavailable
from shashin.objectstore.protocol import ObjectInfo, Version
from shashin.repository.pointer import PointedShard, Pointer, pointer_key
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.health import Health
from shashin.tiers import HOURLY
from tests.support import loops
from tests.support.made_shards import MODEL, WatchedStore, commit, listings, open_shard
from tests.support.waiting import until


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


@asynccontextmanager
async def running(
    repository: ModelRepository, rollout: Rollout | None = None
) -> AsyncIterator[tuple[Builder, Health]]:
    """Run a builder that, after its first round, plans only when woken."""
    settings = ImageBuilderSettings(
        model_id=MODEL, repository="file:///unused", resync_seconds=3600
    )
    health = Health()
    builder = Builder(settings, repository, rollout or PointerRollout(repository))
    async with loops.running(builder.loop(), health=health):
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
        assert store.reads == [], "unchanged objects are not read again"


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
    theirs = Pointer(MODEL, HOURLY, (PointedShard(late.manifest.shard_id, late.manifest_key),))
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
        (problem,) = health.problems()
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
    unreadable = whole.replace(b"manifest/3", b"manifest/4") if newer else whole[:100]
    async with running(repository) as (builder, health):
        await until(lambda: _is(repository, ids(first, second)), "both are rolled out")
        if not restarted:
            await store.write(second.manifest_key, unreadable)
            await run_one_round(builder, store)
    await store.write(second.manifest_key, unreadable)
    # Another shard with some of its offsets does not take its place.
    third = await sealed(7, 12)
    async with running(ModelRepository(store) if restarted else repository) as (builder, health):
        await run_one_round(builder, store)
        assert await pointed(repository) == ids(first, second, third)
        assert second.manifest.shard_id in str(health.problems())
        await store.delete(second.manifest_key)
        builder.wake()
        await until(lambda: _is(repository, ids(first, third)), "it is gone, so it is not served")


async def test_a_shard_that_is_committed_and_pointed_to_during_a_round_stays(
    store: Watched, repository: ModelRepository, sealed: Sealed
) -> None:
    class AnotherBuilder(Watched):
        """Another builder rolls a new shard out while the shards are listed for this one."""

        async def list_objects(self, prefix: str) -> list[ObjectInfo]:
            listed = await super().list_objects(prefix)
            if await pointed(repository) == ids(first):
                second = await sealed(5, 9)
                both = (PointedShard(s.manifest.shard_id, s.manifest_key) for s in (first, second))
                _, version = await repository.read_pointer(MODEL, HOURLY)
                await repository.move_pointer(Pointer(MODEL, HOURLY, tuple(both)), over=version)
            return listed

    first = await sealed(0, 5)
    pointer = Pointer(MODEL, HOURLY, (PointedShard(first.manifest.shard_id, first.manifest_key),))
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
