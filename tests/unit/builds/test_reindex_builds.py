"""Builds that index another model's shards again, from the pointer to the published shard."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shashin.builds.document import IndexBuild, parse_build
from shashin.builds.records import BuildRecords
from shashin.builds.reindex.packs import Pack, read_pack
from shashin.builds.reindex.selection import below_live
from shashin.builds.runner import RunOptions, retry_build, run_build
from shashin.builds.status import BuildStatus
from shashin.model.loading import load_embedder
from shashin.objectstore.open import open_object_store
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.originals import Original, OriginalsCache, SourceVersion
from shashin.photo_hash import photo_hash
from shashin.photos import thumbnail, thumbnail_image
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.horizons import Horizons
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.failpoints import BUILD, REINDEX_POINTS, VARIABLE
from shashin.shards.format.hidden_snapshot import HiddenSnapshot, combined
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.format.shard_id import shard_id
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import DAILY, HOURLY
from tests.support.made_shards import MODEL, commit, object_key, open_shard, vector_of
from tests.support.shashin_command import Finished, shashin

DAY = datetime(2026, 3, 14, tzinfo=UTC)
TARGET, DIMENSIONS = "demo-v1", 128
ROWS = 40


def photo(number: int) -> bytes:
    """Return a JPEG that no other number has."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(blocks).resize((64, 48)).save(data, "JPEG")
    return data.getvalue()


class Reindexing:
    """A repository with the shards of a model, and the photos of their rows in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        self.photos.mkdir()
        self.cache = OriginalsCache(folder / "cache", max_bytes=10**9, keep_seconds=1e9)
        self.uri = (folder / "state" / "repository").as_uri()
        self.store = open_object_store(self.uri)
        self.repository = ModelRepository(self.store)
        self.record = BuildRecords(folder / "state").record("again")
        self.shards: list[StoredShard] = []

    def path(self, number: int) -> Path:
        return self.photos / f"{number}.jpg"

    def cached(self, number: int, data: bytes) -> None:
        """Put an original into the cache that nobody can ask for any more."""
        original = Original(data, hashlib.sha256(data).digest())
        assert self.cache.store(self.path(number).as_uri(), original, SourceVersion())

    def row(self, number: int) -> NewRow:
        data = photo(number)
        self.path(number).write_bytes(data)
        attributes = RowAttributes("shoes", "ACME", 100 + number, "JPY", 5)
        digest = photo_hash(hashlib.sha256(data).digest())
        row = Row(f"listing-{number}", 3, 0, attributes, self.path(number).as_uri(), digest)
        return NewRow(row, vector_of(row.listing_id))

    async def seal(
        self,
        first: int,
        end: int,
        *,
        hour: int = 3,
        hidden: tuple[int, ...] = (),
        offset: int = 7,
    ) -> StoredShard:
        """Seal and serve a shard of the listings from ``first`` to before ``end``."""
        shard = open_shard([self.row(n) for n in range(first, end)], from_offset=first)
        start = int((DAY + timedelta(hours=hour)).timestamp())
        stored = await commit(self.repository, shard, self.folder / "sealed", bucket_start=start)
        manifest = stored.manifest
        snapshot = HiddenSnapshot(
            manifest.shard_id,
            manifest.rows_sha256,
            np.array(hidden, dtype=np.uint32),
            LogPosition("topic-1", {0: offset, 1: 5}),
            1_773_000_000.0,
        )
        await HiddenSnapshots(self.store).write(manifest, snapshot)
        self.shards.append(stored)
        await self.serve(*self.shards)
        return stored

    async def serve(self, *shards: StoredShard) -> None:
        _, version = await self.repository.read_pointer(MODEL, HOURLY)
        named = tuple(PointedShard.of(stored.manifest) for stored in shards)
        await self.repository.move_pointer(Pointer(MODEL, HOURLY, named), over=version)

    def build(self, **spec: Any) -> IndexBuild:
        document = {
            "apiVersion": "shashin.dev/v1alpha1",
            "kind": "IndexBuild",
            "metadata": {"name": "again"},
            "spec": {
                "model": TARGET,
                "dimensions": DIMENSIONS,
                "tier": DAILY,
                "window": {"start": "2026-03-14T00:00:00Z", "end": "2026-03-15T00:00:00Z"},
                "source": {"reindex": {"fromModel": MODEL}},
                **spec,
            },
        }
        return parse_build(document, origin="a test")

    @property
    def options(self) -> RunOptions:
        own = {
            "SHASHIN_PHOTO_ROOTS": str(self.photos),
            "SHASHIN_CACHE_FOLDER": str(self.cache.folder),
            "OMP_NUM_THREADS": "1",
        }
        return RunOptions(environment={**os.environ, **own})

    async def run(self, *, killed_at: Path | None = None, **spec: Any) -> BuildStatus:
        """Run the build with its real steps; ``killed_at`` is a folder of failpoints."""
        options = self.options
        if killed_at is not None:
            environment = {**options.environment, VARIABLE: str(killed_at)}
            options = replace(options, environment=environment)
        return await run_build(
            self.record,
            self.build(**spec),
            repository=self.uri,
            command_folder=self.folder,
            options=options,
        )

    async def retry(self) -> BuildStatus:
        return await retry_build(self.record, self.options)

    def output(self, step: str, name: str) -> Any:
        return json.loads((self.record.outputs / step / name).read_text())

    def left_out(self, step: str = "fetch") -> list[dict[str, Any]]:
        lines = (self.record.outputs / step / "left-out.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    async def published(self) -> SealedShard:
        """Return the only shard of the new model."""
        (stored,), unreadable = await self.repository.shards(TARGET, DAILY)
        assert not unreadable
        folder = await self.repository.fetch(stored, self.folder / "fetched")
        return SealedShard(stored.manifest, folder)


@pytest.fixture
def reindexing(tmp_path: Path) -> Reindexing:
    return Reindexing(tmp_path)


def failure(status: BuildStatus) -> tuple[str, str]:
    """Return the step that failed, and why."""
    (step,) = (step for step in status.steps if step.phase == "Failed")
    return step.name, step.reason


async def test_the_visible_rows_of_a_window_are_found_in_the_new_space(
    reindexing: Reindexing,
) -> None:
    await reindexing.seal(0, 20, hour=3, hidden=(0, 4), offset=9)
    await reindexing.seal(20, 40, hour=4, hidden=(19,), offset=6)
    await reindexing.seal(40, 50, hour=25)
    status = await reindexing.run()
    assert status.phase == "Succeeded", failure(status)
    shard = await reindexing.published()
    manifest = shard.manifest
    assert (manifest.model_id, manifest.dimensions, manifest.tier) == (TARGET, DIMENSIONS, DAILY)
    assert manifest.source_ranges == (OffsetRange(0, 0, 40),)
    assert manifest.parents == tuple(s.manifest.shard_id for s in reindexing.shards[:2])
    assert (manifest.rows, manifest.dropped_rows, manifest.cut_reason) == (37, 3, "reindexed")
    assert (manifest.build, manifest.bucket_seconds) == ("again", 86_400)
    kept = [n for n in range(40) if n not in {0, 4, 39}]
    assert [shard.row(n) for n in range(37)] == [reindexing.row(n).row for n in kept]
    state = combined(
        manifest,
        (await HiddenSnapshots(reindexing.store).read(manifest)).by_key.values(),
        "topic-1",
    )
    assert (state.rows.tolist(), dict(state.position.offsets)) == ([], {0: 6, 1: 5})
    model = load_embedder(TARGET)
    for position in (0, 20, 36):
        made = thumbnail_image(thumbnail(photo(kept[position])))
        (expected,) = model.embed([made])
        (found,) = shard.search(expected[None], 1, RowFilter())
        assert (found.rows.tolist(), round(float(found.scores[0]), 2)) == ([position], 1.0)


async def test_cached_originals_are_used_without_their_source_and_changed_ones_are_counted(
    reindexing: Reindexing,
) -> None:
    await reindexing.seal(0, ROWS)
    for number in range(ROWS):
        reindexing.cached(number, photo(number) if number % 2 else photo(1000 + number))
        reindexing.path(number).unlink()
    status = await reindexing.run()
    assert status.phase == "Succeeded", failure(status)
    counts = reindexing.output("fetch", "photos.json")
    assert counts == {"photos": ROWS, "changed": ROWS // 2, "left_out": 0}
    assert (await reindexing.published()).rows == ROWS


async def test_a_few_photos_that_cannot_be_had_are_left_out_and_named(
    reindexing: Reindexing,
) -> None:
    await reindexing.seal(0, ROWS)
    reindexing.path(7).unlink()
    reindexing.path(9).write_bytes(b"no photo")
    status = await reindexing.run()
    assert status.phase == "Succeeded", failure(status)
    named = {one["listing_id"]: one["error"] for one in reindexing.left_out()}
    assert named.keys() == {"listing-7", "listing-9"}
    assert "there is no file at" in named["listing-7"]
    shard = await reindexing.published()
    assert (shard.rows, shard.manifest.dropped_rows) == (ROWS - 2, 2)
    assert shard.manifest.source_ranges == (OffsetRange(0, 0, ROWS),)


async def test_too_many_of_them_fail_the_step_and_a_retry_fetches_only_what_it_lacks(
    reindexing: Reindexing,
) -> None:
    # Two packs, the first of them complete.
    await reindexing.seal(0, 300)
    for number in range(270, 290):
        reindexing.path(number).unlink()
    step, reason = failure(await reindexing.run())
    assert step == "fetch"
    assert "16 of 300 photos, more than 5%, cannot be embedded again" in reason
    assert "listing-270 v3 photo 0: there is no file" in reason
    for number in range(256):
        reindexing.path(number).unlink()
    for number in range(270, 290):
        reindexing.path(number).write_bytes(photo(number))
    # Nor may the cache help.
    reindexing.cache.prune()
    for path in (reindexing.folder / "cache" / "content").rglob("*"):
        if path.is_file():
            path.unlink()
    status = await reindexing.retry()
    assert status.phase == "Succeeded", failure(status)
    assert (await reindexing.published()).rows == 300


@pytest.mark.parametrize(("point", "step"), [*zip(REINDEX_POINTS, ("fetch", "embed"), strict=True)])
async def test_a_reindex_that_is_killed_after_a_pack_goes_on_with_the_next_one(
    reindexing: Reindexing, point: str, step: str
) -> None:
    # Two packs, the first of them complete.
    await reindexing.seal(0, 300)
    failpoints = reindexing.folder / "failpoints"
    failpoints.mkdir()
    (failpoints / f"{BUILD}.{point}").touch()
    status = await reindexing.run(killed_at=failpoints)
    assert failure(status) == (step, "ended by SIGKILL")
    assert not list(failpoints.iterdir()), "it was killed there"
    assert await reindexing.repository.manifest_keys(TARGET, DAILY) == []
    packs = reindexing.record.work / {"fetch": "photos", "embed": "vectors"}[step]
    (kept,) = packs.glob("*.pack")
    before = kept.stat()
    for number in range(256):
        reindexing.path(number).unlink()  # what is in the first pack need not be had again
    status = await reindexing.retry()
    assert status.phase == "Succeeded", failure(status)
    assert os.path.samestat(kept.stat(), before), "the pack is used as it is"
    assert len([*packs.glob("*.pack")]) == 2
    shard = await reindexing.published()
    assert [shard.row(n).listing_id for n in range(shard.rows)] == [
        f"listing-{n}" for n in range(300)
    ]


async def test_offsets_that_the_new_model_reads_itself_are_not_claimed(
    reindexing: Reindexing,
) -> None:
    await reindexing.seal(0, 10)
    await reindexing.seal(10, 20)
    await reindexing.seal(20, 30)
    await Horizons(reindexing.store, TARGET).keep(0, 0, 15)
    status = await reindexing.run()
    assert status.phase == "Succeeded", failure(status)
    shard = await reindexing.published()
    assert shard.manifest.source_ranges == (OffsetRange(0, 0, 15),)
    assert shard.rows == 20, "a shard that straddles the offset is indexed as a whole"


@pytest.mark.parametrize(
    ("live_from", "spec", "reason"),
    [
        (0, {}, "reads all of these offsets itself"),
        (
            None,
            {"window": {"start": "2026-03-16T00:00:00Z", "end": "2026-03-17T00:00:00Z"}},
            "test-model serves no shard with a bucket that starts from 2026-03-16",
        ),
    ],
)
async def test_nothing_to_index_again_is_said(
    reindexing: Reindexing, live_from: int | None, spec: dict[str, Any], reason: str
) -> None:
    await reindexing.seal(0, 10)
    if live_from is not None:
        await Horizons(reindexing.store, TARGET).keep(0, 0, live_from)
    step, found = failure(await reindexing.run(**spec))
    assert step == "select"
    assert reason in found


async def test_a_served_shard_that_cannot_be_read_fails_the_build_by_name(
    reindexing: Reindexing,
) -> None:
    await reindexing.seal(0, 10)
    damaged = await reindexing.seal(10, 20)
    await reindexing.store.write(damaged.manifest_key, b"{}")
    step, reason = failure(await reindexing.run())
    assert step == "select"
    assert damaged.manifest.shard_id in reason


async def replace_by_a_daily_shard(reindexing: Reindexing) -> None:
    """Let the tiers serve a merged shard in place of the sealed ones, as the image builder does."""
    repository = reindexing.repository
    first = reindexing.shards[0].manifest
    ranges = tuple(merge_ranges(r for s in reindexing.shards for r in s.manifest.source_ranges))
    child = replace(
        first,
        tier=DAILY,
        source_ranges=ranges,
        shard_id=shard_id(MODEL, DAILY, ranges),
        rewrites=1,
        files=(),
    )
    await reindexing.store.write(child.key, child.to_json())
    await repository.move_pointer(Pointer(MODEL, DAILY, (PointedShard.of(child),)), over=None)
    await reindexing.serve()
    for announced in await repository.announced(MODEL):
        await repository.settle(announced)


async def pruned(reindexing: Reindexing, **options: Any) -> Finished:
    """Prune whatever may be deleted, while no index server runs."""
    discovery = reindexing.folder / "discovery.json"
    discovery.write_text('{"endpoints": []}')
    words = ("indexes", "prune", "--keep-days", "0", "--yes", "--discovery", discovery.as_uri())
    return await shashin(*words, "--json", state=reindexing.folder / "state", **options)


async def test_what_was_selected_is_not_pruned_before_it_was_fetched(
    reindexing: Reindexing,
) -> None:
    shards = [await reindexing.seal(0, 20), await reindexing.seal(20, ROWS)]
    key = object_key(shards[1], "rows.arrow")
    data, _ = await reindexing.store.read(key)
    await reindexing.store.write(key, b"damaged")
    step, _ = failure(await reindexing.run())
    assert step == "fetch"
    await reindexing.store.write(key, data)
    await replace_by_a_daily_shard(reindexing)
    done = (await pruned(reindexing)).document
    assert done["shards"] == []
    reason = "a build that is not finished reads it"
    assert done["kept"] == {s.manifest.shard_id: reason for s in shards}
    status = await reindexing.retry()
    assert status.phase == "Succeeded", failure(status)
    assert (await reindexing.published()).rows == ROWS
    assert set((await pruned(reindexing)).document["shards"]) == {
        shard.manifest.shard_id for shard in shards
    }


async def test_nothing_is_pruned_while_a_build_cannot_be_read(reindexing: Reindexing) -> None:
    await reindexing.seal(0, 10)
    await replace_by_a_daily_shard(reindexing)
    reindexing.record.folder.mkdir(parents=True)
    reindexing.record.document_path.write_text("damaged")
    before = await reindexing.store.list_objects("")
    refused = await pruned(reindexing, ends_with=1)
    assert "nothing is deleted: again: " in refused.error
    assert "`shashin builds rm again`" in refused.error
    assert await reindexing.store.list_objects("") == before


async def test_a_model_other_than_that_of_the_build_is_refused(reindexing: Reindexing) -> None:
    await reindexing.seal(0, 10)
    step, reason = failure(await reindexing.run(model="my-model", dimensions=64))
    assert step == "embed"
    assert "SHASHIN_MODEL=demo-v1 is demo-v1" in reason
    assert "--model" in reason


RANGES = st.lists(
    st.builds(
        lambda partition, start, size: OffsetRange(partition, start, start + size),
        st.integers(0, 2),
        st.integers(0, 50),
        st.integers(1, 20),
    )
)


@given(RANGES, st.dictionaries(st.integers(0, 2), st.integers(0, 60)))
def test_exactly_the_offsets_below_where_an_indexer_reads_are_claimed(
    ranges: list[OffsetRange], live_from: dict[int, int]
) -> None:
    def offsets(some: list[OffsetRange]) -> set[tuple[int, int]]:
        return {(r.partition, o) for r in some for o in range(r.from_offset, r.to_offset)}

    expected = {(p, o) for p, o in offsets(ranges) if o < live_from.get(p, 10**9)}
    assert offsets(below_live(ranges, live_from)) == expected


@given(st.binary(max_size=200), st.lists(st.integers(0, 9)), st.data())
def test_a_damaged_pack_is_not_used(body: bytes, rows: list[int], data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pack"
        assert read_pack(path) is None
        Pack({"rows": rows}, body).write(path)
        assert read_pack(path) == Pack({"rows": rows}, body)
        whole = path.read_bytes()
        position = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:position])
        assert read_pack(path) is None
        flipped = bytes([whole[position] ^ 1])
        path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
        assert read_pack(path) is None
