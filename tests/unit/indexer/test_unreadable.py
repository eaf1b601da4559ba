"""Manifests that could not be read at startup: reported until they can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.indexer.unreadable import UnreadableManifests
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.health import Health
from shashin.tiers import HOURLY
from tests.support.loops import running
from tests.support.made_shards import MODEL, WatchedStore, commit, listings, open_shard
from tests.support.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


@pytest.fixture
async def stored(store: WatchedStore, tmp_path: Path) -> StoredShard:
    return await commit(ModelRepository(store), open_shard(listings(0, 5)), tmp_path / "scratch")


async def found_unreadable(
    store: WatchedStore, *, poll_seconds: float = 0.001
) -> UnreadableManifests:
    repository = ModelRepository(store)
    _, unreadable = await repository.shards(MODEL, HOURLY)
    assert len(unreadable) == 1
    return UnreadableManifests(repository, unreadable, poll_seconds=poll_seconds)


async def test_an_unreadable_manifest_is_on_healthz_before_it_is_read_again(
    store: WatchedStore, stored: StoredShard
) -> None:
    await store.write(stored.manifest_key, b"{")
    manifests = await found_unreadable(store, poll_seconds=3600)
    health = Health()
    async with running(manifests.loop(), health=health):
        await until(lambda: stored.manifest_key in str(health.problems()), "it is reported")


async def test_an_unreadable_manifest_is_on_healthz_by_name_until_it_can_be_read(
    store: WatchedStore, stored: StoredShard
) -> None:
    await store.write(stored.manifest_key, b"{")
    manifests = await found_unreadable(store)
    health = Health()
    async with running(manifests.loop(), health=health):
        await until(lambda: stored.manifest_key in str(health.problems()), "it is reported")
        await store.write(stored.manifest_key, stored.manifest.to_json())
        await until(lambda: not health.problems(), "the problem is cleared")


async def test_a_manifest_that_is_deleted_asks_for_the_restart_that_reads_its_range(
    store: WatchedStore, stored: StoredShard
) -> None:
    await store.write(stored.manifest_key, b"{")
    manifests = await found_unreadable(store)
    health = Health()
    async with running(manifests.loop(), health=health):
        await store.delete(stored.manifest_key)
        await until(lambda: "restart this indexer" in str(health.problems()), "it is reported")
