"""Calls from one process of Shashin to another: one connection, which is made again when it is lost.

For unary calls that are sent once, by the event loop that they belong to. Stubs of generated code take it for a
channel of grpc.aio, whose calls need several times as long. Where calls are to be retried, or spread over the
addresses of a name, gRPC's own does it (shashin.rpc.channel).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from ngh2 import NGH2Error

from shashin.rpc.client_connection import ClientCall, ClientConnection
from shashin.rpc.deadlines import Deadlines
from shashin.rpc.wire import CONTENT_TYPE, Header, Metadata, Status, framed, headers_of

_CONNECT_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.1, 1.0


class PeerChannel:
    """A channel to one address, ``HOST:PORT``, without TLS.

    While a connection is being made, calls wait for it. Once that has failed, they fail at once, UNAVAILABLE,
    until an attempt succeeds; there is one every second.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: ClientConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: list[ClientCall] = []
        """Calls to send once there is a connection."""
        self._backoff = 0.0
        """Seconds until the next attempt to connect."""
        self._failure = ""
        """Why there is none; empty unless the last attempt has failed."""
        self._open: set[ClientConnection] = set()
        """That connection, and those that take no further calls, and have some."""
        self._deadlines = Deadlines()
        self._is_closed = False

    def connect(self) -> None:
        """Begin to connect, if there is no connection."""
        if self._connection is None and self._connecting is None and not self._is_closed:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def close(self) -> None:
        """Close the connection; calls that have not ended are UNAVAILABLE."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for connection in list(self._open):
            connection.close()
        self._fail_waiting("the channel is closed")

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., ClientCall]:
        """Return what sends calls of a method."""
        headers: list[Header] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method.encode("ascii")),
            (b":authority", self._address.encode("ascii")),
            (b"te", b"trailers"),
            CONTENT_TYPE,
        ]

        def send(
            request: Any, *, timeout: float | None = None, metadata: Metadata | None = None
        ) -> ClientCall:
            own = [*headers, *headers_of(metadata)] if metadata else headers
            body = framed(request_serializer(request))
            call = ClientCall(own, body, response_deserializer, timeout, self._deadlines)
            self._send(call)
            return call

        return send

    def _send(self, call: ClientCall) -> None:
        if call.done():
            return
        if self._connection is not None:
            try:
                self._connection.start(call)
            except (ValueError, NGH2Error) as error:
                call.end(Status(grpc.StatusCode.INTERNAL, f"the call cannot be sent: {error}"))
        elif self._is_closed:
            call.end(Status(grpc.StatusCode.UNAVAILABLE, "the channel is closed"))
        elif self._failure:
            call.end(Status(grpc.StatusCode.UNAVAILABLE, self._failure))
        else:
            self._waiting.append(call)
            self.connect()

    async def _connect(self) -> None:
        """Connect, however many attempts it takes."""
        while True:
            await asyncio.sleep(self._backoff)
            self._backoff = min(
                max(2 * self._backoff, _FIRST_BACKOFF_SECONDS), _MAX_BACKOFF_SECONDS
            )
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    connection = await self._connected()
            except TimeoutError:
                self._fail(f"no connection within {_CONNECT_SECONDS:.0f} seconds")
            except (OSError, ValueError, OverflowError) as error:
                # Some names are not even asked for, as those with a label that is too long; nor are some ports.
                self._fail(getattr(error, "strerror", None) or str(error))
            else:
                if connection.takes_calls:
                    self._connection, self._connecting, self._failure = connection, None, ""
                    waiting, self._waiting = self._waiting, []
                    for call in waiting:
                        self._send(call)
                    return
                self._fail("the server closes connections at once")

    async def _connected(self) -> ClientConnection:
        loop = asyncio.get_running_loop()

        def made() -> ClientConnection:
            return ClientConnection(again, self._lose, self._open)

        def again(call: ClientCall) -> None:
            # Later, when all is known of why the server did not take it.
            loop.call_soon(self._send, call)

        host, _, port = self._address.rpartition(":")
        _, connection = await loop.create_connection(made, host.strip("[]"), int(port))
        return connection

    def _fail(self, why: str) -> None:
        self._failure = f"cannot connect to {self._address}: {why}"
        self._fail_waiting(self._failure)

    def _fail_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.end(Status(grpc.StatusCode.UNAVAILABLE, why))

    def _lose(self, connection: ClientConnection) -> None:
        """Take another connection for further calls."""
        if connection is self._connection:
            self._connection = None
            lived = asyncio.get_running_loop().time() - connection.made_at
            if connection.has_answered or lived > _MAX_BACKOFF_SECONDS:
                self._backoff = 0.0
            elif self._backoff > _FIRST_BACKOFF_SECONDS:
                # And not for the first time: there is a pause before the next attempt.
                self._fail("the server closes connections at once")
            self.connect()
