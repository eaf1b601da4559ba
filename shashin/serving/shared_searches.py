"""Runs the searches of an endpoint in threads, by turns (shashin.serving.search_turns).

What is done in one go, and all parts of a large search, use one snapshot of the shards. A search that is
expected to be much shorter than the way to a thread and back is done at once, if nothing else is running
(shashin.serving.quick_searches).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from shashin.metrics import index as metrics
from shashin.offsets.coverage import LiveReport
from shashin.offsets.ranges import OffsetRange
from shashin.runtime import tracing
from shashin.serving.quick_searches import QuickSearches
from shashin.serving.search_turns import Part, SearchTurns, Turnable
from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.kinds.protocol import Hits, Vectors
from shashin.shards.row_filter import RowFilter
from shashin.shards.shard import Shard

if TYPE_CHECKING:
    from shashin.runtime.spans import Span


@dataclass(frozen=True)
class Searched:
    """Shards as they are searched, with what they cover."""

    snapshot: Snapshot
    report: LiveReport
    """What the live tier knows of the log."""
    covered: Sequence[OffsetRange]


@dataclass(frozen=True)
class Found:
    """What a search has found."""

    searched: Searched
    parts: Sequence[tuple[Hits, int, int]]
    """Hits with the queries in them that are of this search: from one number to before the other. In the
    order of its queries."""


@dataclass(eq=False)
class _Search(Turnable):
    """A search that waits or runs."""

    vectors: Vectors = field(kw_only=True)
    k: int = field(kw_only=True)
    row_filter: RowFilter = field(kw_only=True)
    answered: asyncio.Future[Found] = field(kw_only=True)
    searched: Searched | None = None
    """Once it has begun."""
    found: dict[int, tuple[Hits, int, int]] = field(default_factory=dict)
    """By the first query of a part."""
    span: Span | None = field(default_factory=tracing.current)
    """In which it waits, while tracing is on."""


class SharedSearches:
    """Searches what is served, ``workers`` at a time in ``executor``; used on one event loop.

    ``report`` returns what the live tier knows of the log, as of the shards of one snapshot.
    """

    def __init__(
        self,
        served: ServedShards,
        executor: Executor,
        report: Callable[[Sequence[Shard]], LiveReport],
        *,
        workers: int,
    ) -> None:
        self._served = served
        self._executor = executor
        self._report = report
        self._workers = self._idle = workers
        self._quick = QuickSearches()
        self._turns: SearchTurns[_Search] = SearchTurns()

    async def search(
        self, vectors: Vectors, k: int, row_filter: RowFilter, seconds: float | None
    ) -> Found:
        """Return the hits of the k nearest listings for each of the vectors, (m, dimensions).

        Raises:
            TimeoutError: when that takes longer than ``seconds``; None is no limit.
        """
        loop = asyncio.get_running_loop()
        search = _Search(
            (k, row_filter),
            len(vectors),
            vectors=vectors,
            k=k,
            row_filter=row_filter,
            answered=loop.create_future(),
        )
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), _expire, search)
        self._turns.add(search)
        self._begin()
        try:
            return await search.answered
        finally:
            search.given_up = True  # also if the caller has left
            if timer is not None:
                timer.cancel()

    def _begin(self) -> None:
        """Start what is next, as long as a thread is free."""
        while self._idle and (parts := self._turns.take()):
            first = parts[0].search
            try:
                # Before the search, since open shards grow meanwhile.
                searched = first.searched or self._now()
                for part in parts:
                    part.search.searched = searched
                if self._idle == self._workers and self._is_quick(parts, searched):
                    self._deliver(parts, *_search(parts, searched))
                    continue
                running = asyncio.get_running_loop().run_in_executor(
                    self._executor, _search, parts, searched
                )
            except Exception as error:  # noqa: BLE001
                _fail(parts, error)
                continue
            self._idle -= 1
            running.add_done_callback(partial(self._ended, parts))

    def _is_quick(self, parts: Sequence[Part[_Search]], searched: Searched) -> bool:
        return _is_simple(parts) and self._quick.expected(searched.snapshot)

    def _now(self) -> Searched:
        snapshot = self._served.snapshot()
        # Positions first: what they require, the same shards then cover.
        report = self._report(snapshot.shards)
        return Searched(snapshot, report, snapshot.covered())

    def _ended(
        self, parts: Sequence[Part[_Search]], running: asyncio.Future[tuple[Hits, float]]
    ) -> None:
        self._idle += 1
        if running.cancelled():
            _fail(parts, asyncio.CancelledError())
        elif (error := running.exception()) is None:
            self._deliver(parts, *running.result())
        elif len(parts) == 1:
            _fail(parts, error)
        else:
            # The fault may be of one of them.
            for part in parts:
                part.search.alone = True
                self._turns.add(part.search)
        self._begin()

    def _deliver(self, parts: Sequence[Part[_Search]], hits: Hits, seconds: float) -> None:
        """Give each search its hits; they took so many seconds."""
        metrics.BATCHED_QUERIES.observe(len(hits.counts))
        if (tracer := tracing.tracer()) is not None:
            spans = [part.search.span for part in parts if part.search.span is not None]
            tracer.shared("search shards", spans, seconds, {"shashin.queries": len(hits.counts)})
        searched = parts[0].search.searched
        assert searched is not None
        if _is_simple(parts):
            self._quick.observe(searched.snapshot, seconds)
        begin = 0
        for part in parts:
            end = begin + part.end - part.first
            search = part.search
            search.found[part.first] = hits, begin, end
            begin = end
            missing = search.queries - sum(end - first for _, first, end in search.found.values())
            if not missing and not search.answered.done():
                in_order = [search.found[first] for first in sorted(search.found)]
                search.answered.set_result(Found(searched, in_order))


def _search(parts: Sequence[Part[_Search]], searched: Searched) -> tuple[Hits, float]:
    """Search for all parts; returns also how many seconds that took."""
    started = time.perf_counter()
    first = parts[0].search
    hits = searched.snapshot.searched.search(_vectors_of(parts), first.k, first.row_filter)
    return hits, time.perf_counter() - started


def _is_simple(parts: Sequence[Part[_Search]]) -> bool:
    return len(parts) == parts[0].search.queries == 1 and not parts[0].search.row_filter.restricts


def _vectors_of(parts: Sequence[Part[_Search]]) -> Vectors:
    chosen = [part.search.vectors[part.first : part.end] for part in parts]
    return chosen[0] if len(chosen) == 1 else np.concatenate(chosen)


def _fail(parts: Sequence[Part[_Search]], error: BaseException) -> None:
    for part in parts:
        part.search.given_up = True
        if part.search.answered.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            part.search.answered.cancel()
        else:
            part.search.answered.set_exception(error)


def _expire(search: _Search) -> None:
    if not search.answered.done():
        search.answered.set_exception(TimeoutError())
