"""What becomes of calls to an endpoint whose searches are given up, or that cannot be sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from services.router.batching import EndpointAnswer, SearchBatches, Wanted
from shashin.rpc.client_calls import ClientCalls


@dataclass(frozen=True)
class Index:
    """A stub."""

    Search: Callable[..., Any]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as far as searches use it."""

    index: Index
    calls: ClientCalls


WANTED = Wanted("model", 2, 1, 1, b"")


def searching(sent: Callable[..., Any]) -> asyncio.Task[EndpointAnswer]:
    """Search an endpoint for one vector; ``sent`` sends the call."""
    peer: Any = Endpoint(Index(sent), ClientCalls("index-server", "hourly"))
    return asyncio.create_task(SearchBatches().search(peer, WANTED, bytes(8), 1, 60.0))


async def test_a_call_is_cancelled_with_a_search_that_is_given_up_while_it_is_sent() -> None:
    call: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def sent(*_: Any, **__: Any) -> asyncio.Future[Any]:
        search.cancel()
        return call

    search = searching(sent)
    with pytest.raises(asyncio.CancelledError):
        await search
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 10)


async def test_a_call_that_cannot_be_sent_fails_its_search() -> None:
    def sent(*_: Any, **__: Any) -> Any:
        raise ValueError("it cannot be sent")

    with pytest.raises(ValueError, match="it cannot be sent"):
        await asyncio.wait_for(searching(sent), 10)
