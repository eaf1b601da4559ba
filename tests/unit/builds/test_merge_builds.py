"""Builds that merge shards, from the plan to the published shard, in real processes."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from shashin.builds.document import BUILT_IN_STEPS
from shashin.builds.planning import PlannedBuilds, plan_builds
from shashin.builds.policy import Policy
from shashin.builds.recorded import FolderBuilds
from shashin.builds.records import BuildRecords
from shashin.builds.runner import RunOptions, retry_build
from shashin.builds.status import BuildStatus, Phase
from shashin.builds.step import context_of
from shashin.builds.step_variables import BUILD, OUT, REPOSITORY, WORK
from shashin.builds.steps import publish
from shashin.errors import RepositoryError, StepFailed
from shashin.objectstore.open import open_object_store
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import OffsetRange
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.pointer import PointedShard, Pointer, pointer_key
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.failpoints import BUILD_POINTS, VARIABLE
from shashin.shards.format.file_entry import FileEntry
from shashin.shards.format.hidden_snapshot import HiddenSnapshot, combined
from shashin.shards.format.manifest import model_file_key
from shashin.shards.kinds.flat_f16 import FlatF16
from shashin.shards.kinds.quantizer import lists_for
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import DAILY, HOURLY
from tests.support.made_shards import MODEL, commit, listings, object_key, open_shard, write
from tests.support.shashin_command import shashin

DAY = datetime(2026, 3, 14, tzinfo=UTC)
LATER = DAY + timedelta(days=1, hours=1)


class Merging:
    """A repository with the hourly shards of a day, and the builds that merge them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = (folder / "state" / "repository").as_uri()
        self.store = open_object_store(self.uri)
        self.repository = ModelRepository(self.store)
        self.snapshots = HiddenSnapshots(self.store)
        self.records = BuildRecords(folder / "state")
        self.shards: list[StoredShard] = []

    async def seal(
        self, hour: int, *, hidden: tuple[int, ...] = (), offset: int = 7
    ) -> StoredShard:
        """Seal a shard of ten listings, some of them hidden."""
        first = 10 * len(self.shards)
        shard = open_shard(listings(first, first + 10), from_offset=first)
        stored = await commit(
            self.repository,
            shard,
            self.folder / "sealed",
            bucket_start=int((DAY + timedelta(hours=hour)).timestamp()),
        )
        manifest = stored.manifest
        await self.snapshots.write(
            manifest,
            HiddenSnapshot(
                manifest.shard_id,
                manifest.rows_sha256,
                np.array(hidden, dtype=np.uint32),
                LogPosition("topic-1", {0: offset, 1: 5}),
                1_773_000_000.0,
            ),
        )
        self.shards.append(stored)
        return stored

    async def plan(self, now: datetime = LATER) -> PlannedBuilds:
        """Record what is due."""
        return await plan_builds(
            self.repository, self.uri, FolderBuilds(self.records), MODEL, now, Policy(fan_in=3)
        )

    async def run(self, name: str, **environment: str) -> BuildStatus:
        """Run a build, or retry it, with its real steps."""
        return await retry_build(
            self.records.record(name), RunOptions(environment={**os.environ, **environment})
        )

    async def point_to(self, tier: str, *manifests: StoredShard) -> None:
        """Let a tier serve shards, as the image builder does."""
        _, version = await self.repository.read_pointer(MODEL, tier)
        named = tuple(PointedShard.of(stored.manifest) for stored in manifests)
        await self.repository.move_pointer(Pointer(MODEL, tier, named), over=version)

    async def committed(self, tier: str) -> list[StoredShard]:
        """Return the shards of a tier."""
        return (await self.repository.shards(MODEL, tier))[0]


@pytest.fixture
def merging(tmp_path: Path) -> Merging:
    return Merging(tmp_path)


async def test_a_day_that_is_over_becomes_one_shard_without_what_was_hidden(
    merging: Merging, tmp_path: Path
) -> None:
    await merging.seal(3, hidden=(0, 4), offset=9)
    await merging.seal(4, hidden=(9,), offset=7)
    planned = await merging.plan()
    (name,) = planned.created
    status = await merging.run(name)
    assert (status.phase, [step.phase for step in status.steps]) == ("Succeeded", ["Succeeded"] * 5)
    (child,) = await merging.committed(DAILY)
    manifest = child.manifest
    assert (manifest.rows, manifest.dropped_rows, manifest.rewrites) == (17, 3, 1)
    assert (manifest.bucket_start, manifest.bucket_seconds) == (int(DAY.timestamp()), 86_400)
    assert manifest.build == name
    assert manifest.recall_at_10 == 1.0
    parents = [stored.manifest.shard_id for stored in merging.shards]
    assert manifest.parents == tuple(parents)
    folder = await merging.repository.fetch(child, tmp_path / "fetched")
    shard = SealedShard(manifest, folder)
    kept = [n for n in range(20) if n not in {0, 4, 19}]
    assert [shard.row(n).listing_id for n in range(17)] == [f"listing-{n}" for n in kept]
    snapshots = await merging.snapshots.read(manifest)
    state = combined(manifest, snapshots.by_key.values(), "topic-1")
    assert (state.rows.tolist(), dict(state.position.offsets)) == ([], {0: 7, 1: 5})
    announced = await merging.repository.announced(MODEL)
    assert manifest.key in {
        found.announcement.manifest_key for found in announced if found.announcement
    }
    assert (await merging.plan()).created == [], "what is merged is not due again"


async def test_a_large_build_trains_a_quantizer_that_the_next_one_uses(
    merging: Merging, tmp_path: Path
) -> None:
    for day in (DAY, DAY + timedelta(days=1)):
        start = 12_000 * len(merging.shards)
        shard = open_shard(listings(start, start + 12_000), from_offset=start, kind=FlatF16())
        at = int((day + timedelta(hours=3)).timestamp())
        merging.shards.append(
            await commit(merging.repository, shard, tmp_path / "sealed", bucket_start=at)
        )
        (name,) = (await merging.plan(day + timedelta(days=1, hours=1))).created
        assert (await merging.run(name)).phase == "Succeeded"
    first, second = [shard.manifest for shard in await merging.committed(DAILY)]
    newest = await Quantizers(merging.store, MODEL).newest()
    assert newest is not None
    assert newest.lists == first.index_parameters["lists"] == lists_for(12_000)
    for manifest in (first, second):
        assert manifest.index_kind == "ivf-sq4"
        assert manifest.model_files == ("quantizer.npy",)
        assert newest.file in manifest.files, "the same, byte for byte"
    objects = await merging.store.list_objects(f"models/{MODEL}/files/")
    assert len(objects) == 1, "stored once"


async def test_shards_of_a_day_that_is_not_over_are_merged_within_the_hourly_tier(
    merging: Merging,
) -> None:
    for hour in range(3):
        await merging.seal(hour)
    planned = await merging.plan(DAY + timedelta(hours=3))
    (name,) = planned.created
    assert (await merging.run(name)).phase == "Succeeded"
    newest = max((s.manifest for s in await merging.committed(HOURLY)), key=lambda m: m.rewrites)
    assert (newest.rewrites, newest.bucket_seconds, newest.rows) == (1, 3 * 3600, 30)
    assert (await merging.plan(DAY + timedelta(hours=4))).created == []


async def test_two_planners_at_once_record_a_build_once(merging: Merging) -> None:
    await merging.seal(3)
    await merging.seal(4)
    both = await asyncio.gather(merging.plan(), merging.plan())
    names = {name for planned in both for name in (*planned.created, *planned.pending)}
    assert len(names) == 1
    assert [one.build.name for one in merging.records.read_all()[0]] == [*names]
    again = await merging.plan()
    assert again.pending == [*names]


class RunByOthers(FolderBuilds):
    """Builds that somebody else runs, as the controller does."""

    under_way: tuple[Phase, ...] = ("Pending", "Running")


async def test_what_others_will_run_is_not_merged_by_another_build_as_well(
    merging: Merging,
) -> None:
    builds = RunByOthers(merging.records)
    for hour in (3, 4):
        await merging.seal(hour)
    (name,) = (await merging.plan()).created
    await merging.seal(5)
    # One machine runs only what it plans, so the larger build replaces the one that nobody ran.
    again = await plan_builds(
        merging.repository, merging.uri, builds, MODEL, LATER, Policy(fan_in=3)
    )
    assert (again.created, again.pending) == ([], [])
    (larger,) = (await merging.plan()).created
    assert larger != name


async def test_only_builds_of_the_tiers_that_are_asked_for_are_created(merging: Merging) -> None:
    await merging.seal(3)
    builds = FolderBuilds(merging.records)
    for tiers in (["monthly"], ["hourly"]):
        planned = await plan_builds(
            merging.repository, merging.uri, builds, MODEL, LATER, Policy(), tiers=tiers
        )
        assert planned == PlannedBuilds()
    planned = await plan_builds(
        merging.repository, merging.uri, builds, MODEL, LATER, Policy(), tiers=["daily"]
    )
    assert len(planned.created) == 1


async def test_a_shard_whose_recall_is_too_low_is_not_published(
    merging: Merging, tmp_path: Path
) -> None:
    await merging.seal(3)
    (name,) = (await merging.plan()).created
    out = tmp_path / "out"
    built = out / "build" / "shard"
    bad = write(open_shard(listings(0, 10)), built, recall_at_10=0.979)
    (built / "manifest.json").write_bytes(bad.to_json())
    (out / "publish").mkdir()
    document = tmp_path / "build.json"
    document.write_bytes(merging.records.record(name).read_document().to_json())
    step = context_of(
        "publish",
        {
            BUILD: str(document),
            WORK: str(tmp_path / "work"),
            OUT: str(out / "publish"),
            REPOSITORY: merging.uri,
        },
    )
    with pytest.raises(StepFailed, match=r"recall@10 of 0\.979, .*; spec\.minimumRecall is 0\.98"):
        await publish.run(step)
    assert await merging.committed(DAILY) == []


@pytest.mark.parametrize("point", BUILD_POINTS)
async def test_a_build_that_is_killed_anywhere_is_finished_by_a_retry(
    merging: Merging, point: str
) -> None:
    await merging.seal(3)
    await merging.seal(4)
    (name,) = (await merging.plan()).created
    failpoints = merging.folder / "failpoints"
    failpoints.mkdir()
    (failpoints / f"build.{point}").touch()
    status = await merging.run(name, **{VARIABLE: str(failpoints)})
    assert status.phase == "Failed"
    assert not list(failpoints.iterdir()), "it was killed there"
    children = await merging.committed(DAILY)
    assert len(children) == (point == "after-manifest"), "nothing is half-published"
    assert [one.build.name for one in (await merging.plan()).unfinished] == (
        [] if children else [name]
    )
    assert (await merging.run(name)).phase == "Succeeded"
    (child,) = await merging.committed(DAILY)
    assert child.manifest.rows == 20


async def test_a_parent_that_is_damaged_fails_the_build_by_name(merging: Merging) -> None:
    first, _ = await merging.seal(3), await merging.seal(4)
    (name,) = (await merging.plan()).created
    key = object_key(first, "rows.arrow")
    data, _ = await merging.store.read(key)
    await merging.store.write(key, b"damaged")
    status = await merging.run(name)
    assert (status.phase, key in (status.steps[1].reason or "")) == ("Failed", True)
    await merging.store.write(key, data)
    assert (await merging.run(name)).phase == "Succeeded"
    assert await merging.committed(DAILY)


async def test_a_quantizer_whose_file_is_missing_fails_the_build_and_says_what_to_do(
    merging: Merging,
) -> None:
    await merging.seal(3)
    await merging.seal(4)
    (name,) = (await merging.plan()).created
    missing = FileEntry("quantizer.npy", 256, "0" * 64)
    await Quantizers(merging.store, MODEL).offer(missing, 4)
    status = await merging.run(name)
    (failed,) = (step for step in status.steps if step.phase == "Failed")
    record = f"models/{MODEL}/quantizer.json"
    assert f"{model_file_key(MODEL, missing)} is missing, though {record} names it" in failed.reason
    assert f"delete {record}" in failed.reason
    assert await merging.committed(DAILY) == []
    await merging.store.delete(record)
    assert (await merging.run(name)).phase == "Succeeded", "what it says helps"


@pytest.mark.parametrize(("file", "step"), [("manifest.json", "select"), ("rows.arrow", "fetch")])
async def test_a_parent_that_is_gone_fails_the_build_by_name(
    merging: Merging, file: str, step: str
) -> None:
    first, _ = await merging.seal(3), await merging.seal(4)
    (name,) = (await merging.plan()).created
    manifest = file == "manifest.json"
    key = first.manifest_key if manifest else object_key(first, file)
    data, _ = await merging.store.read(key)
    await merging.store.delete(key)
    status = await merging.run(name)
    (failed,) = (one for one in status.steps if one.phase == "Failed")
    assert (status.phase, failed.name) == ("Failed", step)
    assert (first.manifest.shard_id if manifest else key) in failed.reason
    assert await merging.committed(DAILY) == []
    await merging.store.write(key, data)
    assert (await merging.run(name)).phase == "Succeeded"


async def test_a_new_manifest_that_cannot_be_read_is_named_and_what_is_healthy_is_merged(
    merging: Merging,
) -> None:
    for hour in (3, 4):
        await merging.seal(hour)
    damaged = await merging.seal(5)
    data, _ = await merging.store.read(damaged.manifest_key)
    await merging.store.write(damaged.manifest_key, b"damaged")
    planned = await merging.plan()
    (name,) = planned.created
    assert [shard.shard_id for shard in planned.unreadable] == [damaged.manifest.shard_id]
    assert (await merging.run(name)).phase == "Succeeded"
    (child,) = await merging.committed(DAILY)
    assert child.manifest.rows == 20
    said = await shashin("builds", "plan", state=merging.folder / "state")
    assert f"left out: the manifest of {damaged.manifest.shard_id}: " in said.err
    # Once it is restored, it is merged with the shard that its day has already.
    await merging.store.write(damaged.manifest_key, data)
    (name,) = (await merging.plan()).created
    assert (await merging.run(name)).phase == "Succeeded"
    assert 30 in [stored.manifest.rows for stored in await merging.committed(DAILY)]


@pytest.mark.parametrize("damage", ["damaged", "deleted"])
async def test_a_served_manifest_that_cannot_be_read_stops_only_what_would_merge_it(
    merging: Merging, damage: str
) -> None:
    first, damaged = await merging.seal(3), await merging.seal(4)
    healthy = await merging.seal(24 + 3)
    await merging.point_to(HOURLY, first, damaged, healthy)
    for announced in await merging.repository.announced(MODEL):
        await merging.repository.settle(announced)
    if damage == "deleted":
        await merging.store.delete(damaged.manifest_key)
    else:
        await merging.store.write(damaged.manifest_key, b"damaged")
    planned = await merging.plan(LATER + timedelta(days=1))
    assert [shard.shard_id for shard in planned.unreadable] == [damaged.manifest.shard_id]
    assert damaged.manifest_key in planned.unreadable[0].error.message
    assert len(planned.left_out) == 1
    (name,) = planned.created
    spec = merging.records.record(name).read_document().spec
    assert spec.source.shards == (healthy.manifest.shard_id,)
    said = await shashin("builds", "plan", state=merging.folder / "state", ends_with=1)
    assert f"not created: {planned.left_out[0]} is due" in said.err


async def test_nothing_is_planned_while_a_pointer_cannot_be_read(merging: Merging) -> None:
    await merging.seal(3)
    await merging.store.write(pointer_key(MODEL, DAILY), b"garbage")
    with pytest.raises(RepositoryError, match="for daily cannot be read: no build is planned"):
        await merging.plan()


async def test_the_command_plans_and_runs_until_nothing_is_due(merging: Merging) -> None:
    await merging.seal(3)
    await merging.seal(4)
    state = merging.folder / "state"
    listed = await shashin("builds", "plan", state=state)
    assert "created test-model-monthly-202603-" not in listed.out
    assert "created test-model-daily-20260314-" in listed.out
    done = await shashin("builds", "plan", "--run", state=state)
    # The month of the day is over, too: its only day moves on.
    assert "created test-model-monthly-202603-" in done.out
    assert "nothing more is due" in done.out
    for recorded in merging.records.read_all()[0]:
        assert recorded.status.phase == "Succeeded"
        assert not merging.records.record(recorded.build.name).outputs.exists()
    (monthly,) = await merging.committed("monthly")
    assert (monthly.manifest.rows, monthly.manifest.rewrites) == (20, 2)


async def test_a_planner_leaves_the_builds_alone_that_another_one_runs(merging: Merging) -> None:
    await merging.seal(3)
    await merging.seal(4)
    state = merging.folder / "state"
    done = await asyncio.gather(
        *(shashin("builds", "plan", "--run", state=state) for _ in range(2))
    )
    assert all("nothing more is due" in one.out for one in done), done
    (monthly,) = await merging.committed("monthly")
    assert monthly.manifest.rows == 20


@pytest.mark.parametrize("seen", [2, 3])
async def test_of_planners_that_know_nothing_of_each_other_one_shard_has_every_row(
    merging: Merging, seen: int
) -> None:
    """``seen`` are the shards that the second planner finds: the same, or one more."""
    other = Merging(merging.folder)
    other.records = BuildRecords(merging.folder / "another state")
    for hour in (3, 4):
        await merging.seal(hour)
    (first,) = (await merging.plan()).created
    if seen == 3:
        await merging.seal(5)
    (second,) = (await other.plan()).created
    assert (first == second) == (seen == 2)
    statuses = await asyncio.gather(merging.run(first), other.run(second))
    assert [status.phase for status in statuses] == ["Succeeded"] * 2
    for planner in (merging, other):
        while created := (await planner.plan()).created:
            for name in created:
                assert (await planner.run(name)).phase == "Succeeded"
    # Of two, one has every offset of the other, which the image builder leaves out of service.
    children = sorted([s.manifest for s in await merging.committed(DAILY)], key=lambda m: m.rows)
    assert [child.rows for child in children] == ([20] if seen == 2 else [20, 30])
    assert children[-1].source_ranges == (OffsetRange(0, 0, 10 * seen),)


def test_the_steps_of_a_merge_are_the_default_pipeline() -> None:
    assert BUILT_IN_STEPS == ("select", "fetch", "embed", "build", "publish")
