"""What a long history costs: planning, an indexer's start, and coverage, by how much was ever sealed."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from bench.figures import Figure
from bench.hidden_listings import listing, write_shard
from services.image_builder.handlers import Builder
from services.image_builder.rollout import PointerRollout
from services.image_builder.settings import ImageBuilderSettings
from shashin.builds.planning import plan_builds
from shashin.builds.policy import Policy
from shashin.builds.recorded import FolderBuilds
from shashin.builds.records import BuildRecords
from shashin.objectstore.file import FileObjectStore
from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.ranges import OffsetRange
from shashin.repository.horizons import Horizons
from shashin.repository.known_shards import read_known_shards
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository
from shashin.runtime.health import Health
from shashin.runtime.scope import LoopScope
from shashin.serving.index_servers import HeldShard
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.shard_id import shard_id
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.visibility import HiddenEntry
from shashin.tiers import DAILY, HOURLY, MONTHLY

MODEL = "bench"
PARTITIONS = 8
SEALED = (1_000, 10_000, 70_000)
QUANTITIES = (
    "plan all tiers at a start",
    "plan all tiers again",
    "plan all tiers when woken",
    "plan due builds",
    "read what is sealed",
    "judge coverage",
)
"""In milliseconds. The image builder plans at its start, again every few minutes, and when a shard is
sealed; ``shashin builds plan`` plans the builds."""
GROWING = QUANTITIES[:5]
"""They read the repository, and so might take longer the more is in it."""
_REPEATS = 5
_HIDDEN_IN = (1, 100, 1_000)
"""Shards that are served when a record of ``listings.hidden`` comes."""
_OFFSETS = 1_000
"""Per shard."""
_SERVED_HOURLY = 16
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
"""After every bucket here."""


async def history(folder: Path) -> dict[str, float]:
    """Make up repositories with manifests only; 65 shards or fewer of each are served."""
    found = {}
    for sealed in SEALED:
        store = FileObjectStore(folder / str(sealed))
        pointers = _write(folder / str(sealed), sealed)
        repository = ModelRepository(store)
        for pointer in pointers:
            await repository.move_pointer(pointer, over=None)
        for what, seconds in (await _measured(store, pointers, folder / f"state-{sealed}")).items():
            found[f"{what}, {sealed:,} sealed in the past"] = 1_000 * seconds
    for what in GROWING:
        few, many = (
            found[f"{what}, {count:,} sealed in the past"] for count in SEALED[:: len(SEALED) - 1]
        )
        found[growth_of(what)] = many / few
    for shards in _HIDDEN_IN:
        found[hidden_record_of(shards)] = await asyncio.to_thread(
            _hidden_record, folder / f"hidden-{shards}", shards
        )
    return found


def planned_figures() -> list[Figure]:
    """Return every figure with its goal."""
    return [
        *(
            Figure(f"{what}, {sealed:,} sealed in the past", "ms")
            for sealed in SEALED
            for what in QUANTITIES
        ),
        *(Figure(growth_of(what), "times", 2.0) for what in GROWING),
        *(Figure(hidden_record_of(shards), "µs") for shards in _HIDDEN_IN),
    ]


def growth_of(what: str) -> str:
    """Return the name of the figure for how much longer something takes with a long history."""
    return f"{what}, {SEALED[-1]:,} against {SEALED[0]:,}"


def hidden_record_of(shards: int) -> str:
    """Return the name of the figure for one record of ``listings.hidden``."""
    return f"a hidden listing, {shards:,} shards served"


def _hidden_record(folder: Path, shards: int) -> float:
    """Return the microseconds in which a record is applied that concerns none of the rows."""
    served = ServedShards()
    served.serve(
        SealedShard(write_shard(folder / str(number), number * 100, 100), folder / str(number))
        for number in range(shards)
    )
    entries = [HiddenEntry(listing(10**10 + number), 2) for number in range(500)]
    started = time.process_time()
    for entry in entries:
        served.hide_all([entry])
    return 1e6 * (time.process_time() - started) / len(entries)


def _sealed(count: int) -> Iterator[Manifest]:
    for number in range(count):
        hour, partition = divmod(number, PARTITIONS)
        yield _manifest(
            HOURLY,
            hour * 3600,
            3600,
            (OffsetRange(partition, hour * _OFFSETS, (hour + 1) * _OFFSETS),),
        )


def _manifest(
    tier: str, start: int, seconds: int, ranges: tuple[OffsetRange, ...], rewrites: int = 0
) -> Manifest:
    return Manifest(
        shard_id=shard_id(MODEL, tier, ranges),
        tier=tier,
        bucket_start=start,
        bucket_seconds=seconds,
        model_id=MODEL,
        dimensions=128,
        metric="ip",
        stored_type="f16",
        index_kind="ivf-f16",
        index_parameters={"lists": 1, "probes": 1},
        rows=1,
        listings=1,
        files=(),
        source_ranges=ranges,
        cut_reason="time",
        recall_at_10=1.0,
        created_at=0.0,
        rewrites=rewrites,
    )


def _write(root: Path, sealed: int) -> list[Pointer]:
    """Write the manifests of a history; returns the pointers to what is served of it."""
    # Not through the store, which waits for the disk after each object.
    for manifest in _sealed(sealed):
        _put(root, manifest)
    hours = sealed // PARTITIONS
    served_from = hours - _SERVED_HOURLY // PARTITIONS
    built = []
    for tier, count, seconds in ((MONTHLY, 12, 30 * 86_400), (DAILY, 30, 86_400)):
        first = 0 if tier == MONTHLY else served_from * 3 // 4
        last = served_from * 3 // 4 if tier == MONTHLY else served_from
        edges = sorted({first + (last - first) * n // count for n in range(count + 1)})
        shards = []
        for begin, end in pairwise(edges):
            ranges = tuple(
                OffsetRange(p, begin * _OFFSETS, end * _OFFSETS) for p in range(PARTITIONS)
            )
            manifest = _manifest(tier, begin * 3600, seconds, ranges, rewrites=1)
            _put(root, manifest)
            shards.append(PointedShard.of(manifest))
        built.append(Pointer(MODEL, tier, tuple(sorted(shards))))
    hourly = [
        m for m in _sealed(sealed) if m.source_ranges[0].from_offset >= served_from * _OFFSETS
    ]
    named = tuple(sorted(PointedShard.of(manifest) for manifest in hourly))
    return [*built, Pointer(MODEL, HOURLY, named)]


def _put(root: Path, manifest: Manifest) -> None:
    path = root / manifest.key
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(json.loads(manifest.to_json())), encoding="utf-8")


class _Servers:
    async def held(self) -> list[HeldShard]:
        return []


async def _measured(
    store: FileObjectStore, pointers: list[Pointer], state: Path
) -> dict[str, float]:
    """Return the seconds of each quantity, the least of several rounds."""
    settings = ImageBuilderSettings(
        model_id=MODEL,
        kafka="unused:1",
        repository="file:///unused",
        discovery="static:indexer=127.0.0.1:1",
    )
    found: defaultdict[str, list[float]] = defaultdict(list)

    @asynccontextmanager
    async def timed(what: str) -> AsyncIterator[None]:
        started = time.perf_counter()
        yield
        found[what].append(time.perf_counter() - started)

    for number in range(_REPEATS):
        # A new one each time, which has read nothing yet.
        repository = ModelRepository(store)
        builder = Builder(
            settings, repository, PointerRollout(repository), _Servers(), Horizons(store, MODEL)
        )
        plan = builder.loop()
        loop = LoopScope(Health().register(plan.name, ready_when=plan.ready_when), asyncio.Event())
        async with timed("plan all tiers at a start"):
            await builder.plan_round(loop, check_served=True)
        async with timed("plan all tiers again"):
            await builder.plan_round(loop, check_served=True)
        async with timed("plan all tiers when woken"):
            await builder.plan_round(loop, check_served=False)
        builds = FolderBuilds(BuildRecords(state / str(number)))
        async with timed("plan due builds"):
            planned = await plan_builds(
                ModelRepository(store), "file:///unused", builds, MODEL, _NOW, Policy()
            )
        assert not planned.unreadable
        async with timed("read what is sealed"):
            known = await read_known_shards(ModelRepository(store), MODEL)
    ranges = [r for pointer in pointers for shard in pointer.shards for r in shard.ranges]
    ends = {p: max(r.to_offset for r in ranges if r.partition == p) for p in range(PARTITIONS)}
    async with timed("judge coverage"):
        missing = missing_ranges(known.ranges, {p: Position(0, end) for p, end in ends.items()})
    assert not missing, missing
    assert all(pointer == known.pointers[pointer.tier] for pointer in pointers)
    return {what: min(seconds) for what, seconds in found.items()}
