"""Snapshots of hidden rows in the folders of shards: written, read, damaged and replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shashin.offsets.log_position import LogPosition
from shashin.repository.contents import read_contents
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.repository.snapshot_ages import newest_snapshot_at
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import Manifest
from tests.support.made_shards import WatchedStore, commit, listings, open_shard


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


@pytest.fixture
async def shard(store: WatchedStore, tmp_path: Path) -> StoredShard:
    return await commit(ModelRepository(store), open_shard(listings(0, 5)), tmp_path / "scratch")


def snapshot_of(manifest: Manifest, *rows: int, offset: int = 7) -> HiddenSnapshot:
    return HiddenSnapshot(
        manifest.shard_id,
        manifest.rows_sha256,
        np.array(rows, dtype=np.uint32),
        LogPosition("topic", {0: offset}),
        1_700_000_000.0,
    )


async def test_what_replicas_write_is_read_together(
    store: WatchedStore, shard: StoredShard
) -> None:
    snapshots = HiddenSnapshots(store)
    assert (await snapshots.read(shard.manifest)).by_key == {}
    one = await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 1))
    other = await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 1, 3, offset=9))
    again = await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 1))
    assert again == one
    found = await snapshots.read(shard.manifest)
    assert {key: s.rows.tolist() for key, s in found.by_key.items()} == {one: [1], other: [1, 3]}
    await snapshots.delete([one])
    assert (await snapshots.read(shard.manifest)).by_key.keys() == {other}


async def test_a_damaged_snapshot_counts_as_absent_and_the_others_are_read(
    store: WatchedStore, shard: StoredShard
) -> None:
    snapshots = HiddenSnapshots(store)
    damaged = await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 1))
    whole = await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 2))
    await store.write(damaged, b"damaged")
    found = await snapshots.read(shard.manifest)
    assert (set(found.by_key), set(found.unreadable)) == ({whole}, {damaged})
    assert damaged in found.unreadable[damaged].message
    assert await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 1)) == damaged
    assert (await snapshots.read(shard.manifest)).unreadable == {}, "it is written again"


async def test_a_reader_finds_the_newer_one_though_the_older_is_deleted_under_its_hands(
    store: WatchedStore, shard: StoredShard
) -> None:
    snapshots = HiddenSnapshots(store)
    older = await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 1))
    real_list = store.list_objects

    async def then_replaced(prefix: str) -> list[object]:
        listed = await real_list(prefix)
        store.list_objects = real_list  # type: ignore[method-assign]
        await snapshots.write(shard.manifest, snapshot_of(shard.manifest, 1, 2))
        await snapshots.delete([older])
        return list(listed)

    store.list_objects = then_replaced  # type: ignore[method-assign, assignment]
    (found,) = (await snapshots.read(shard.manifest)).by_key.values()
    assert found.rows.tolist() == [1, 2]


async def test_a_snapshot_is_no_leftover_of_an_upload(
    store: WatchedStore, shard: StoredShard
) -> None:
    await HiddenSnapshots(store).write(shard.manifest, snapshot_of(shard.manifest, 1))
    stray = f"{shard.manifest.folder}/rows.0000000000000000.arrow"
    await store.write(stray, b"")
    _, contents = await read_contents(store)
    assert contents.unreferenced == [stray]


async def test_a_shard_is_as_up_to_date_as_its_newest_snapshot_of_its_own_rows(
    store: WatchedStore, shard: StoredShard
) -> None:
    snapshots, manifest = HiddenSnapshots(store), shard.manifest
    one = snapshot_of(manifest, 1)
    assert await newest_snapshot_at(store, manifest) == 0.0
    of_other_rows = replace(one, rows_sha256="0" * 64, created_at=one.created_at + 9)
    await snapshots.write(manifest, of_other_rows)
    await store.write(f"{manifest.folder}/hidden-{'0' * 16}.roaring", b"damaged")
    assert await newest_snapshot_at(store, manifest) == 0.0
    # What a build left out is what was hidden when it ran.
    built = replace(manifest, hidden_offsets={"0": 7}, created_at=one.created_at - 3)
    assert await newest_snapshot_at(store, built) == built.created_at
    await snapshots.write(manifest, one)
    await snapshots.write(manifest, replace(one, created_at=one.created_at + 5))
    assert await newest_snapshot_at(store, manifest) == one.created_at + 5
    assert await newest_snapshot_at(store, built) == one.created_at + 5
