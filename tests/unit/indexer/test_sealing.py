"""Sealer: writes, commits and announces shards; replicas need no leader."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from services.indexer.sealing import Sealer, difference
from services.indexer.settings import IndexerSettings
from shashin.errors import ObjectStoreUnavailable
from shashin.kafka.producer import Producer
from shashin.objectstore.protocol import OnlyIf, Version
from shashin.offsets.cut import CutReason
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import OffsetRange
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import ModelRepository
from shashin.runtime.health import Health
from shashin.runtime.work_folder import MARKER, WorkFolder
from shashin.shards.format.file_entry import file_entry
from shashin.shards.format.hidden_snapshot import combined
from shashin.shards.format.manifest import PLAIN_NAMES, ROWS_FILE, Manifest, model_file_key
from shashin.shards.format.row import NewRow
from shashin.shards.kinds.ivf_sq4 import IvfSq4Index
from shashin.shards.kinds.quantizer import Quantizer
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE, UsearchHnsw
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2
from tests.support.hidden_map import HiddenMap
from tests.support.loops import running
from tests.support.made_shards import (
    BUCKET_START,
    DIMENSIONS,
    MODEL,
    SPACE,
    WatchedStore,
    listings,
    open_shard,
    vector_of,
    vectors,
    write,
)
from tests.support.searching import search_shards
from tests.support.waiting import until
from tests.unit.indexer.sent_records import SentRecords


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


class Replica:
    """A sealer with the shards it committed and the records it sent."""

    def __init__(
        self,
        store: WatchedStore,
        work: Path,
        executor: ThreadPoolExecutor,
        *,
        kind: str = "ivf-sq4",
    ) -> None:
        self.work = work
        self.sealed: list[str] = []
        self.sent = SentRecords()
        settings = IndexerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository=store.root.as_uri(),
            work_folder=work,
            discovery=(work / "discovery.json").as_uri(),
            sealed_index_kind=kind,
        )

        async def committed(shard: OpenShard) -> None:
            self.sealed.append(shard.shard_id)

        self.repository = ModelRepository(store)
        self.snapshots = HiddenSnapshots(store)
        self.hidden_applied = LogPosition()
        self.sealer = Sealer(
            settings,
            WorkFolder(work),
            self.repository,
            Quantizers(store, MODEL),
            self.snapshots,
            cast("Producer", self.sent),
            executor,
            committed,
            lambda: self.hidden_applied,
        )

    def queue(self, *shards: OpenShard) -> None:
        for shard in shards:
            self.sealer.seal(shard, CutReason.ROWS)

    async def seal(self, *shards: OpenShard) -> None:
        """Seal these, and stop."""
        self.queue(*shards)
        before = len(self.sealed)
        async with running(self.sealer.loop()):
            await until(lambda: len(self.sealed) == before + len(shards), "all are sealed")


async def test_a_closed_range_is_committed_announced_and_removed_from_disk(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    replica = Replica(store, tmp_path / "work", executor)
    shard = open_shard(listings(0, 12), from_offset=40, partition=2)
    await replica.seal(shard)

    (stored,), errors = await ModelRepository(store).shards(MODEL, HOURLY)
    manifest = stored.manifest
    assert errors == []
    assert manifest.source_ranges == (OffsetRange(2, 40, 52),)
    assert (manifest.rows, manifest.listings, manifest.cut_reason) == (12, 12, "rows")
    assert manifest.bucket_start == BUCKET_START
    assert manifest.recall_at_10 is not None
    assert manifest.recall_at_10 >= 0.99
    folder = await ModelRepository(store).fetch(stored, tmp_path / "cache")
    assert SealedShard(manifest, folder).rows == 12

    assert replica.sealed == [shard.shard_id]
    (record,) = replica.sent.records
    announced = events_pb2.SealedShard.FromString(record.value)
    assert (record.topic, record.key) == ("indexes.sealed", manifest.shard_id.encode())
    assert announced.manifest_key == stored.manifest_key
    assert (announced.shard_id, announced.tier, announced.model_id) == (
        manifest.shard_id,
        HOURLY,
        MODEL,
    )
    assert [path.name for path in replica.work.iterdir()] == [MARKER]


async def test_a_second_replica_finds_its_shards_already_committed(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    ranges = ((0, 5), (5, 9))
    written = []
    for name in ("one", "two"):
        written.append(len(store.writes))
        replica = Replica(store, tmp_path / name, executor)
        shards = [open_shard(listings(*bounds), from_offset=bounds[0]) for bounds in ranges]
        await replica.seal(*shards)
        assert replica.sealed == [shard.shard_id for shard in shards], "in log order"
        assert len(replica.sent.records) == 2, "announcing twice is harmless"
    stored, _ = await ModelRepository(store).shards(MODEL, HOURLY)
    assert [str(s.manifest.source_ranges[0]) for s in stored] == ["0:[0, 5)", "0:[5, 9)"]
    assert written == [0, len(store.writes)], "the second replica writes nothing"


async def with_quantizer(store: WatchedStore, folder: Path) -> Quantizer:
    """Give the model a quantizer."""
    quantizer = Quantizer(vectors(16, 1))
    quantizer.write(folder / "quantizer.npy")
    entry = file_entry(folder / "quantizer.npy")
    await store.upload(model_file_key(MODEL, entry), folder / "quantizer.npy")
    await Quantizers(store, MODEL).offer(entry, len(quantizer))
    return quantizer


async def test_a_shard_is_divided_by_the_quantizer_of_the_model(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    replica = Replica(store, tmp_path / "work", executor)
    await replica.seal(open_shard(listings(0, 12)))
    quantizer = await with_quantizer(store, tmp_path)
    await replica.seal(open_shard(listings(12, 40), from_offset=12))
    before, after = (await ModelRepository(store).shards(MODEL, HOURLY))[0]
    assert [s.manifest.index_parameters["lists"] for s in (before, after)] == [1, 16]
    assert after.manifest.model_files == ("quantizer.npy",)
    folder = await ModelRepository(store).fetch(after, tmp_path / "cache")
    shard = SealedShard(after.manifest, folder)
    index = shard.stack_member.index
    assert isinstance(index, IvfSq4Index)
    assert index.quantizer.is_same(quantizer)
    for number in range(28):
        ((hit, *_),) = search_shards([shard], vector_of(f"listing-{12 + number}")[None], 3)
        assert hit.row.listing_id == f"listing-{12 + number}"


@pytest.mark.parametrize("damaged", ["record", "file", "missing file"])
async def test_a_quantizer_that_cannot_be_read_is_named_and_delays_no_shard(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor, damaged: str
) -> None:
    await with_quantizer(store, tmp_path)
    newest = await Quantizers(store, MODEL).newest()
    assert newest is not None
    key = {
        "record": f"models/{MODEL}/quantizer.json",
        "file": model_file_key(MODEL, newest.file),
        "missing file": model_file_key(MODEL, newest.file),
    }[damaged]
    whole, _ = await store.read(key)
    if damaged == "missing file":
        await store.delete(key)
    else:
        await store.write(key, whole[:50])
    replica, health = Replica(store, tmp_path / "work", executor), Health()
    replica.queue(open_shard(listings(0, 5)))
    async with running(replica.sealer.loop(), health=health):
        await until(lambda: len(replica.sealed) == 1, "it is sealed")
        (problem,) = health.problems()
        assert problem.startswith("the model's quantizer: shards are sealed without it: models/")
        if damaged == "missing file":
            assert f"{key} is missing, though models/{MODEL}/quantizer.json names it" in problem
            assert "delete" in problem, "it says what to do"
        await store.write(key, whole)
        replica.queue(open_shard(listings(5, 9), from_offset=5))
        await until(lambda: len(replica.sealed) == 2, "the next one is sealed")
        assert not health.problems()
    stored, _ = await ModelRepository(store).shards(MODEL, HOURLY)
    assert [shard.manifest.index_parameters["lists"] for shard in stored] == [1, 16]


def sealed_differently() -> Counter[str]:
    """Return how often replicas sealed differently, by what differs."""
    name = "shashin_indexer_sealed_differently_total"
    values = {
        what: REGISTRY.get_sample_value(name, {"what": what}) for what in ("index", "rows", "range")
    }
    return Counter({what: int(value) for what, value in values.items() if value})


def set_aside() -> float | None:
    return REGISTRY.get_sample_value("shashin_indexer_set_aside_shards")


def with_other_index_bytes(rows: Sequence[NewRow]) -> OpenShard:
    """Return a shard over the same rows with another graph, as another CPU may build it."""
    kind = UsearchHnsw(expansion_add=1, connectivity=2)
    shard = OpenShard(0, 0, SPACE, kind, HiddenMap())
    shard.add(rows, position=len(rows), bucket_start=BUCKET_START)
    return shard


@pytest.mark.parametrize("what", ["index", "rows", "range"])
async def test_a_replica_that_sealed_differently_is_counted_and_goes_on_with_the_first_commit(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor, what: str
) -> None:
    other = {
        "index": lambda: with_other_index_bytes(listings(0, 40)),
        "rows": lambda: open_shard(listings(1, 41)),
        "range": lambda: open_shard(listings(0, 39)),
    }[what]()
    first, second = (
        Replica(store, tmp_path / name, executor, kind="usearch-hnsw") for name in ("one", "two")
    )
    await first.seal(open_shard(listings(0, 40)))
    (stored,), _ = await ModelRepository(store).shards(MODEL, HOURLY)
    before = sealed_differently()
    await second.seal(other, open_shard(listings(40, 45), from_offset=40))
    assert sealed_differently() - before == {what: 1}
    assert second.sealed == [other.shard_id, "open.p0000.000000000040"]
    assert (await second.repository.read_shard(stored.manifest_key)) == stored, "it stays"
    await second.repository.fetch(stored, tmp_path / "cache")


async def test_replicas_that_sealed_alike_are_not_counted_as_different(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    before = sealed_differently()
    for name in ("one", "two"):
        await Replica(store, tmp_path / name, executor).seal(open_shard(listings(0, 40)))
    assert sealed_differently() == before


def test_other_bytes_of_a_file_are_a_difference_of_the_index_or_of_the_rows(tmp_path: Path) -> None:
    ours = write(open_shard(listings(0, 5)), tmp_path)

    def with_other(name: str) -> Manifest:
        files = (replace(e, sha256="0" * 64) if e.name == name else e for e in ours.files)
        return replace(ours, files=tuple(files))

    assert difference(ours, replace(ours, created_at=7.0, format=PLAIN_NAMES)) is None
    assert difference(ours, replace(ours, files=ours.files[::-1])) is None
    assert difference(ours, with_other(INDEX_FILE)) == "index"
    assert difference(ours, with_other(ROWS_FILE)) == "rows"
    assert difference(ours, replace(ours, index_kind="flat-f16")) == "index"


@pytest.mark.parametrize("newer", [False, True])
async def test_a_range_whose_committed_manifest_cannot_be_read_is_set_aside_and_the_others_are_sealed(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor, newer: bool
) -> None:
    await Replica(store, tmp_path / "one", executor).seal(open_shard(listings(0, 5)))
    (stored,), _ = await ModelRepository(store).shards(MODEL, HOURLY)
    whole = stored.manifest.to_json()
    unreadable = whole.replace(b"manifest/3", b"manifest/5") if newer else whole[:100]
    await store.write(stored.manifest_key, unreadable)

    replica, health = Replica(store, tmp_path / "two", executor), Health()
    replica.queue(open_shard(listings(0, 5)), open_shard(listings(5, 9), from_offset=5))
    async with running(replica.sealer.loop(), health=health):
        await until(lambda: replica.sealed == ["open.p0000.000000000005"], "the other is sealed")
        (problem,) = health.problems()
        assert problem.startswith(
            f"shard {stored.manifest.shard_id}: set aside, its rows are served"
        )
        assert set_aside() == 1
        await store.write(stored.manifest_key, whole)
        await until(lambda: len(replica.sealed) == 2, "it is retried and found to be committed")
        await until(lambda: not health.problems(), "the problem is cleared")
    assert set_aside() == 0
    assert [record.key for record in replica.sent.records][1] == stored.manifest.shard_id.encode()


class LosesFiles(WatchedStore):
    """A store during whose first upload something happens to the work folder."""

    happening: Callable[[], None] | None = None

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        happening, self.happening = self.happening, None
        if happening is not None:
            happening()
        return await super().upload(key, path, only_if=only_if)


def delete_all(work: Path) -> None:
    shutil.rmtree(work)


def damage_each(work: Path) -> None:
    for path in work.glob("*/*"):
        path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("happens", [delete_all, damage_each])
async def test_a_shard_whose_files_are_lost_before_the_commit_is_written_again(
    tmp_path: Path, executor: ThreadPoolExecutor, happens: Callable[[Path], None]
) -> None:
    store = LosesFiles(tmp_path / "store")
    replica = Replica(store, tmp_path / "work", executor)
    store.happening = lambda: happens(replica.work)
    await replica.seal(open_shard(listings(0, 5)))
    (stored,), _ = await ModelRepository(store).shards(MODEL, HOURLY)
    await ModelRepository(store).fetch(stored, tmp_path / "cache")
    assert [path.name for path in replica.work.iterdir()] == [MARKER], "the folder is owned again"


async def test_a_shard_is_written_once_while_the_store_is_unavailable(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    class Unavailable(WatchedStore):
        refused = 0

        async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
            if self.refused < 3:
                self.refused += 1
                raise ObjectStoreUnavailable("the store is down")
            return await super().upload(key, path, only_if=only_if)

    replica = Replica(Unavailable(tmp_path / "store"), tmp_path / "work", executor)
    shard = open_shard(listings(0, 5))
    written: list[Path] = []
    real_write = shard.write

    def counting(folder: Path, **origin: Any) -> Manifest:
        written.append(folder)
        return real_write(folder, **origin)

    shard.write = counting  # type: ignore[method-assign]
    await replica.seal(shard)
    assert len(written) == 1


async def test_a_shard_has_a_snapshot_of_its_mask_before_it_is_committed(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    replica = Replica(store, tmp_path / "work", executor)
    shard = open_shard(listings(0, 5))
    shard.hide("listing-1", 2)
    shard.hide("listing-4", 2)
    replica.hidden_applied = LogPosition("topic", {0: 7, 1: 3})
    await replica.seal(shard)
    (stored,), _ = await ModelRepository(store).shards(MODEL, HOURLY)
    ((key, snapshot),) = (await replica.snapshots.read(stored.manifest)).by_key.items()
    assert snapshot.rows.tolist() == [1, 4]
    assert snapshot.position == replica.hidden_applied
    assert store.writes.index(key) < store.writes.index(stored.manifest_key)


async def test_the_snapshot_of_a_replica_that_sealed_other_rows_is_not_used(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    first, second = (Replica(store, tmp_path / name, executor) for name in ("one", "two"))
    for replica, rows in ((first, listings(0, 5)), (second, listings(1, 6))):
        shard = open_shard(rows)
        shard.hide("listing-1", 2)
        replica.hidden_applied = LogPosition("topic", {0: 7 if replica is first else 9})
        await replica.seal(shard)
    (stored,), _ = await ModelRepository(store).shards(MODEL, HOURLY)
    found = (await first.snapshots.read(stored.manifest)).by_key.values()
    assert len(found) == 2
    state = combined(stored.manifest, found, "topic")
    assert (state.rows.tolist(), state.position.offset(0)) == ([1], 7)
