"""Fan-out: one channel an endpoint, in step with discovery, and calls to all of them at once.

A search holds the endpoints that it began with until it ends. An endpoint that leaves discovery
gets no new searches, and its channel is closed when the last search that holds it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import grpc
from prometheus_client import Counter

from shashin.discovery.protocol import Endpoint
from shashin.errors import DeadlineExceeded, NoEndpoint, ShashinError
from shashin.rpc.channel import open_channel
from shashin.runtime.logging import get_logger
from shashin.tiers import LIVE
from shashin.v1 import embed_pb2_grpc, index_pb2_grpc

EMBEDDER = "embedder"

WRONG_MODEL = grpc.StatusCode.FAILED_PRECONDITION.name
"""How an endpoint of another model fails: it holds nothing that this router could search."""

FAILED_CALLS = Counter(
    "shashin_fleet_failed_calls",
    "Calls to index endpoints that failed, by gRPC status.",
    ["method", "tier", "status"],
)

log = get_logger(__name__)


class OfModel(Protocol):
    """An answer that says of which model it is."""

    @property
    def model_id(self) -> str:
        """The model."""
        ...


AnswerT = TypeVar("AnswerT", bound=OfModel)


class Peer:
    """An endpoint with its channel."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.tier = endpoint.tier or (LIVE if endpoint.role == "indexer" else "")
        self.holders = 0
        self.removed = False
        self._channel = open_channel(endpoint.address)
        self.index = index_pb2_grpc.IndexServiceStub(self._channel)
        self.embed = embed_pb2_grpc.EmbedServiceStub(self._channel)
        # Connect before the first query has to wait for it.
        self._channel.get_state(try_to_connect=True)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def __str__(self) -> str:
        return f"{self.endpoint.name} at {self.endpoint.address}"


@dataclass(frozen=True)
class Failure:
    """An endpoint that did not answer, and why."""

    endpoint: Endpoint
    status: str
    """Name of the gRPC status."""
    message: str

    @property
    def error(self) -> str:
        """Status and message."""
        return f"{self.status}: {self.message}"

    def __str__(self) -> str:
        return f"{self.endpoint.name} at {self.endpoint.address}: {self.error}"


@dataclass
class Round(Generic[AnswerT]):
    """What came of asking endpoints, each in one of the two lists."""

    answers: list[tuple[Peer, AnswerT]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class Fleet:
    """The endpoints that discovery names now."""

    def __init__(self) -> None:
        self._peers: dict[Endpoint, Peer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def sync(self, endpoints: Iterable[Endpoint]) -> bool:
        """Know exactly these endpoints from now on; returns whether that changed anything."""
        wanted = dict.fromkeys(endpoints)
        gone = [endpoint for endpoint in self._peers if endpoint not in wanted]
        new = [endpoint for endpoint in wanted if endpoint not in self._peers]
        for endpoint in gone:
            peer = self._peers.pop(endpoint)
            peer.removed = True
            log.info("endpoint left", endpoint=endpoint.name, address=endpoint.address)
            self._close_when_free(peer)
        for endpoint in new:
            self._peers[endpoint] = Peer(endpoint)
            log.info(
                "endpoint joined",
                endpoint=endpoint.name,
                address=endpoint.address,
                role=endpoint.role,
                tier=endpoint.tier,
            )
        return bool(gone or new)

    def index_endpoints(self) -> list[Endpoint]:
        """Return the endpoints that hold shards, sorted."""
        return sorted(endpoint for endpoint in self._peers if endpoint.role != EMBEDDER)

    @contextmanager
    def hold_index_peers(self) -> Iterator[list[Peer]]:
        """Hold the endpoints that have shards: none of their channels closes meanwhile."""
        with self._hold([p for p in self._peers.values() if p.endpoint.role != EMBEDDER]) as held:
            yield held

    @contextmanager
    def hold_embedders(self) -> Iterator[list[Peer]]:
        """Hold the embedders."""
        with self._hold([p for p in self._peers.values() if p.endpoint.role == EMBEDDER]) as held:
            yield held

    @contextmanager
    def _hold(self, peers: list[Peer]) -> Iterator[list[Peer]]:
        for peer in peers:
            peer.holders += 1
        try:
            yield peers
        finally:
            for peer in peers:
                peer.holders -= 1
                self._close_when_free(peer)

    def _close_when_free(self, peer: Peer) -> None:
        if peer.removed and peer.holders == 0:
            task = asyncio.ensure_future(peer.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every channel."""
        self.sync(())
        if self._closing:
            await asyncio.gather(*self._closing)


async def ask_all(
    peers: Sequence[Peer],
    send: Callable[[Peer], Awaitable[AnswerT]],
    *,
    method: str,
    model_id: str,
    check: Callable[[AnswerT], str | None] = lambda _answer: None,
) -> Round[AnswerT]:
    """Ask all at once and wait for all: the deadline is on each call.

    An answer of another model is a failure, and so is one in which ``check`` finds a fault.
    """
    # gRPC sends a call when it is made, not when it is awaited: no task of our own is needed.
    calls = [(peer, send(peer)) for peer in peers]
    asked: Round[AnswerT] = Round()
    try:
        for peer, call in calls:
            try:
                answer = await call
            except grpc.aio.AioRpcError as error:
                failure = Failure(peer.endpoint, error.code().name, error.details() or "no details")
            else:
                fault = check(answer)
                if answer.model_id != model_id:
                    failure = Failure(
                        peer.endpoint,
                        WRONG_MODEL,
                        f"it holds model {answer.model_id!r}; {model_id!r} is searched",
                    )
                elif fault is not None:
                    failure = Failure(peer.endpoint, grpc.StatusCode.INTERNAL.name, fault)
                else:
                    asked.answers.append((peer, answer))
                    continue
            asked.failures.append(failure)
            FAILED_CALLS.labels(method, peer.tier, failure.status).inc()
    finally:
        # Reached early only when the caller went away.
        for _, call in calls:
            _cancel(call)
    return asked


def _cancel(call: Any) -> None:
    if not call.done():
        call.cancel()


def nobody_answered(failures: Sequence[Failure], deadline_seconds: float) -> ShashinError:
    """Return the error of a call to which no endpoint had an answer."""
    if not failures:
        return NoEndpoint(
            "no index endpoint is known: discovery names no indexer and no index server; start "
            "one, or look at SHASHIN_DISCOVERY"
        )
    listed = "; ".join(str(failure) for failure in failures)
    if all(f.status == grpc.StatusCode.DEADLINE_EXCEEDED.name for f in failures):
        return DeadlineExceeded(
            f"none of {len(failures)} endpoints answered within {deadline_seconds * 1000:.0f} ms: "
            f"{listed}"
        )
    return NoEndpoint(f"none of {len(failures)} endpoints answered: {listed}")
