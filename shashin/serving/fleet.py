"""Fan-out: one channel per endpoint, kept in sync with discovery, and concurrent calls to all.

A caller holds its endpoints until it is done. An endpoint that leaves discovery gets no new calls,
and its channel is closed once no caller holds it.

A fleet works with one model. An endpoint of another model is not a failure: it is not called if
discovery reports its model, and set aside if its response does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc

from shashin.discovery.protocol import INDEX_SERVER, INDEXER, Endpoint, GroupKey, Role
from shashin.errors import WrongModelRequested
from shashin.metrics import fleet as metrics
from shashin.rpc.client_calls import ClientCalls
from shashin.rpc.peer_channel import PeerChannel
from shashin.runtime.logging import get_logger
from shashin.tiers import LIVE
from shashin.v1 import embed_pb2_grpc, index_pb2_grpc

INDEX_ROLES: tuple[Role, ...] = (INDEXER, INDEX_SERVER)
"""The roles of endpoints that hold shards."""

log = get_logger(__name__)


class OfModel(Protocol):
    """A response that names its model."""

    @property
    def model_id(self) -> str:
        """The model."""
        ...


AnswerT = TypeVar("AnswerT", bound=OfModel)


def tier_of(endpoint: Endpoint) -> str:
    """Return the tier that an endpoint serves; empty if unknown to discovery."""
    return endpoint.tier or (LIVE if endpoint.role == INDEXER else "")


class Peer:
    """An endpoint with its channel."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.tier = tier_of(endpoint)
        self.holders = 0
        self.removed = False
        self.calls = ClientCalls(endpoint.role, self.tier, endpoint.address)
        self._channel = PeerChannel(endpoint.address)
        channel: Any = self._channel
        self.index = index_pb2_grpc.IndexServiceStub(channel)
        self.embed = embed_pb2_grpc.EmbedServiceStub(channel)
        # Now, so that the first query does not have to wait.
        self._channel.connect()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


@dataclass(frozen=True)
class Failure:
    """An endpoint whose call failed, and why."""

    endpoint: Endpoint
    status: str
    """Name of the gRPC status."""
    message: str

    @property
    def error(self) -> str:
        """Status and message."""
        return f"{self.status}: {self.message}"

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.error}"


@dataclass(frozen=True)
class OtherModel:
    """An endpoint that holds a different model than the fleet's."""

    endpoint: Endpoint
    model_id: str = ""
    """The model that it holds; empty if it only rejected ours."""
    refusal: str = ""
    """Its message when it rejected ours."""

    def __str__(self) -> str:
        reason = self.refusal or f"it holds model {self.model_id!r}"
        return f"{self.endpoint} ({reason})"


class Held:
    """The endpoints of some roles of a fleet, held by one caller while this context is open."""

    def __init__(self, fleet: Fleet, peers: list[Peer], other_models: list[OtherModel]) -> None:
        self._fleet = fleet
        self.peers = peers
        """Those to call."""
        self.other_models = other_models
        """Those that are not called, since discovery reports another model."""

    def __enter__(self) -> Self:
        for peer in self.peers:
            peer.holders += 1
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self.peers:
            peer.holders -= 1
            self._fleet.close_if_free(peer)

    def joined(self, group: GroupKey) -> list[Peer]:
        """Return the endpoints of a group that have joined since, and hold them as well."""
        new = [peer for peer in self._fleet.of_group(group) if peer not in self.peers]
        for peer in new:
            peer.holders += 1
        self.peers.extend(new)
        return new


@dataclass
class Round(Generic[AnswerT]):
    """The outcome of a fan-out; each endpoint is in one of the lists."""

    answers: list[tuple[Peer, AnswerT]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    other_models: list[OtherModel] = field(default_factory=list)


class Fleet:
    """The current endpoints in discovery, for one model."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._peers: dict[Endpoint, Peer] = {}
        self._other_models: set[Endpoint] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def sync(self, endpoints: Iterable[Endpoint]) -> bool:
        """Replace the known endpoints with these; returns whether anything changed."""
        current = dict.fromkeys(endpoints)
        known = self._peers.keys() | self._other_models
        removed = known - current.keys()
        new = [endpoint for endpoint in current if endpoint not in known]
        for endpoint in removed:
            self._other_models.discard(endpoint)
            peer = self._peers.pop(endpoint, None)
            log.info("endpoint left", endpoint=endpoint.name, address=endpoint.address)
            if peer is not None:
                peer.removed = True
                self.close_if_free(peer)
        for endpoint in new:
            if endpoint.may_hold(self._model_id):
                self._peers[endpoint] = Peer(endpoint)
            else:
                self._other_models.add(endpoint)
            log.info(
                "endpoint joined",
                endpoint=endpoint.name,
                address=endpoint.address,
                role=endpoint.role,
                tier=endpoint.tier,
                model_id=endpoint.model_id,
            )
        return bool(removed or new)

    def endpoints(self, *roles: Role) -> list[Endpoint]:
        """Return the endpoints of these roles, of any model, sorted."""
        return sorted(e for e in self._peers.keys() | self._other_models if e.role in roles)

    def hold(self, *roles: Role) -> Held:
        """Return a context that holds the endpoints of these roles: their channels stay open meanwhile."""
        return Held(
            self,
            [peer for peer in self._peers.values() if peer.endpoint.role in roles],
            [OtherModel(e, e.model_id) for e in sorted(self._other_models) if e.role in roles],
        )

    def of_group(self, group: GroupKey) -> list[Peer]:
        """Return the endpoints that a group has now."""
        return [peer for endpoint, peer in self._peers.items() if endpoint.group_key == group]

    def close_if_free(self, peer: Peer) -> None:
        """Close the channel of an endpoint that has left, if nobody holds it."""
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
    """Call all peers concurrently and wait for all: each call's deadline bounds the fan-out.

    A response in which ``check`` finds a fault is a failure.
    """
    calls = [(peer, send(peer)) for peer in peers]
    asked: Round[AnswerT] = Round()
    try:
        outcomes = await asyncio.gather(
            *(
                outcome_of(
                    peer,
                    peer.calls.observed(method, call),
                    method=method,
                    model_id=model_id,
                    check=check,
                )
                for peer, call in calls
            )
        )
        for (peer, _), outcome in zip(calls, outcomes, strict=True):
            match outcome:
                case OtherModel() as other:
                    asked.other_models.append(other)
                case Failure() as failure:
                    asked.failures.append(failure)
                case answer:
                    asked.answers.append((peer, answer))
    finally:
        # Only has an effect if the caller was cancelled.
        for _, call in calls:
            _cancel(call)
    return asked


async def outcome_of(
    peer: Peer,
    call: Awaitable[AnswerT],
    *,
    method: str,
    model_id: str,
    check: Callable[[AnswerT], str | None] = lambda _answer: None,
) -> AnswerT | Failure | OtherModel:
    """Wait for one call to a peer; a response in which ``check`` finds a fault is a failure."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        outcome = _refusal_in(error, peer.endpoint)
    else:
        if answer.model_id != model_id:
            return OtherModel(peer.endpoint, answer.model_id)
        if (fault := check(answer)) is None:
            return answer
        outcome = Failure(peer.endpoint, grpc.StatusCode.INTERNAL.name, fault)
    if isinstance(outcome, Failure):
        metrics.FAILED_CALLS.labels(method, peer.tier, outcome.status).inc()
    return outcome


def _refusal_in(error: grpc.aio.AioRpcError, endpoint: Endpoint) -> Failure | OtherModel:
    details = error.details() or "no details"
    reason, _, message = details.partition(": ")
    refused = error.code() == grpc.StatusCode.FAILED_PRECONDITION
    if refused and reason == WrongModelRequested.__name__:
        return OtherModel(endpoint, refusal=message)
    return Failure(endpoint, error.code().name, details)


def _cancel(call: Any) -> None:
    if not call.done():
        call.cancel()
