"""Runs the searches of an endpoint in threads, by turns (shashin.serving.search_turns).

What is done in one go, and all parts of a large search, use one snapshot of the shards. A search that is
expected to be short is done at once, if nothing else is running
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
        if self._idle == self._workers and _is_simple(vectors, row_filter):
            snapshot = self._served.snapshot()
            if self._quick.expected(snapshot):
                searched = self._now(snapshot)
                hits, took = _hits_of(searched, vectors, k, row_filter)
                self._quick.observe(snapshot, took)
                span = tracing.current()
                _note(1, took, [] if span is None else [span])
                return Found(searched, [(hits, 0, 1)])
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
                searched = first.searched or self._now(self._served.snapshot())
                for part in parts:
                    part.search.searched = searched
                running = asyncio.get_running_loop().run_in_executor(
                    self._executor, _search, parts, searched
                )
            except Exception as error:  # noqa: BLE001
                _fail(parts, error)
                continue
            self._idle -= 1
            running.add_done_callback(partial(self._ended, parts))

    def _now(self, snapshot: Snapshot) -> Searched:
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
        _note(
            len(hits.counts),
            seconds,
            [part.search.span for part in parts if part.search.span is not None],
        )
        first = parts[0].search
        searched = first.searched
        assert searched is not None
        if len(parts) == 1 and _is_simple(first.vectors, first.row_filter):
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
    first = parts[0].search
    return _hits_of(searched, _vectors_of(parts), first.k, first.row_filter)


def _hits_of(
    searched: Searched, vectors: Vectors, k: int, row_filter: RowFilter
) -> tuple[Hits, float]:
    started = time.perf_counter()
    hits = searched.snapshot.searched.search(vectors, k, row_filter)
    return hits, time.perf_counter() - started


def _note(queries: int, seconds: float, spans: Sequence[Span]) -> None:
    """Count what was searched for in one go, in so many seconds, for the searches of some spans."""
    metrics.BATCHED_QUERIES.observe(queries)
    if (tracer := tracing.tracer()) is not None:
        tracer.shared("search shards", spans, seconds, {"shashin.queries": queries})


def _is_simple(vectors: Vectors, row_filter: RowFilter) -> bool:
    return len(vectors) == 1 and not row_filter.restricts


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
