"""Searches of one endpoint, several at a time in one call.

What is sent when is decided by services.router.sharing. A search of many vectors has a call of its own. A
call is cancelled once nobody waits for any of its searches any more.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import grpc

from services.router.notes import unknown_in
from services.router.sharing import Waiting, due_at, shares, still_arriving
from shashin.codecs.hit_lists import NOTHING, QueryHits, hits_in
from shashin.codecs.limits import SHARED_QUERIES
from shashin.codecs.ranges import ranges_in, report_in
from shashin.metrics import router as metrics
from shashin.offsets.coverage import LiveReport
from shashin.offsets.ranges import OffsetRange
from shashin.runtime import tracing
from shashin.serving.fleet import Peer
from shashin.v1 import index_pb2

if TYPE_CHECKING:
    from shashin.runtime.spans import Span

_GRACE_SECONDS = 0.01
"""After its deadline, for the call's own error to arrive."""

_NO_METADATA = grpc.aio.Metadata()


class Wanted(NamedTuple):
    """What is asked of an endpoint, apart from the vectors; queries that agree in it share a call."""

    model_id: str
    dimensions: int
    k: int
    attributes: int
    """Of how many of the first hits of each query the details are needed."""
    row_filter: bytes
    """The serialized filter."""
    other_photos: bool = False
    """Whether the other photos of their listings are needed, too."""


@dataclass(frozen=True)
class Searched:
    """What a call has searched."""

    covered: tuple[OffsetRange, ...]
    report: LiveReport
    unknown: index_pb2.UnknownChoices
    """Of the filter."""


class EndpointAnswer(NamedTuple):
    """What an endpoint has answered to the queries of one search."""

    model_id: str
    hits: QueryHits
    searched: Searched
    problem: str | None = None
    """How the hits are malformed."""


@dataclass(eq=False)
class _Search:
    """The queries of one search, as they wait for a call or its answer."""

    vectors: bytes
    queries: int
    expires_at: float
    """By the event loop's clock."""
    answered: asyncio.Future[EndpointAnswer]
    call: _Call | None = None
    """The one that it shares, once it is sent."""
    timer: asyncio.TimerHandle | None = None
    """Only if the call may take longer than the search."""
    span: Span | None = field(default_factory=tracing.current)
    """In which it waits, while tracing is on."""

    def expire(self) -> None:
        """Fail, as its call would."""
        if not self.answered.done():
            self.answered.set_exception(
                grpc.aio.AioRpcError(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    _NO_METADATA,
                    _NO_METADATA,
                    "Deadline Exceeded",
                )
            )


@dataclass(eq=False)
class _Call:
    """A call under way."""

    callers: int
    """That wait for it."""
    task: asyncio.Task[None] | None = None

    def left(self) -> None:
        """Note that a caller does not wait any longer: it is cancelled, or has its answer."""
        self.callers -= 1
        if not self.callers and self.task is not None and not self.task.done():
            # Once it has begun, so that its call is cancelled with it.
            asyncio.get_running_loop().call_soon(self.task.cancel)


@dataclass
class _Queue:
    """What waits for a call to one endpoint."""

    waiting: list[_Search] = field(default_factory=list)
    queries: int = 0
    """Vectors of those that wait."""
    seen: int = 0
    """How many of them there were when it was looked at last."""
    since: float = 0.0
    """When the first of them came."""
    calls: int = 0
    """Under way."""
    look: asyncio.Handle | None = None
    """The next look."""


class SearchBatches:
    """Sends searches, those to one endpoint that agree in what they want together."""

    def __init__(self) -> None:
        self._queues: defaultdict[tuple[Peer, Wanted], _Queue] = defaultdict(_Queue)
        self._calls: set[asyncio.Task[None]] = set()

    async def search(
        self, peer: Peer, wanted: Wanted, vectors: bytes, queries: int, seconds: float
    ) -> EndpointAnswer:
        """Search an endpoint for some queries; ``vectors`` are (queries, dimensions) float32.

        Raises:
            grpc.aio.AioRpcError: when the call fails, or takes longer than ``seconds``.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        search = _Search(vectors, queries, now + seconds, loop.create_future())
        key = peer, wanted
        queue = self._queues[key]
        if not shares(queries):
            self._start(key, queue, [search])
        else:
            if not queue.waiting:
                queue.since = now
            queue.waiting.append(search)
            queue.queries += queries
            if queue.queries >= SHARED_QUERIES:
                self._look(key, queue, loop)
            elif queue.look is None:
                queue.seen = len(queue.waiting)
                queue.look = loop.call_soon(self._look, key, queue, loop)
        try:
            return await search.answered
        finally:
            if search.timer is not None:
                search.timer.cancel()
            if search.call is not None:
                search.call.left()

    def _look(
        self, key: tuple[Peer, Wanted], queue: _Queue, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Send what waits if it is time to."""
        if queue.look is not None:
            queue.look.cancel()
            queue.look = None
        if not queue.waiting:
            return
        waiting = Waiting(queue.queries, len(queue.waiting) - queue.seen, queue.since)
        queue.seen = len(queue.waiting)
        if still_arriving(waiting):
            queue.look = loop.call_soon(self._look, key, queue, loop)
            return
        due = due_at(waiting, calls=queue.calls)
        if due <= loop.time():
            self._send(key, queue)
        else:
            queue.look = loop.call_at(due, self._look, key, queue, loop)

    def _send(self, key: tuple[Peer, Wanted], queue: _Queue) -> None:
        waiting, queue.waiting, queue.queries, queue.seen = queue.waiting, [], 0, 0
        # Without those that were given up.
        if batch := [search for search in waiting if not search.answered.done()]:
            self._start(key, queue, batch)
        elif not queue.calls:
            self._queues.pop(key, None)

    def _start(self, key: tuple[Peer, Wanted], queue: _Queue, batch: Sequence[_Search]) -> None:
        call, loop = _Call(len(batch)), asyncio.get_running_loop()
        # The call has the longest deadline of those that share it.
        expires_at = max([search.expires_at for search in batch])
        for search in batch:
            search.call = call
            if search.expires_at < expires_at:
                search.timer = loop.call_at(search.expires_at + _GRACE_SECONDS, search.expire)
        queue.calls += 1
        # Sent before the task begins: by then, the endpoint is at work.
        try:
            response = _sent(*key, batch, expires_at - loop.time())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the searches get
            response = _failed(error)
        call.task = loop.create_task(_answer(response, key[1], batch))
        self._calls.add(call.task)
        call.task.add_done_callback(partial(self._ended, key, queue))

    def _ended(self, key: tuple[Peer, Wanted], queue: _Queue, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        queue.calls -= 1
        if queue.waiting:
            self._look(key, queue, asyncio.get_running_loop())
        elif not queue.calls:
            self._queues.pop(key, None)


def _sent(
    peer: Peer, wanted: Wanted, batch: Sequence[_Search], seconds: float
) -> Coroutine[Any, Any, index_pb2.IndexSearchResponse]:
    """Send a call for some searches; returns what waits for its response."""
    metrics.BATCHED_QUERIES.observe(sum([search.queries for search in batch]))
    request = index_pb2.IndexSearchRequest(
        model_id=wanted.model_id,
        queries=b"".join([search.vectors for search in batch]),
        dimensions=wanted.dimensions,
        k=wanted.k,
        filter=index_pb2.Filter.FromString(wanted.row_filter),
        attributes=wanted.attributes,
        other_photos=wanted.other_photos,
    )
    return peer.calls.send(
        "Search",
        peer.index.Search,
        request,
        seconds=max(0.0, seconds),
        served=[search.span for search in batch if search.span is not None],
    )


async def _failed(error: Exception) -> NoReturn:
    raise error


async def _answer(
    sent: Coroutine[Any, Any, index_pb2.IndexSearchResponse],
    wanted: Wanted,
    batch: Sequence[_Search],
) -> None:
    """Give each search what is its own of the response."""
    try:
        response = await sent
    except BaseException as error:
        # Also a cancellation: of a router that ends.
        for search in batch:
            if search.answered.done():
                continue
            if isinstance(error, Exception):
                search.answered.set_exception(error)
            else:
                search.answered.cancel()
        if not isinstance(error, Exception):
            raise
        return
    problem = None
    sizes = [search.queries for search in batch]
    own: Sequence[QueryHits] = [NOTHING] * len(batch)
    try:
        hits = hits_in(
            response.hits, sum(sizes), wanted.attributes, other_photos=wanted.other_photos
        )
        own = hits.each_of(sizes)
    except ValueError as error:
        problem = str(error)
    model_id = response.model_id
    searched = Searched(
        tuple(ranges_in(response.covered)), report_in(response), unknown_in(response)
    )
    for search, found in zip(batch, own, strict=True):
        if not search.answered.done():
            search.answered.set_result(EndpointAnswer(model_id, found, searched, problem))
