"""The model repository works the same on every object store.

What does not depend on the store is in ``tests/unit/repository``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shashin.errors import CorruptShard, PreconditionFailed, RepositoryError
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.contents import arrangement_problems, read_contents
from shashin.repository.horizons import Horizons
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.manifest import MANIFEST_FILE
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY
from tests.contract.conftest import OpenStore
from tests.support.made_shards import MODEL, commit, listings, object_key, open_shard, write

REPLICAS = 4


def pointer(*shards: StoredShard) -> Pointer:
    """Return the pointer of the hourly tier that names these shards."""
    named = (PointedShard(s.manifest.shard_id, s.manifest_key) for s in shards)
    return Pointer(MODEL, HOURLY, tuple(sorted(named)))


async def test_a_committed_shard_is_listed_fetched_and_opened(
    open_store: OpenStore, tmp_path: Path
) -> None:
    stored = await commit(
        ModelRepository(open_store()), open_shard(listings(0, 5)), tmp_path / "scratch"
    )
    reader = ModelRepository(open_store())
    assert await reader.shards(MODEL, HOURLY) == ([stored], [])
    folder = await reader.fetch(stored, tmp_path / "cache")
    assert SealedShard(stored.manifest, folder).rows == 5
    assert await reader.shards(MODEL, "daily") == ([], [])


async def test_replicas_that_commit_at_once_agree_on_one_commit(
    open_store: OpenStore, tmp_path: Path
) -> None:
    manifests = [
        write(open_shard(listings(0, 5)), tmp_path / str(number), created_at=float(number))
        for number in range(REPLICAS)
    ]
    commits = await asyncio.gather(
        *(
            ModelRepository(open_store()).commit_shard(manifest, tmp_path / str(number))
            for number, manifest in enumerate(manifests)
        )
    )
    assert sorted(commit.first for commit in commits) == [False] * (REPLICAS - 1) + [True]
    assert len({commit.manifest.created_at for commit in commits}) == 1
    repository = ModelRepository(open_store())
    ((stored,), unreadable) = await repository.shards(MODEL, HOURLY)
    assert unreadable == []
    await repository.fetch(stored, tmp_path / "cache")


@pytest.mark.parametrize("garbage", [b"half of an upload", None], ids=["shorter", "other bytes"])
async def test_garbage_of_an_interrupted_commit_is_overwritten(
    store: ObjectStore, tmp_path: Path, garbage: bytes | None
) -> None:
    repository = ModelRepository(store)
    manifest = write(open_shard(listings(0, 5)), tmp_path / "shard")
    intact = (tmp_path / "shard" / INDEX_FILE).read_bytes()
    await store.write(object_key(manifest, INDEX_FILE), garbage or intact[::-1])
    assert (await repository.commit_shard(manifest, tmp_path / "shard")).first
    fetched = await repository.fetch(StoredShard(manifest, manifest.key), tmp_path / "cache")
    assert SealedShard(manifest, fetched).rows == 5


async def test_a_file_that_is_there_already_is_compared_and_kept(
    store: ObjectStore, tmp_path: Path
) -> None:
    manifest = write(open_shard(listings(0, 5)), tmp_path / "shard")
    key = object_key(manifest, INDEX_FILE)
    version = await store.upload(key, tmp_path / "shard" / INDEX_FILE)
    assert (await ModelRepository(store).commit_shard(manifest, tmp_path / "shard")).first
    assert (await store.stat(key)).version == version


@pytest.mark.parametrize("damage", ["deleted", "other bytes"])
async def test_a_damaged_file_is_refused(store: ObjectStore, tmp_path: Path, damage: str) -> None:
    repository = ModelRepository(store)
    stored = await commit(repository, open_shard(listings(0, 5)), tmp_path / "scratch")
    key = object_key(stored, INDEX_FILE)
    if damage == "deleted":
        await store.delete(key)
    else:
        await store.write(key, (await store.read(key))[0][::-1])
    with pytest.raises(CorruptShard, match=key):
        await repository.fetch(stored, tmp_path / "cache")


async def test_a_manifest_is_read_again_only_once_it_changed(
    store: ObjectStore, tmp_path: Path
) -> None:
    repository = ModelRepository(store)
    stored = await commit(repository, open_shard(listings(0, 5)), tmp_path / "scratch")
    assert await repository.shards(MODEL, HOURLY) == ([stored], [])
    await store.write(stored.manifest_key, b"{")
    found, (unreadable,) = await repository.shards(MODEL, HOURLY)
    assert (found, unreadable.manifest_key) == ([], stored.manifest_key)
    assert unreadable.ranges == stored.manifest.source_ranges
    await store.write(stored.manifest_key, stored.manifest.to_json())
    assert await repository.shards(MODEL, HOURLY) == ([stored], [])


async def test_a_pointer_is_moved_by_one_of_many(open_store: OpenStore, tmp_path: Path) -> None:
    repository = ModelRepository(open_store())
    shards = [
        await commit(
            repository, open_shard(listings(start, start + 5), from_offset=start), tmp_path / "s"
        )
        for start in range(0, 5 * REPLICAS, 5)
    ]
    over = None
    for turn in range(1, REPLICAS):
        moves = await asyncio.gather(
            *(
                # All different: a store may keep the version when the same bytes are written.
                ModelRepository(open_store()).move_pointer(
                    pointer(*shards[:turn], shards[number]), over=over
                )
                for number in range(turn, REPLICAS)
            ),
            return_exceptions=True,
        )
        (version,) = [move for move in moves if isinstance(move, str)]
        assert all(isinstance(move, (str, PreconditionFailed)) for move in moves)
        read, over = await repository.read_pointer(MODEL, HOURLY)
        assert over == version
        assert read is not None
        assert len(read.shards) == turn + 1


async def test_a_pointer_that_cannot_be_read_is_an_error_until_it_is_restored(
    store: ObjectStore, tmp_path: Path
) -> None:
    repository = ModelRepository(store)
    assert await repository.read_pointer(MODEL, HOURLY) == (None, None)
    stored = await commit(repository, open_shard(listings(0, 5)), tmp_path / "scratch")
    await repository.move_pointer(pointer(stored), over=None)
    assert (await repository.read_pointer(MODEL, HOURLY))[0] == pointer(stored)
    await store.write(f"serving/{MODEL}/{HOURLY}.json", b"{")
    with pytest.raises(RepositoryError):
        await repository.read_pointer(MODEL, HOURLY)
    await store.write(f"serving/{MODEL}/{HOURLY}.json", pointer(stored).to_json())
    assert (await repository.read_pointer(MODEL, HOURLY))[0] == pointer(stored)


async def test_one_of_many_stores_the_horizon_of_a_partition(open_store: OpenStore) -> None:
    opened = await asyncio.gather(
        *(Horizons(open_store(), MODEL).keep(3, first) for first in range(REPLICAS))
    )
    assert len(set(opened)) == 1
    assert await Horizons(open_store(), MODEL).keep(3, 100) == opened[0]
    assert (await Horizons(open_store(), MODEL).keep(4, 100)).offset == 100


async def test_contents_are_complete(store: ObjectStore, tmp_path: Path) -> None:
    repository = ModelRepository(store)
    stored = await commit(repository, open_shard(listings(0, 5)), tmp_path / "scratch")
    await repository.move_pointer(pointer(stored), over=None)
    await Horizons(store, MODEL).keep(0, 0)
    await store.write(f"{stored.manifest.folder}/another.file", b"of another replica")
    empty = f"indexes/{MODEL}/{HOURLY}/0/left-over"
    await store.write(f"{empty}/rows.arrow", b"")
    _, contents = await read_contents(store)
    assert contents.shards == [stored]
    assert contents.pointed == {(MODEL, HOURLY): {stored.manifest.shard_id}}
    assert contents.unreferenced == [f"{stored.manifest.folder}/another.file"]
    assert contents.without_manifest == [empty]
    assert not contents.unreadable
    assert arrangement_problems(contents) == []
    await store.delete(f"{stored.manifest.folder}/{MANIFEST_FILE}")
    _, contents = await read_contents(store)
    assert len(arrangement_problems(contents)) == 1
