"""Merging shards and opening a tier: speed and memory, without a system."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from bench.transfer import peak, reset_peak
from shashin.model_space import ModelSpace
from shashin.offsets.ranges import OffsetRange
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.registry import DEFAULT_BUILT_KIND, index_kind
from shashin.shards.merging import MergedBucket, Parent, merge_shards
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.writer import Origin, ShardWriter
from shashin.tiers import DAILY, HOURLY

DIMENSIONS = 128
SPACE = ModelSpace("bench", DIMENSIONS)
PARENTS, ROWS = 24, 20_000
TIER_SHARDS = 65

Vectors = npt.NDArray[np.float32]


async def compaction(folder: Path) -> dict[str, float]:
    """Merge 24 shards of 20,000 rows, and build a USearch index of the same vectors, on all cores.

    The parents store their vectors flat: a merge reads nothing else of an index.
    """
    return await asyncio.to_thread(_compaction, folder)


def _compaction(folder: Path) -> dict[str, float]:
    parents = [_parent(folder / str(number), number) for number in range(PARENTS)]
    with _anonymous_memory() as allocated:
        idle = reset_peak()
        started = time.perf_counter()
        manifest = merge_shards(
            parents,
            index_kind(DEFAULT_BUILT_KIND),
            folder / "merged",
            MergedBucket(DAILY, 0, 86_400, "bench"),
            on_progress=lambda _done, _total: None,
        )
        merged = time.perf_counter() - started
        resident = peak() - idle
    finished = sum(entry.size for entry in manifest.files)
    vectors = np.concatenate([_vectors(number) for number in range(PARENTS)])
    index = Index(ndim=DIMENSIONS, metric="ip", dtype="bf16", connectivity=16, expansion_add=128)
    started = time.perf_counter()
    index.add(np.arange(len(vectors), dtype=np.uint64), vectors)
    anew = time.perf_counter() - started
    assert manifest.recall_at_10 is not None
    return {
        "merge of 24 shards of 20,000 rows": merged / anew,
        "memory of that merge": allocated[0] / finished,
        "memory of that merge, with mapped files": resident / finished,
        "recall@10 of the merged shard": manifest.recall_at_10,
    }


def _vectors(number: int, rows: int = ROWS) -> Vectors:
    """Return vectors in 2,000 clusters, as those of photos of similar products are."""
    centres = np.random.default_rng(0).standard_normal((2_000, DIMENSIONS), np.float32)
    rng = np.random.default_rng(number + 1)
    chosen = centres[rng.integers(len(centres), size=rows)]
    near = chosen + 0.7 * rng.standard_normal((rows, DIMENSIONS), np.float32)
    unit: Vectors = near / np.linalg.norm(near, axis=1, keepdims=True)
    return unit


def _parent(folder: Path, number: int) -> Parent:
    return Parent(sealed_shard(folder, number, "flat-f16", ROWS), folder, np.empty(0, np.uint32))


def sealed_shard(
    folder: Path, number: int, kind: str, rows: int, space: ModelSpace = SPACE
) -> Manifest:
    """Write a shard of so many rows of 128 dimensions; returns its manifest."""
    writer = ShardWriter(space, index_kind(kind).builder(DIMENSIONS))
    attributes = RowAttributes("shoes", "ACME", 1_200, "JPY", 1_700_000_000)
    writer.add(
        [
            NewRow(
                Row(
                    f"m{number:04d}{row // 3:08d}",
                    1,
                    row % 3,
                    attributes,
                    photo_uri=f"s3://photos/{number}/{row}.jpg",
                ),
                vector,
            )
            for row, vector in enumerate(_vectors(number, rows))
        ]
    )
    ranges = (OffsetRange(0, number * rows, (number + 1) * rows),)
    return writer.finish(folder, Origin(HOURLY, number * 3600, 3600, ranges, "time"))


@contextmanager
def _anonymous_memory() -> Iterator[list[int]]:
    """Yield a list with the most bytes that this process allocated beyond those of the start.

    Pages of mapped files are not counted: the system can drop them.
    """
    before, most, done = _rss_anon(), [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], _rss_anon() - before)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def _rss_anon() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


async def opening(folder: Path) -> dict[str, float]:
    """Open 65 built shards of 10,000 and of 500,000 rows each, and serve them."""
    return {
        "open a tier of 65 shards of 10,000 rows": await _opened(folder / "small", 10_000),
        "open a tier of 65 shards of 500,000 rows": await _opened(folder / "large", 500_000),
    }


async def _opened(folder: Path, rows: int) -> float:
    original = folder / "original"
    manifest = await asyncio.to_thread(sealed_shard, original, 0, DEFAULT_BUILT_KIND, rows)
    copies = []
    for number in range(TIER_SHARDS):
        copy = folder / str(number)
        shutil.copytree(original, copy, copy_function=os.link)
        copies.append((replace(manifest, shard_id=f"{manifest.shard_id}-{number}"), copy))
    served = ServedShards()
    started = time.perf_counter()
    served.serve(SealedShard(of_copy, copy) for of_copy, copy in copies)
    return time.perf_counter() - started
