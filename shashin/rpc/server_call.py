"""One call, as the handler of a server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import grpc

from shashin.rpc.wire import Header, Metadata, Status, metadata_of

FAILED = Status(grpc.StatusCode.INTERNAL, "the server failed: its log has the reason")


class Ended(Exception):
    """Ends a call with a status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class ServerCall:
    """A call that was received: what handlers that are made for grpc.aio use of its context."""

    __slots__ = ("_headers", "ended", "expires_at", "loop")

    def __init__(
        self,
        headers: Sequence[Header],
        loop: asyncio.AbstractEventLoop,
        seconds: float | None,
    ) -> None:
        """``seconds`` is the time until its deadline; None if it has none."""
        self._headers = headers
        self.loop = loop
        self.expires_at = None if seconds is None else loop.time() + seconds
        """By the clock of the loop."""
        self.ended: Callable[[], None] | None = None
        """Called once, when the call has its status, or its client has left."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None if there is none."""
        if self.expires_at is None:
            return None
        return max(0.0, self.expires_at - self.loop.time())

    def invocation_metadata(self) -> Metadata:
        """Return what the client has sent beside the request."""
        return metadata_of(self._headers)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call with a status.

        Raises:
            Ended: always.
        """
        raise Ended(Status(code, details, trailing_metadata))


Unary = Callable[[bytes, ServerCall], Awaitable[bytes]]
Stream = Callable[[AsyncIterator[bytes], ServerCall], AsyncIterator[bytes]]


@dataclass(frozen=True)
class Method:
    """What answers the calls of a method: one of these three."""

    unary: Unary | None = None
    """From the bytes of the request to those of the response."""
    stream: Stream | None = None
    """From those of some requests to those of any number of responses."""
    refusal: Status | None = None
    """Ends each call as soon as something of a request has come, which is thrown away."""
    takes_many: bool = False
    """Whether there may be any number of requests in a stream, and not only one."""
    request_bytes: int | None = None
    """Maximum size of a request, where it is lower than that of the server."""
