"""What a long history costs: planning, an indexer's start, and coverage, by how much was ever sealed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from services.image_builder.handlers import Builder
from services.image_builder.rollout import PointerRollout
from services.image_builder.settings import ImageBuilderSettings
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
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.shard_id import shard_id
from shashin.tiers import DAILY, HOURLY, MONTHLY

MODEL = "bench"
PARTITIONS = 8
SEALED = (1_000, 10_000, 70_000)
QUANTITIES = {
    "plan all tiers": "ms",
    "read what is sealed": "ms",
    "judge coverage": "ms",
}
_OFFSETS = 1_000
"""Per shard."""
_SERVED_HOURLY = 16


async def history(folder: Path) -> dict[str, float]:
    """Make up repositories with manifests only; 65 shards or fewer of each are served."""
    found = {}
    for sealed in SEALED:
        store = FileObjectStore(folder / str(sealed))
        pointers = _write(folder / str(sealed), sealed)
        repository = ModelRepository(store)
        for pointer in pointers:
            await repository.move_pointer(pointer, over=None)
        for what, seconds in (await _measured(store, pointers)).items():
            found[f"{what}, {sealed:,} sealed in the past"] = 1_000 * seconds
    return found


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


async def _measured(store: FileObjectStore, pointers: list[Pointer]) -> dict[str, float]:
    settings = ImageBuilderSettings(
        model_id=MODEL,
        kafka="unused:1",
        repository="file:///unused",
        discovery="static:indexer=127.0.0.1:1",
    )
    repository = ModelRepository(store)
    builder = Builder(
        settings, repository, PointerRollout(repository), _Servers(), Horizons(store, MODEL)
    )
    plan = builder.loop()
    loop = LoopScope(Health().register(plan.name, ready_when=plan.ready_when), asyncio.Event())
    await builder.plan_round(loop, check_served=True)
    started = time.perf_counter()
    await builder.plan_round(loop, check_served=True)
    planned = time.perf_counter() - started
    started = time.perf_counter()
    known = await read_known_shards(ModelRepository(store), MODEL)
    read = time.perf_counter() - started
    ranges = [r for pointer in pointers for shard in pointer.shards for r in shard.ranges]
    ends = {p: max(r.to_offset for r in ranges if r.partition == p) for p in range(PARTITIONS)}
    started = time.perf_counter()
    missing = missing_ranges(known.ranges, {p: Position(0, end) for p, end in ends.items()})
    judged = time.perf_counter() - started
    assert not missing, missing
    assert all(pointer == known.pointers[pointer.tier] for pointer in pointers)
    return {
        "plan all tiers": planned,
        "read what is sealed": read,
        "judge coverage": judged,
    }
