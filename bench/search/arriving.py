"""Rows that arrive while shards are searched, and how soon they are found and gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from bench.figures import percentile
from bench.nothing_hidden import NothingHidden
from bench.search import system
from bench.search.data import DIMENSIONS, K, Vectors, unit
from bench.search.sealed import SPACE, listing_id, new_rows
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.visibility import HiddenEntry

ROWS_PER_SECOND = 500
_EVERY_SECONDS = 0.02
_FIRST_ARRIVING = 500_000_000
"""The number of the first row that arrives; sealed ones are below it."""
_PROBES = 200
_BUCKET = 3_600
_PREPARED = 10_000
"""Rows made before any is added: making them is no work of the system."""


def open_shard() -> OpenShard:
    """Return an empty open shard."""
    return OpenShard(1, 0, SPACE, system.open_kind(), NothingHidden())


@contextmanager
def rows_arriving(shard: OpenShard, per_second: int = ROWS_PER_SECOND) -> Iterator[None]:
    """Add rows to an open shard all the time, by a thread of its own."""
    done = threading.Event()
    vectors = unit(np.random.default_rng(3).standard_normal((_PREPARED, DIMENSIONS), np.float32))
    prepared = new_rows(_FIRST_ARRIVING + shard.rows, vectors)
    failed: list[BaseException] = []

    def add() -> None:
        started, added = time.monotonic(), 0
        try:
            while not done.wait(_EVERY_SECONDS):
                due = round((time.monotonic() - started) * per_second)
                if rows := prepared[added:due]:
                    position = shard.position + len(rows)
                    shard.add(rows, position=position, bucket_start=_BUCKET)
                    added += len(rows)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=add, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failed:
        raise failed[0]


def freshness(shards: Sequence[SealedShard]) -> dict[str, float]:
    """Return how long after its append a row is found, and how long after its sale it is gone.

    Between sealed shards, in process: what Kafka and the network add is measured with the whole system.
    """
    growing = open_shard()
    serving = system.served([*shards, growing])
    rng = np.random.default_rng(5)
    found, gone = [], []
    for number in range(_PROBES):
        vector = unit(rng.standard_normal((1, DIMENSIONS), np.float32))
        listing = listing_id(_FIRST_ARRIVING + number)

        def is_found(query: Vectors = vector[0], wanted: str = listing) -> bool:
            return wanted in system.listing_ids(system.search(serving.snapshot(), query, K))

        (row,) = new_rows(_FIRST_ARRIVING + number, vector)
        started = time.perf_counter()
        growing.add([row], position=number + 1, bucket_start=_BUCKET)
        while not is_found():
            pass
        found.append(1e3 * (time.perf_counter() - started))
        started = time.perf_counter()
        serving.hide_all([HiddenEntry(listing, 2)])
        while is_found():
            pass
        gone.append(1e3 * (time.perf_counter() - started))
    return {
        "search: vector appended to found p99": percentile(found, 0.99),
        "search: sold to gone p99": percentile(gone, 0.99),
    }
