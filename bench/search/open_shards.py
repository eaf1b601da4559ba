"""What an open shard costs with each kind that can grow: adding rows to it, and searching it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.figures import percentile
from bench.nothing_hidden import NothingHidden
from bench.search import system
from bench.search.data import DataSet, K, exact, recall
from bench.search.sealed import SPACE, new_rows
from shashin.shards.kinds.registry import growing_kind
from shashin.shards.open_shard import OpenShard

KINDS = ("ivf-sq4", "usearch-hnsw")
SIZES = (2_000, 10_000, 50_000, 250_000)
"""Rows at which searches are measured."""
_BATCH = 50
"""Rows added at a time, as a busy log brings them."""
_QUERIES = 200


@dataclass(frozen=True)
class OpenCost:
    """Of one kind, at one size."""

    data: str
    kind: str
    rows: int
    added_microseconds: float
    """Per row since the size before, with everything that an indexer does once it has a vector."""
    p50: float
    """Of a search, in milliseconds."""
    recall: float
    index_bytes: float
    """Per row, of the index alone."""


def measured(data: DataSet, sizes: Sequence[int] = SIZES) -> list[OpenCost]:
    """Grow a shard of each kind, and search it at each size that the data has rows for."""
    costs = []
    queries = data.queries[:_QUERIES]
    for kind in KINDS:
        shard = OpenShard(0, 0, SPACE, growing_kind(kind), NothingHidden())
        serving = system.served([shard])
        for size in (size for size in sizes if size <= len(data.rows)):
            begin, seconds = shard.rows, 0.0
            for start in range(begin, size, _BATCH):
                rows = new_rows(start, data.rows[start : min(start + _BATCH, size)])
                started = time.perf_counter()
                shard.add(rows, position=start + len(rows), bucket_start=0)
                seconds += time.perf_counter() - started
            took, found = [], np.full((len(queries), K), -1, np.int64)
            for at, query in enumerate(queries):
                started = time.perf_counter()
                hits = system.search(serving.snapshot(), query)
                took.append(1e3 * (time.perf_counter() - started))
                numbers = system.found_rows(hits)
                found[at, : len(numbers)] = numbers
            costs.append(
                OpenCost(
                    data.name,
                    kind,
                    size,
                    1e6 * seconds / (size - begin),
                    percentile(took, 0.5),
                    recall(found, exact(data.rows[:size], queries, K)),
                    shard.index_bytes / size,
                )
            )
    return costs
