"""ImageShards over real folders: ready once every shard is served, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from services.index_server.image_shards import ImageShards
from services.index_server.swap import CONCURRENT_LOADS, ShardSwapper
from shashin.errors import ObjectStoreUnavailable, SettingsError
from shashin.model_space import ModelSpace
from shashin.objectstore.protocol import ObjectInfo
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import OffsetRange
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.runtime.health import Health
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import MANIFEST_FILE, ROWS_FILE, Manifest
from shashin.shards.format.shard_id import shard_id
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE
from shashin.shards.row_filter import RowFilter
from shashin.tiers import DAILY, HOURLY
from tests.support.hidden_log import MemoryLog, catch_up_of
from tests.support.image_folder import lay_out
from tests.support.loops import running
from tests.support.made_shards import (
    DIMENSIONS,
    MODEL,
    SPACE,
    WatchedStore,
    listings,
    open_shard,
    vector_of,
)
from tests.support.searching import search_shards
from tests.support.waiting import until

SECOND = OffsetRange(0, 5, 9)
"""What the second shard of a test covers."""


class Store(WatchedStore):
    """A store that can be unavailable."""

    down = False

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        found = await super().list_objects(prefix)
        if self.down:
            raise ObjectStoreUnavailable("the store is down")
        return found


class Image:
    """A folder of shards, and the index server that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "indexes"
        self.health = Health()
        self.health.ready_when_degraded = True
        self.store = Store(folder / "store")
        self.snapshots = HiddenSnapshots(self.store)
        self.served = ServedShards()
        self.hidden_log = MemoryLog()

    def shard(self, begin: int, end: int, **changes: object) -> Manifest:
        return lay_out(open_shard(listings(begin, end), from_offset=begin), self.folder, **changes)

    def file(self, shard: Manifest, name: str) -> Path:
        return self.folder / shard.shard_id / name

    @asynccontextmanager
    async def served_by(self, space: ModelSpace = SPACE, tier: str = HOURLY) -> AsyncIterator[None]:
        catch_up = catch_up_of(self.served, self.hidden_log)
        swapper = ShardSwapper(
            space,
            tier,
            self.served,
            self.snapshots,
            catch_up,
            concurrent_loads=CONCURRENT_LOADS,
        )
        async with running(ImageShards(self.folder, swapper).loop(), health=self.health):
            yield

    async def until_ready(self) -> None:
        await until(lambda: not self.health.readiness_problems(), "it is ready")

    async def until_refused(self, why: str) -> None:
        await until(lambda: why in str(self.health.readiness_problems()), f"it is not ready: {why}")

    def ids(self) -> list[str]:
        return [shard.shard_id for shard in self.served.snapshot().shards]

    def finds(self, listing: str) -> bool:
        query = vector_of(listing)[None, :]
        (hits,) = search_shards(self.served.snapshot().shards, query, 1, RowFilter())
        return [hit.row.listing_id for hit in hits] == [listing]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


async def test_it_is_ready_once_every_shard_of_the_folder_is_served(image: Image) -> None:
    shards = [image.shard(5 * n, 5 * n + 5) for n in range(12)]
    async with image.served_by():
        await image.until_ready()
        assert image.ids() == sorted(shard.shard_id for shard in shards)
        assert all(image.finds(f"listing-{n}") for n in range(60))
        assert image.health.problems() == []


async def test_nothing_in_the_folder_is_written(image: Image) -> None:
    image.shard(0, 5)
    before = _files(image.folder)
    async with image.served_by():
        await image.until_ready()
        assert image.finds("listing-4")
    assert _files(image.folder) == before


def _files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
    }


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", [INDEX_FILE, ROWS_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("damage", [flipped, truncated, Path.unlink])
async def test_a_damaged_shard_keeps_it_from_being_ready_until_it_is_whole_again(
    image: Image, name: str, damage: Callable[[Path], None]
) -> None:
    good, bad = image.shard(0, 5), image.shard(5, 9)
    path = image.file(bad, name)
    whole = path.read_bytes()
    if name == MANIFEST_FILE and damage is flipped:
        path.write_bytes(whole.replace(b'"rows": 4', b'"rows": 40'))
    elif name == MANIFEST_FILE and damage is truncated:
        path.write_bytes(whole[:100])
    else:
        damage(path)
    async with image.served_by():
        await image.until_refused(
            f"1 of 2 shards of the image cannot be served, the first is {bad.shard_id}"
        )
        assert str(image.folder / bad.shard_id) in str(image.health.readiness_problems())
        assert f"shards: 1 cannot be served: {bad.shard_id}" in image.health.problems()
        assert image.ids() == [good.shard_id]
        path.write_bytes(whole)
        await image.until_ready()
        assert image.ids() == sorted([good.shard_id, bad.shard_id])
        assert image.health.problems() == []


@pytest.mark.parametrize(
    ("space", "tier", "why"),
    [
        (ModelSpace("other", DIMENSIONS), HOURLY, "SHASHIN_MODEL_ID is other"),
        (ModelSpace(MODEL, 4), HOURLY, "SHASHIN_DIMENSIONS is 4"),
        (SPACE, DAILY, "SHASHIN_TIER is daily"),
    ],
)
async def test_a_shard_of_another_model_or_tier_keeps_it_from_being_ready(
    image: Image, space: ModelSpace, tier: str, why: str
) -> None:
    image.shard(0, 5)
    async with image.served_by(space, tier):
        await image.until_refused(why)
        assert image.ids() == []


async def test_a_shard_of_an_unknown_kind_keeps_it_from_being_ready(image: Image) -> None:
    image.shard(0, 5, index_kind="faiss-ivf")
    async with image.served_by():
        await image.until_refused("faiss-ivf")


async def test_a_folder_with_the_name_of_another_shard_keeps_it_from_being_ready(
    image: Image,
) -> None:
    shard = image.shard(0, 5)
    other = shard_id(MODEL, HOURLY, (SECOND,))
    (image.folder / shard.shard_id).rename(image.folder / other)
    async with image.served_by():
        await image.until_refused(f"it describes {shard.shard_id!r} instead of {other!r}")


async def test_rows_that_snapshots_or_the_log_hide_are_not_found(image: Image) -> None:
    shard = image.shard(0, 5)
    image.hidden_log.append("listing-1", 2)
    image.hidden_log.append("listing-2", 2)
    rows = np.array([1], dtype=np.uint32)
    position = LogPosition(image.hidden_log.id, {0: 1, 1: 0})
    await image.snapshots.write(
        shard, HiddenSnapshot(shard.shard_id, shard.rows_sha256, rows, position, 0.0)
    )
    image.hidden_log.delete_before(0, 1)
    async with image.served_by():
        await image.until_ready()
        assert [n for n in range(5) if image.finds(f"listing-{n}")] == [0, 3, 4]


async def test_a_shard_of_which_it_is_not_known_what_is_hidden_keeps_it_from_being_ready(
    image: Image,
) -> None:
    image.shard(0, 5)
    image.hidden_log.append("listing-1", 2)
    image.hidden_log.delete_before(0, 1)
    async with image.served_by():
        await image.until_refused("but the log begins at 1: what was hidden in between is unknown")
        assert image.ids() == []


async def test_it_waits_for_the_store_with_the_snapshots(image: Image) -> None:
    image.shard(0, 5)
    image.store.down = True
    async with image.served_by():
        await image.until_refused("the store is down")
        image.store.down = False
        await image.until_ready()
        assert image.finds("listing-4")


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_a_shard_is_refused(tmp_path: Path, exists: bool) -> None:
    image = Image(tmp_path)
    if exists:
        image.folder.mkdir()
    swapper = ShardSwapper(
        SPACE, HOURLY, image.served, image.snapshots, catch_up_of(image.served, image.hidden_log)
    )
    with pytest.raises(SettingsError) as refused:
        ImageShards(image.folder, swapper)
    assert refused.value.message.startswith(f"SHASHIN_SHARDS_FOLDER='{image.folder}': it ")
