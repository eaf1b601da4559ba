"""Measures the recall of live queries: a sample of them is repeated, and compared with the exact answer.

The exact answer takes a thousand times as long as a search, so it is found in small steps, with pauses that
keep the monitor below its share of one core.
"""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from shashin.metrics import recall as metrics
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.exact_scan import ExactScan
from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.kinds.protocol import Hits, Vectors
from shashin.shards.row_filter import RowFilter

K = 10
_SAME_SCORE = 1e-5
"""Scores are sums in another order; a hit as near as the last expected one is as good."""
_IDLE_SECONDS = 1.0
_TURN_SECONDS = 1e-4
"""CPU seconds of the event loop for a step, about."""


@dataclass(frozen=True)
class LiveQuery:
    """A query as it came."""

    vector: Vectors
    """(dimensions,)."""
    row_filter: RowFilter


class Sample:
    """Keeps one of the queries that came since the last one was taken, each as likely as the others."""

    def __init__(self, choose: random.Random | None = None) -> None:
        self._choose = choose or random.Random()
        self._seen = 0
        self._kept: LiveQuery | None = None

    def offer(self, queries: Vectors, row_filter: RowFilter) -> None:
        """Consider one of the queries (m, dimensions) of a search."""
        self._seen += 1
        if self._choose.random() * self._seen < 1:
            # A copy: the rest of its request is not kept.
            self._kept = LiveQuery(queries[self._choose.randrange(len(queries))].copy(), row_filter)

    def take(self) -> LiveQuery | None:
        """Return the query that was kept, and begin again; None if none came."""
        kept, self._kept, self._seen = self._kept, None, 0
        return kept


def pause_after(cpu_seconds: float, share: float) -> float:
    """Return for how long to pause so that no more than a share of one core is used."""
    return cpu_seconds * (1 / share - 1)


def found_of(exact: Hits, found: Hits) -> tuple[int, int]:
    """Return how many hits are expected of a query, and how many of them were found."""
    expected = exact.counts[0]
    if not expected:
        return 0, 0
    last = exact.scores[expected - 1] - _SAME_SCORE
    return expected, min(expected, int(np.count_nonzero(found.scores >= last)))


class RecallMonitor:
    """Measures one endpoint; ``share`` of one core is what it may use. Used on one event loop.

    ``sample`` is offered the queries of the endpoint.
    """

    def __init__(self, served: ServedShards, sample: Sample, *, tier: str, share: float) -> None:
        self._served = served
        self._sample = sample
        self._share = share
        self._replayed = metrics.REPLAYED.labels(tier)
        self._expected = metrics.EXPECTED.labels(tier)
        self._found = metrics.FOUND.labels(tier)

    def loops(self) -> list[Loop]:
        """Return the loop; none if its share is 0."""
        return [Loop("recall monitor", self.run)] if self._share else []

    async def run(self, loop: LoopScope) -> None:
        """Repeat one query after the other until stopped."""
        with ThreadPoolExecutor(1, thread_name_prefix="recall") as thread:
            while loop.next_turn():
                if (query := self._sample.take()) is None:
                    await loop.sleep(_IDLE_SECONDS)
                else:
                    await self._replay(query, self._served.snapshot(), loop, thread)

    async def _replay(
        self, query: LiveQuery, snapshot: Snapshot, loop: LoopScope, thread: ThreadPoolExecutor
    ) -> None:
        in_thread = asyncio.get_running_loop().run_in_executor
        # Before the scan: what is hidden meanwhile is missing from what is expected, and no miss.
        scan = ExactScan(snapshot.shards, query.vector, K, query.row_filter)
        found = await in_thread(
            thread, snapshot.searched.search, query.vector[np.newaxis], K, query.row_filter
        )
        left = True
        while left:
            left, cpu_seconds = await in_thread(thread, _timed_step, scan)
            if not await loop.sleep(pause_after(cpu_seconds + _TURN_SECONDS, self._share)):
                return
        expected, of_them = found_of(scan.hits(), found)
        self._replayed.inc()
        self._expected.inc(expected)
        self._found.inc(of_them)


def _timed_step(scan: ExactScan) -> tuple[bool, float]:
    """Scan a block; returns whether there was one, and the CPU seconds that it took."""
    started = time.thread_time()
    left = scan.step()
    return left, time.thread_time() - started
