"""Pruning deletes what nothing serves or needs, and never anything else."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shashin.errors import RepositoryError
from shashin.objectstore.file import FileObjectStore
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import merge_ranges
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.horizons import Horizons
from shashin.repository.pointer import PointedShard, Pointer, pointer_key
from shashin.repository.pruning import InUse, Pruning, ReadBuckets, plan_pruning, prune
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.shard_id import shard_id
from shashin.tiers import DAILY, HOURLY
from tests.support.made_shards import MODEL, commit, listings, object_key, open_shard

NOTHING_IN_USE = InUse()


class Tidied:
    """Two sealed shards, and the daily one that was built from them and is served."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store = FileObjectStore(folder / "store")
        self.repository = ModelRepository(self.store)

    async def prepare(self) -> Tidied:
        """Commit everything, as it is once the parents were handed over."""
        self.parents = [await self.seal(0, 5), await self.seal(5, 9)]
        self.child = await self.build(*self.parents)
        await self.point_to(DAILY, self.child)
        await self.point_to(HOURLY)
        await self.settle()
        return self

    async def settle(self) -> None:
        """Settle what is announced, as the image builder does."""
        for announced in await self.repository.announced(MODEL):
            await self.repository.settle(announced)

    async def seal(self, begin: int, end: int) -> StoredShard:
        shard = open_shard(listings(begin, end), from_offset=begin)
        return await commit(self.repository, shard, self._folder / "scratch")

    async def build(self, *parents: StoredShard) -> Manifest:
        ranges = tuple(merge_ranges(r for p in parents for r in p.manifest.source_ranges))
        child = replace(
            parents[0].manifest,
            tier=DAILY,
            source_ranges=ranges,
            shard_id=shard_id(MODEL, DAILY, ranges),
            rewrites=1,
            files=(),
        )
        await self.store.write(child.key, child.to_json())
        return child

    async def point_to(self, tier: str, *manifests: Manifest) -> None:
        _, version = await self.repository.read_pointer(MODEL, tier)
        named = tuple(PointedShard.of(manifest) for manifest in manifests)
        await self.repository.move_pointer(Pointer(MODEL, tier, named), over=version)

    async def plan(self, in_use: InUse = NOTHING_IN_USE, *, keep_seconds: float = 0) -> Pruning:
        # The shards that tests make were committed in 2023.
        before = time.time() - keep_seconds if keep_seconds else 1_700_000_001
        return await plan_pruning(self.store, MODEL, in_use, committed_before=before)

    async def keys(self) -> set[str]:
        return {info.key for info in await self.store.list_objects("indexes/")}


@pytest.fixture
async def tidied(tmp_path: Path) -> Tidied:
    return await Tidied(tmp_path).prepare()


def ids(*shards: StoredShard) -> list[str]:
    return [shard.manifest.shard_id for shard in shards]


async def test_parents_are_deleted_once_only_their_child_is_served(tidied: Tidied) -> None:
    planned = await tidied.plan()
    assert (planned.shards, planned.kept) == (ids(*tidied.parents), {})
    before = await tidied.keys()
    assert {info.key for info in planned.objects} == before - {tidied.child.key}
    assert await tidied.keys() == before, "nothing is deleted by planning"
    await prune(tidied.store, planned)
    assert await tidied.keys() == {tidied.child.key}


async def test_a_manifest_goes_before_the_files_that_it_vouches_for(tidied: Tidied) -> None:
    keys = [info.key for info in (await tidied.plan()).objects]
    for parent in tidied.parents:
        of_shard = [key for key in keys if key.startswith(parent.manifest.folder)]
        assert of_shard[0] == parent.manifest_key


async def test_what_an_index_server_holds_or_a_build_reads_stays(tidied: Tidied) -> None:
    first, second = ids(*tidied.parents)
    planned = await tidied.plan(InUse(held=[first], needed=[second]))
    assert planned.shards == []
    assert planned.kept == {
        first: "an index server holds it",
        second: "a build that is not finished reads it",
    }


async def test_what_a_build_may_read_that_names_a_window_stays(tidied: Tidied) -> None:
    start = tidied.parents[0].manifest.bucket_start
    for model, begin, end, stay in (
        (MODEL, start, start + 1, True),
        (MODEL, start - 3600, start, False),
        (MODEL, start + 1, start + 3600, False),
        ("another-model", start, start + 1, False),
    ):
        planned = await tidied.plan(InUse(needed_buckets=[ReadBuckets(model, begin, end)]))
        assert set(planned.kept) == (set(ids(*tidied.parents)) if stay else set())
        assert set(planned.kept.values()) <= {"a build that is not finished reads it"}


async def test_what_is_announced_named_or_young_stays(tidied: Tidied) -> None:
    first, second = tidied.parents
    await tidied.point_to(HOURLY, first.manifest)
    await tidied.repository.announce(second.manifest_key)
    assert (await tidied.plan()).objects == []
    await tidied.settle()
    assert (await tidied.plan()).shards == ids(second)
    await tidied.point_to(HOURLY)
    ten_years = 10 * 365 * 86_400
    planned = await tidied.plan(keep_seconds=ten_years)
    assert planned.objects == []
    assert set(planned.kept.values()) == {"it is too young"}


async def test_what_a_young_shard_was_built_from_stays_for_a_rollback(tidied: Tidied) -> None:
    first, second = tidied.parents
    young = replace(tidied.child, created_at=time.time(), parents=(first.manifest.shard_id,))
    await tidied.store.write(young.key, young.to_json())
    planned = await tidied.plan(keep_seconds=86_400)
    assert planned.shards == ids(second)
    assert "may be rolled back" in planned.kept[first.manifest.shard_id]
    # Also while what replaced it in turn is served instead of it.
    monthly = replace(young, tier="monthly", shard_id=young.shard_id.replace(DAILY, "monthly"))
    await tidied.store.write(monthly.key, replace(monthly, parents=(young.shard_id,)).to_json())
    await tidied.point_to("monthly", monthly)
    await tidied.point_to(DAILY)
    assert (await tidied.plan(keep_seconds=86_400)).shards == ids(second)


async def test_what_no_served_shard_contains_stays_unless_it_lies_before_the_horizon(
    tidied: Tidied,
) -> None:
    lonely = await tidied.seal(20, 25)
    await tidied.settle()
    planned = await tidied.plan()
    assert planned.kept == {lonely.manifest.shard_id: "no served shard has all of its offsets"}
    await Horizons(tidied.store, MODEL).raise_to({0: 25})
    assert lonely.manifest.shard_id in (await tidied.plan()).shards


async def test_leftovers_are_deleted_and_an_upload_under_way_is_not(tidied: Tidied) -> None:
    folder = f"indexes/{MODEL}/hourly/0/{MODEL}.hourly.p0000.000000000050-000000000060"
    await tidied.store.write(f"{folder}/rows.0123456789abcdef.arrow", b"half")
    served = f"{tidied.child.folder}/rows.0123456789abcdef.arrow"
    await tidied.store.write(served, b"of another replica")
    await tidied.repository.announce(f"{folder}/manifest.json")
    keys = [info.key for info in (await tidied.plan()).objects]
    assert served in keys
    assert not any(key.startswith(folder) for key in keys)
    await tidied.settle()
    assert f"{folder}/rows.0123456789abcdef.arrow" in [i.key for i in (await tidied.plan()).objects]


async def test_a_snapshot_that_precedes_its_shard_stays(tidied: Tidied) -> None:
    manifest = replace(tidied.child, tier="monthly")
    snapshot = HiddenSnapshot(
        manifest.shard_id,
        manifest.rows_sha256,
        np.empty(0, np.uint32),
        LogPosition("t", {0: 1}),
        1.0,
    )
    key = await HiddenSnapshots(tidied.store).write(manifest, snapshot)
    assert key not in [info.key for info in (await tidied.plan()).objects]


async def test_a_shard_whose_manifest_cannot_be_read_stays(tidied: Tidied) -> None:
    first, second = tidied.parents
    await tidied.store.write(first.manifest_key, b"damaged")
    planned = await tidied.plan()
    assert planned.shards == ids(second)
    assert "cannot be read" in planned.kept[first.manifest.shard_id]
    assert object_key(first, "rows.arrow") not in [info.key for info in planned.objects]


async def test_nothing_is_planned_while_a_pointer_cannot_be_read(tidied: Tidied) -> None:
    await tidied.store.write(pointer_key(MODEL, DAILY), b"damaged")
    with pytest.raises(RepositoryError, match=r"daily\.json"):
        await tidied.plan()


async def test_copies_of_pointers_stay_that_a_tier_had_since(tidied: Tidied) -> None:
    pointer, _ = await tidied.repository.read_pointer(MODEL, DAILY)
    assert pointer is not None
    times = []
    for _ in range(3):
        await tidied.repository.keep_in_history(pointer)
        times.append(time.time())
        time.sleep(0.01)  # noqa: ASYNC251 - their names are times
    planned = await plan_pruning(
        tidied.store, MODEL, NOTHING_IN_USE, committed_before=times[1] + 0.005
    )
    await prune(tidied.store, planned)
    # The tier had the second one when the time began that is kept.
    assert len(await tidied.repository.history(MODEL, DAILY)) == 2


async def test_old_copies_of_pointers_are_deleted_except_for_the_newest(tidied: Tidied) -> None:
    pointer, _ = await tidied.repository.read_pointer(MODEL, DAILY)
    assert pointer is not None
    for _ in range(3):
        await tidied.repository.keep_in_history(pointer)
        time.sleep(0.002)  # noqa: ASYNC251 - their names are times
    kept = await tidied.repository.history(MODEL, DAILY)
    assert [found for _, found in kept] == [pointer] * 3
    planned = await plan_pruning(
        tidied.store, MODEL, NOTHING_IN_USE, committed_before=time.time() + 1
    )
    await prune(tidied.store, planned)
    assert len(await tidied.repository.history(MODEL, DAILY)) == 1
