"""Searches of one endpoint, several at a time in one call.

A call costs the router and the endpoint about as much as a search. So while a call to an endpoint is
running, the queries that come are collected, and sent together when it ends, or after a millisecond. A
query that finds nothing running is sent at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from services.router import metrics
from shashin.codecs.hit_lists import NOTHING, HitLists, hits_in
from shashin.codecs.limits import MAX_QUERIES
from shashin.serving.fleet import Peer
from shashin.v1 import index_pb2

_GRACE_SECONDS = 0.01
"""After its deadline, for the call's own error to arrive."""

_NO_METADATA = grpc.aio.Metadata()

WINDOW_SECONDS = 0.001
"""For how long a query waits for others, at most."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of an endpoint, apart from the vectors; queries that agree in it share a call."""

    model_id: str
    dimensions: int
    k: int
    attributes: int
    """Of how many of the first hits of each query the attributes are needed."""
    row_filter: bytes
    """The serialized filter."""


@dataclass(frozen=True)
class EndpointAnswer:
    """What an endpoint has answered to the queries of one search."""

    response: index_pb2.IndexSearchResponse
    """Of the whole call; its hits are those of all searches that shared it."""
    hits: HitLists
    problem: str | None = None
    """How the hits are malformed."""

    @property
    def model_id(self) -> str:
        """The model."""
        return self.response.model_id


@dataclass(eq=False)
class _Search:
    """The queries of one search, as they wait for a call."""

    vectors: bytes
    queries: int
    expires_at: float
    """By the event loop's clock."""
    answered: asyncio.Future[EndpointAnswer]


@dataclass
class _Queue:
    """What waits for a call to one endpoint."""

    waiting: list[_Search] = field(default_factory=list)
    running: int = 0
    timer: asyncio.TimerHandle | None = None


class SearchBatches:
    """Sends searches, those to one endpoint that agree in what they want together."""

    def __init__(self, *, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
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
        search = _Search(vectors, queries, loop.time() + seconds, loop.create_future())
        key = peer, wanted
        queue = self._queues[key]
        queue.waiting.append(search)
        if not queue.running or sum(one.queries for one in queue.waiting) >= MAX_QUERIES:
            self._send(key)
        elif queue.timer is None:
            queue.timer = loop.call_later(self._window_seconds, self._send, key)
        try:
            # The call has the longest deadline of those that share it.
            async with asyncio.timeout_at(search.expires_at + _GRACE_SECONDS):
                return await search.answered
        except TimeoutError:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.DEADLINE_EXCEEDED, _NO_METADATA, _NO_METADATA, "Deadline Exceeded"
            ) from None

    def _send(self, key: tuple[Peer, Wanted]) -> None:
        """Start a call for what waits, as many queries as one may have."""
        queue = self._queues[key]
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        while queue.waiting:
            batch: list[_Search] = []
            room = MAX_QUERIES
            while queue.waiting and queue.waiting[0].queries <= room:
                search = queue.waiting.pop(0)
                if not search.answered.done():  # it was given up
                    batch.append(search)
                    room -= search.queries
            if batch:
                queue.running += 1
                call = asyncio.ensure_future(self._call(key, batch))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)

    async def _call(self, key: tuple[Peer, Wanted], batch: Sequence[_Search]) -> None:
        (peer, wanted), queue = key, self._queues[key]
        metrics.BATCHED_QUERIES.observe(sum(search.queries for search in batch))
        try:
            await self._answer(peer, wanted, batch)
        finally:
            queue.running -= 1
            if queue.waiting:
                self._send(key)
            elif not queue.running:
                self._queues.pop(key, None)

    async def _answer(self, peer: Peer, wanted: Wanted, batch: Sequence[_Search]) -> None:
        queries = sum(search.queries for search in batch)
        request = index_pb2.IndexSearchRequest(
            model_id=wanted.model_id,
            queries=b"".join(search.vectors for search in batch),
            dimensions=wanted.dimensions,
            k=wanted.k,
            filter=index_pb2.Filter.FromString(wanted.row_filter),
            attributes=wanted.attributes,
        )
        expires_at = max(search.expires_at for search in batch)
        remaining = max(0.0, expires_at - asyncio.get_running_loop().time())
        try:
            response = await peer.index.Search(request, timeout=remaining)
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
        try:
            hits, problem = hits_in(response.hits, queries, wanted.attributes), None
        except ValueError as error:
            hits, problem = NOTHING, str(error)
        first = 0
        for search in batch:
            end = first + search.queries
            if not search.answered.done():
                own = NOTHING if problem else hits.of_queries(first, end)
                search.answered.set_result(EndpointAnswer(response, own, problem))
            first = end
