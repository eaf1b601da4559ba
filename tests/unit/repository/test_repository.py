"""The model repository over a file store: committing, fetching and listing shards."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from shashin.errors import (
    CorruptShard,
    DiskUnavailable,
    ObjectNotFound,
    ObjectStoreError,
    PreconditionFailed,
    RepositoryError,
    UnknownFormat,
)
from shashin.objectstore.protocol import ObjectInfo, OnlyIf, Version
from shashin.offsets.ranges import OffsetRange
from shashin.repository.pointer import PointedShard, Pointer, pointer_key
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.file_entry import file_entry
from shashin.shards.format.manifest import MANIFEST_FILE, ROWS_FILE
from shashin.shards.format.shard_id import shard_id
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY
from tests.support.made_shards import (
    MODEL,
    WatchedStore,
    commit,
    listings,
    object_key,
    open_shard,
    write,
)


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


@pytest.fixture
def repository(store: WatchedStore) -> ModelRepository:
    return ModelRepository(store)


@pytest.fixture
async def stored(repository: ModelRepository, tmp_path: Path) -> StoredShard:
    """A committed shard of five listings."""
    return await commit(repository, open_shard(listings(0, 5)), tmp_path / "scratch")


def objects(store: WatchedStore) -> dict[str, bytes]:
    """Return the content of every object."""
    return {
        path.relative_to(store.root).as_posix(): path.read_bytes()
        for path in store.root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_an_entry_is_the_name_size_and_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(b"test" * 500_000)
    entry = file_entry(path)
    assert (entry.name, entry.size) == ("some.file", 2_000_000)
    path.write_bytes(b"test")
    assert file_entry(path).sha256 == (
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    )


# --- committing ---------------------------------------------------------------------------------


async def test_a_shard_is_announced_and_its_files_are_written_before_its_manifest(
    store: WatchedStore, repository: ModelRepository, tmp_path: Path
) -> None:
    manifest = write(open_shard(listings(0, 5)), tmp_path / "shard")
    assert (await repository.commit_shard(manifest, tmp_path / "shard")).first
    index, rows = (entry.sha256[:16] for entry in manifest.files)
    folder = f"indexes/{MODEL}/hourly/{manifest.bucket_start}/{manifest.shard_id}"
    assert store.writes == [
        f"announced/{MODEL}/hourly/{manifest.shard_id}.json",
        f"{folder}/index.{index}.usearch",
        f"{folder}/rows.{rows}.arrow",
        f"{folder}/manifest.json",
    ]
    assert (await repository.read_shard(manifest.key)).manifest == manifest


async def test_the_first_commit_wins_and_later_ones_find_the_same_content(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard, tmp_path: Path
) -> None:
    before = objects(store)
    again = write(open_shard(listings(0, 5)), tmp_path / "later", created_at=1_800_000_000.0)
    assert not (await ModelRepository(store).commit_shard(again, tmp_path / "later")).first
    assert objects(store) == before, "the first one's time stays too"


async def test_the_first_commit_of_a_range_stays_when_another_replica_has_other_content(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard, tmp_path: Path
) -> None:
    before = objects(store)
    other = write(open_shard(listings(1, 6)), tmp_path / "other")
    assert other.key == stored.manifest_key
    commit = await repository.commit_shard(other, tmp_path / "other")
    assert (commit.first, commit.manifest) == (False, stored.manifest)
    assert objects(store) == before


async def test_a_range_whose_committed_manifest_cannot_be_read_is_not_committed_over(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard, tmp_path: Path
) -> None:
    await store.write(stored.manifest_key, b"{")
    before = objects(store)
    again = write(open_shard(listings(0, 5)), tmp_path / "again")
    with pytest.raises(RepositoryError, match="is not a manifest"):
        await repository.commit_shard(again, tmp_path / "again")
    assert objects(store) == before


async def test_shards_of_the_bucket_that_were_cut_elsewhere_are_named(
    repository: ModelRepository, stored: StoredShard, tmp_path: Path
) -> None:
    async def others(start: int, end: int, partition: int = 0) -> tuple[str, ...]:
        shard = open_shard(listings(start, end), from_offset=start, partition=partition)
        folder = tmp_path / f"{partition}-{start}-{end}"
        return (await repository.commit_shard(write(shard, folder), folder)).overlapping

    assert await others(0, 5) == ()
    assert await others(5, 9) == ()
    assert await others(0, 5, partition=1) == ()
    assert await others(0, 3) == (stored.manifest.shard_id,)


async def test_a_damaged_object_that_no_manifest_names_is_overwritten(
    store: WatchedStore, repository: ModelRepository, tmp_path: Path
) -> None:
    manifest = write(open_shard(listings(0, 5)), tmp_path / "shard")
    await store.write(object_key(manifest, INDEX_FILE), b"half of an upload")
    assert (await repository.commit_shard(manifest, tmp_path / "shard")).first
    fetched = await repository.fetch(StoredShard(manifest, manifest.key), tmp_path / "c")
    assert SealedShard(manifest, fetched).rows == 5


async def test_files_that_are_there_already_are_kept(
    store: WatchedStore, repository: ModelRepository, tmp_path: Path
) -> None:
    manifest = write(open_shard(listings(0, 5)), tmp_path / "shard")
    key = object_key(manifest, INDEX_FILE)
    version = await store.upload(key, tmp_path / "shard" / INDEX_FILE)
    assert (await repository.commit_shard(manifest, tmp_path / "shard")).first
    assert (await store.stat(key)).version == version


class Large:
    """A shard with a file of 12 MiB, large enough to span many chunks."""

    def __init__(self, folder: Path) -> None:
        manifest = write(open_shard(listings(0, 5)), folder)
        self.folder = folder
        self.path = folder / INDEX_FILE
        self.content = random.Random(7).randbytes(12 * 1024 * 1024)
        self.path.write_bytes(self.content)
        rows = [entry for entry in manifest.files if entry.name != INDEX_FILE]
        self.manifest = replace(manifest, files=(file_entry(self.path), *rows))
        self.key = object_key(self.manifest, INDEX_FILE)


@pytest.fixture
def large(tmp_path: Path) -> Large:
    return Large(tmp_path / "large")


async def test_a_large_file_that_is_there_already_is_compared_piece_by_piece(
    store: WatchedStore, repository: ModelRepository, large: Large
) -> None:
    version = await store.write(large.key, large.content)
    assert (await repository.commit_shard(large.manifest, large.folder)).first
    assert store.reads == store.downloads == []
    assert store.streams == [large.key]
    assert (await store.stat(large.key)).version == version


async def test_the_event_loop_is_not_blocked_while_a_large_file_is_hashed(
    store: WatchedStore,
    repository: ModelRepository,
    large: Large,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.write(large.key, large.content)
    loop, real, turns = asyncio.get_running_loop(), hashlib.sha256, []

    class WaitsForTheLoop:
        """Hashes only after the loop has run a callback, which it cannot if hashing blocks it."""

        def __init__(self, data: bytes = b"") -> None:
            self._digest = real()
            self.update(data)

        def update(self, data: bytes) -> None:
            turned = threading.Event()
            loop.call_soon_threadsafe(turned.set)
            if data:
                turns.append(turned.wait(5))
            self._digest.update(data)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr(hashlib, "sha256", WaitsForTheLoop)
    await repository.commit_shard(large.manifest, large.folder)
    await repository.fetch(
        StoredShard(large.manifest, large.manifest.key), large.folder.parent / "cache"
    )
    assert len(turns) >= 2
    assert all(turns)


async def test_a_file_of_a_different_size_is_overwritten_without_reading_it(
    store: WatchedStore, repository: ModelRepository, large: Large
) -> None:
    await store.write(large.key, large.content[:-1])
    assert (await repository.commit_shard(large.manifest, large.folder)).first
    assert store.reads == store.streams == []
    assert (await store.stat(large.key)).size == len(large.content)


async def test_a_different_file_of_the_same_size_is_overwritten(
    store: WatchedStore, repository: ModelRepository, large: Large
) -> None:
    await store.write(large.key, flipped(large.content))
    assert (await repository.commit_shard(large.manifest, large.folder)).first
    assert store.streams == [large.key]
    assert (await store.read(large.key))[0] == large.content


async def test_committing_lists_no_more_than_the_bucket(
    store: WatchedStore, repository: ModelRepository, large: Large
) -> None:
    await store.write(large.key, flipped(large.content))
    await repository.commit_shard(large.manifest, large.folder)
    await repository.commit_shard(large.manifest, large.folder)
    assert set(store.lists) == {f"indexes/{MODEL}/hourly/{large.manifest.bucket_start}/"}


class ChangesWhileStreamed(WatchedStore):
    """Triggers an event during the first stream, which then fails as on a remote store."""

    happening: Callable[[], Awaitable[object]] | None = None

    async def stream(self, key: str) -> AsyncGenerator[bytes]:
        happening, self.happening = self.happening, None
        async with aclosing(super().stream(key)) as chunks:
            async for chunk in chunks:
                yield chunk
                if happening is not None:
                    await happening()
                    raise PreconditionFailed(f"object {key} was overwritten while it was read")


@pytest.mark.parametrize("theirs", ["garbage", "the same", "nothing"])
async def test_a_file_that_changes_while_it_is_compared_is_compared_again(
    tmp_path: Path, large: Large, theirs: str
) -> None:
    store = ChangesWhileStreamed(tmp_path / "store")
    await store.write(large.key, flipped(large.content))

    async def change() -> None:
        if theirs == "nothing":
            await store.delete(large.key)
        else:
            changed = large.content if theirs == "the same" else large.content[::-1]
            await store.write(large.key, changed)

    store.happening = change
    assert (await ModelRepository(store).commit_shard(large.manifest, large.folder)).first
    assert (await store.read(large.key))[0] == large.content
    uploads = store.writes.count(large.key)
    # Our own are the refused upload and one over garbage; the test's are the first and the change.
    assert uploads == {"garbage": 4, "the same": 3, "nothing": 3}[theirs]


class InterruptedUpload(WatchedStore):
    """Triggers an event right before an upload."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.happening: Callable[[], Awaitable[object]] | None = None

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        happening, self.happening = self.happening, None
        if happening is not None:
            await happening()
        return await super().upload(key, path, only_if=only_if)


async def test_two_replicas_that_commit_at_once_agree_on_one_commit(tmp_path: Path) -> None:
    store = InterruptedUpload(tmp_path / "store")
    one, other = ModelRepository(store), ModelRepository(store)
    manifest = write(open_shard(listings(0, 5)), tmp_path / "one")
    twin = write(open_shard(listings(0, 5)), tmp_path / "other")
    firsts: list[bool] = []

    async def other_commits() -> None:
        firsts.append((await other.commit_shard(twin, tmp_path / "other")).first)

    store.happening = other_commits
    firsts.append((await one.commit_shard(manifest, tmp_path / "one")).first)
    assert firsts == [True, False]


async def test_two_replicas_that_overwrite_the_same_garbage_do_not_interfere(
    tmp_path: Path,
) -> None:
    store = InterruptedUpload(tmp_path / "store")
    repository = ModelRepository(store)
    manifest = write(open_shard(listings(0, 5)), tmp_path / "one")
    key = object_key(manifest, INDEX_FILE)
    await store.write(key, b"garbage")

    async def other_is_about_to_write_over_it_too() -> None:
        async def other_writes_over_it() -> None:
            await store.upload(key, tmp_path / "one" / INDEX_FILE)

        store.happening = other_writes_over_it

    # The first upload finds garbage; right before the second one, another replica is done.
    store.happening = other_is_about_to_write_over_it_too
    assert (await repository.commit_shard(manifest, tmp_path / "one")).first
    assert (await store.read(key))[0] == (tmp_path / "one" / INDEX_FILE).read_bytes()


async def test_a_shard_that_is_committed_concurrently_with_different_content_stays_intact(
    tmp_path: Path,
) -> None:
    store = InterruptedUpload(tmp_path / "store")
    one, other = ModelRepository(store), ModelRepository(store)
    theirs = write(open_shard(listings(0, 5)), tmp_path / "theirs")
    ours = write(open_shard(listings(1, 6)), tmp_path / "ours")
    store.happening = lambda: other.commit_shard(theirs, tmp_path / "theirs")
    assert (await one.commit_shard(ours, tmp_path / "ours")).manifest == theirs
    await other.fetch(StoredShard(theirs, theirs.key), tmp_path / "fetched")


class InterruptedManifest(WatchedStore):
    """Triggers an event right before a manifest is written."""

    happening: Callable[[], Awaitable[object]] | None = None

    async def write(self, key: str, data: bytes, *, only_if: OnlyIf | None = None) -> Version:
        if self.happening is not None and key.endswith(f"/{MANIFEST_FILE}"):
            happening, self.happening = self.happening, None
            await happening()
        return await super().write(key, data, only_if=only_if)


async def test_a_manifest_vouches_for_its_own_files_when_a_replica_with_other_bytes_uploads_too(
    tmp_path: Path,
) -> None:
    store = InterruptedManifest(tmp_path / "store")
    one, other = ModelRepository(store), ModelRepository(store)
    ours = write(open_shard(listings(0, 5)), tmp_path / "ours")
    theirs = write(open_shard(listings(1, 6)), tmp_path / "theirs")
    assert ours.key == theirs.key

    async def other_uploads_and_ends() -> None:
        for entry in theirs.files:
            path = tmp_path / "theirs" / entry.name
            await other._upload_once(theirs.object_key(entry), path, entry)

    store.happening = other_uploads_and_ends
    assert (await one.commit_shard(ours, tmp_path / "ours")).first
    assert store.happening is None, "the other replica uploaded after all of our files"
    folder = await one.fetch(StoredShard(ours, ours.key), tmp_path / "fetched")
    assert SealedShard(ours, folder).visible_rows_of("listing-0")


@pytest.mark.parametrize("name", [INDEX_FILE, ROWS_FILE])
@pytest.mark.parametrize("damage", ["deleted", "changed"])
async def test_files_that_are_not_as_they_were_written_are_never_committed(
    store: WatchedStore, repository: ModelRepository, tmp_path: Path, name: str, damage: str
) -> None:
    manifest = write(open_shard(listings(0, 5)), tmp_path / "shard")
    path = tmp_path / "shard" / name
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises((DiskUnavailable, ObjectStoreError), match=name):
        await repository.commit_shard(manifest, tmp_path / "shard")
    assert await repository.shards(MODEL, HOURLY) == ([], [])
    again = write(open_shard(listings(0, 5)), tmp_path / "shard")
    assert (await repository.commit_shard(again, tmp_path / "shard")).first
    await repository.fetch(StoredShard(again, again.key), tmp_path / "fetched")


# --- fetching -----------------------------------------------------------------------------------


async def test_a_fetched_shard_equals_the_committed_one(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard, tmp_path: Path
) -> None:
    folder = await repository.fetch(stored, tmp_path / "cache")
    assert folder == tmp_path / "cache" / stored.manifest.shard_id
    assert {entry: file_entry(folder / entry.name) for entry in stored.manifest.files} == {
        entry: entry for entry in stored.manifest.files
    }
    assert SealedShard(stored.manifest, folder).visible_rows_of("listing-3")


async def test_only_damaged_files_are_fetched_again(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard, tmp_path: Path
) -> None:
    folder = await repository.fetch(stored, tmp_path / "cache")
    assert len(store.downloads) == 2
    await repository.fetch(stored, tmp_path / "cache")
    assert len(store.downloads) == 2
    (folder / ROWS_FILE).write_bytes(b"damaged")
    await repository.fetch(stored, tmp_path / "cache")
    assert store.downloads[2:] == [object_key(stored, ROWS_FILE)]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("name", [INDEX_FILE, ROWS_FILE])
@pytest.mark.parametrize("damage", [flipped, lambda data: data[:-1], lambda _data: b""])
async def test_a_file_that_does_not_match_the_manifest_is_rejected_by_key_and_not_kept(
    store: WatchedStore,
    repository: ModelRepository,
    stored: StoredShard,
    tmp_path: Path,
    name: str,
    damage: Callable[[bytes], bytes],
) -> None:
    key = object_key(stored, name)
    whole, _ = await store.read(key)
    await store.write(key, damage(whole))
    with pytest.raises(CorruptShard, match=rf"{key} has \d+ bytes .* manifest says {len(whole)}"):
        await repository.fetch(stored, tmp_path / "cache")
    assert not (tmp_path / "cache" / stored.manifest.shard_id / name).exists()
    await store.write(key, whole)
    folder = await repository.fetch(stored, tmp_path / "cache")
    assert (folder / name).read_bytes() == whole


@pytest.mark.parametrize("name", [INDEX_FILE, ROWS_FILE])
async def test_a_file_that_is_missing_is_refused_by_key(
    store: WatchedStore,
    repository: ModelRepository,
    stored: StoredShard,
    tmp_path: Path,
    name: str,
) -> None:
    key = object_key(stored, name)
    (store.root / key).unlink()
    with pytest.raises(CorruptShard, match=f"{key} is missing, though its manifest names it"):
        await repository.fetch(stored, tmp_path / "cache")


async def test_a_shard_of_the_first_format_is_fetched_by_the_plain_names_of_its_files(
    store: WatchedStore, repository: ModelRepository, tmp_path: Path
) -> None:
    written = write(open_shard(listings(0, 5)), tmp_path / "shard", format="shashin.manifest/1")
    for name in (INDEX_FILE, ROWS_FILE):
        await store.upload(f"{written.folder}/{name}", tmp_path / "shard" / name)
    await store.write(written.key, written.to_json())
    (stored,), _ = await repository.shards(MODEL, HOURLY)
    folder = await repository.fetch(stored, tmp_path / "cache")
    assert SealedShard(stored.manifest, folder).rows == 5
    # The same content in the new format is no other commit.
    again = write(open_shard(listings(0, 5)), tmp_path / "again")
    commit = await repository.commit_shard(again, tmp_path / "again")
    assert (commit.first, commit.manifest.files) == (False, again.files)


# --- listing ------------------------------------------------------------------------------------


async def test_shards_are_listed_in_log_order_and_a_folder_without_a_manifest_is_none(
    store: WatchedStore, repository: ModelRepository, tmp_path: Path
) -> None:
    for partition, start, end in ((1, 0, 2), (0, 9, 12), (0, 0, 9)):
        shard = open_shard(listings(start, end), from_offset=start, partition=partition)
        await commit(repository, shard, tmp_path)
    await store.write(f"indexes/{MODEL}/hourly/7/half-uploaded/{INDEX_FILE}", b"half")
    found, errors = await repository.shards(MODEL, HOURLY)
    assert [str(r) for s in found for r in s.manifest.source_ranges] == [
        "0:[0, 9)",
        "0:[9, 12)",
        "1:[0, 2)",
    ]
    assert errors == []
    assert (await repository.shards(MODEL, "daily"))[0] == []
    assert (await repository.shards("another-model", HOURLY))[0] == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{", CorruptShard),
        (b"[]", CorruptShard),
        (b'{"format": "shashin.manifest/9"}', UnknownFormat),
        (b'{"format": "shashin.manifest/1"}', CorruptShard),
    ],
)
async def test_an_unreadable_manifest_is_reported_and_the_others_are_returned(
    store: WatchedStore,
    repository: ModelRepository,
    stored: StoredShard,
    content: bytes,
    error: type[RepositoryError],
) -> None:
    key = f"indexes/{MODEL}/hourly/7/broken/{MANIFEST_FILE}"
    await store.write(key, content)
    for _ in range(2):
        found, errors = await repository.shards(MODEL, HOURLY)
        assert found == [stored]
        assert [(type(e.error), e.shard_id, e.ranges) for e in errors] == [(error, "broken", ())]
        assert key in errors[0].error.message


async def test_the_range_of_an_unreadable_manifest_is_known_from_its_key(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard
) -> None:
    await store.write(stored.manifest_key, b"{")
    _, (unreadable,) = await repository.shards(MODEL, HOURLY)
    assert unreadable.shard_id == stored.manifest.shard_id
    assert unreadable.ranges == stored.manifest.source_ranges


async def test_the_ranges_of_a_built_shard_stay_known_once_its_manifest_was_read(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard
) -> None:
    ranges = (OffsetRange(0, 0, 5), OffsetRange(1, 0, 5))
    built = replace(stored.manifest, source_ranges=ranges, shard_id=shard_id(MODEL, HOURLY, ranges))
    await store.write(built.key, built.to_json())
    assert len((await repository.shards(MODEL, HOURLY))[0]) == 2
    await store.write(built.key, b"{")
    _, (unreadable,) = await repository.shards(MODEL, HOURLY)
    assert unreadable.ranges == ranges
    _, (unreadable,) = await ModelRepository(store).shards(MODEL, HOURLY)
    assert unreadable.ranges == (), "no manifest was read, and the key has only a hash"


class DeletedOnceListed(WatchedStore):
    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        found = await super().list_objects(prefix)
        for info in found:
            await self.delete(info.key)
        return found


async def test_a_shard_that_is_deleted_while_it_is_listed_is_left_out(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path / "store")
    await commit(ModelRepository(store), open_shard(listings(0, 5)), tmp_path / "scratch")
    deleting = ModelRepository(DeletedOnceListed(tmp_path / "store"))
    assert await deleting.shards(MODEL, HOURLY) == ([], [])


async def test_a_manifest_is_read_once_unless_it_was_written_again(
    store: WatchedStore, repository: ModelRepository, stored: StoredShard
) -> None:
    for _ in range(3):
        await repository.shards(MODEL, HOURLY)
    assert store.reads.count(stored.manifest_key) == 1
    fixed = replace(stored.manifest, created_at=5.0)
    await store.write(stored.manifest_key, fixed.to_json())
    found, _ = await repository.shards(MODEL, HOURLY)
    assert found == [StoredShard(fixed, stored.manifest_key)]


async def test_a_shard_without_a_manifest_is_not_found(repository: ModelRepository) -> None:
    with pytest.raises(ObjectNotFound):
        await repository.read_shard(f"indexes/{MODEL}/hourly/7/none/{MANIFEST_FILE}")


# --- the pointer --------------------------------------------------------------------------------


def pointer(*shards: str) -> Pointer:
    return Pointer(MODEL, HOURLY, tuple(PointedShard(shard, f"key-of-{shard}") for shard in shards))


async def test_a_pointer_is_moved_only_over_the_one_that_was_read(
    repository: ModelRepository,
) -> None:
    assert await repository.read_pointer(MODEL, HOURLY) == (None, None)
    first = await repository.move_pointer(pointer("a"), over=None)
    assert await repository.read_pointer(MODEL, HOURLY) == (pointer("a"), first)
    anothers = await repository.move_pointer(Pointer("another-model", HOURLY, ()), over=None)
    for stale in (None, anothers):
        with pytest.raises(PreconditionFailed):
            await repository.move_pointer(pointer("b"), over=stale)
    second = await repository.move_pointer(pointer("a", "b"), over=first)
    assert second != first
    with pytest.raises(PreconditionFailed):
        await repository.move_pointer(pointer("c"), over=first)
    assert await repository.read_pointer(MODEL, HOURLY) == (pointer("a", "b"), second)
    assert await repository.read_pointer(MODEL, "daily") == (None, None)


async def test_an_unchanged_pointer_is_read_once_however_often_it_is_polled(
    store: WatchedStore, repository: ModelRepository
) -> None:
    key = pointer_key(MODEL, HOURLY)
    writer = ModelRepository(store)
    assert await repository.read_pointer(MODEL, HOURLY) == (None, None)
    version = None
    for number in range(3):
        version = await writer.move_pointer(pointer(f"shard-{number}"), over=version)
        store.reads.clear()
        for _ in range(20):
            expected = (pointer(f"shard-{number}"), version)
            assert await repository.read_pointer(MODEL, HOURLY) == expected
        assert store.reads == [key], "a change is seen at the next poll, and read once"
    await store.delete(key)
    assert await repository.read_pointer(MODEL, HOURLY) == (None, None)


async def test_a_pointer_that_becomes_garbage_is_rejected_at_every_poll_until_it_is_fixed(
    store: WatchedStore, repository: ModelRepository
) -> None:
    first = await repository.move_pointer(pointer("a"), over=None)
    assert await repository.read_pointer(MODEL, HOURLY) == (pointer("a"), first)
    garbage = await store.write(pointer_key(MODEL, HOURLY), b"garbage")
    for _ in range(2):
        with pytest.raises(CorruptShard):
            await repository.read_pointer(MODEL, HOURLY)
    second = await repository.move_pointer(pointer("a", "b"), over=garbage)
    assert await repository.read_pointer(MODEL, HOURLY) == (pointer("a", "b"), second)


async def test_a_pointer_that_is_garbage_is_refused_by_key(
    store: WatchedStore, repository: ModelRepository
) -> None:
    await store.write(f"serving/{MODEL}/hourly.json", b"garbage")
    with pytest.raises(CorruptShard, match=rf"serving/{MODEL}/hourly\.json is not a pointer"):
        await repository.read_pointer(MODEL, HOURLY)
