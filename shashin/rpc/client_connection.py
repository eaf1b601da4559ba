"""The client's end of a connection: the calls that were sent, until they have a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
from ngh2 import (
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    ResponseReceived,
    Role,
    Setting,
    StreamClosed,
    TrailersReceived,
)

from shashin.rpc.deadlines import Deadlines
from shashin.rpc.http2_protocol import Http2Protocol
from shashin.rpc.server_limits import MAX_MESSAGE_BYTES
from shashin.rpc.wire import Header, Messages, Status, WireError, status_in, timeout_of

_LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
_NOT_ONE = Status(grpc.StatusCode.INTERNAL, "expected one response, whole")
_HTTP_CODES = {
    b"400": grpc.StatusCode.INTERNAL,
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
    b"429": grpc.StatusCode.UNAVAILABLE,
    b"502": grpc.StatusCode.UNAVAILABLE,
    b"503": grpc.StatusCode.UNAVAILABLE,
    b"504": grpc.StatusCode.UNAVAILABLE,
}
_RESET_CODES = {
    int(ErrorCode.CANCEL): grpc.StatusCode.CANCELLED,
    int(ErrorCode.REFUSED_STREAM): grpc.StatusCode.UNAVAILABLE,
    int(ErrorCode.ENHANCE_YOUR_CALM): grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def error_of(status: Status) -> grpc.aio.AioRpcError:
    """Return the error of a call that ended with a status, as grpc.aio raises it."""
    return grpc.aio.AioRpcError(
        status.code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*status.metadata),
        details=status.message,
    )


class ClientCall(asyncio.Future[Any]):
    """A call, and its response: cancelling it cancels the call."""

    def __init__(
        self,
        headers: list[Header],
        body: bytes,
        parse: Callable[[bytes], Any],
        seconds: float | None,
        deadlines: Deadlines,
    ) -> None:
        """``body`` is the request with its length before it."""
        loop = asyncio.get_running_loop()
        super().__init__(loop=loop)
        self.headers = headers
        self.body = body
        self._parse = parse
        self.expires_at: float | None = None
        self._deadlines = deadlines
        self._deadline: int | None = None
        """Its number among these."""
        if seconds is not None:
            self.expires_at = loop.time() + seconds
            self._deadline = deadlines.add(self.expires_at, partial(self.end, _LATE))
        self.messages: Messages | None = None
        """None until a response begins."""
        self.response: bytes | None = None
        self.was_refused = False
        """Whether some server has refused it before it looked at it: it may be sent again once."""
        self.reset: Callable[[], None] | None = None
        """Tells the server that nobody waits any more; None while it has not been sent."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the call."""
        self._leave()
        return super().cancel(msg)

    def end(self, status: Status) -> None:
        """End the call with a status, if it has not ended."""
        if self.done():
            return
        if status.code is grpc.StatusCode.OK:
            if self.response is None or self.messages is None or not self.messages.is_whole:
                status = _NOT_ONE
            else:
                try:
                    self.set_result(self._parse(self.response))
                except Exception as error:  # noqa: BLE001 - whatever a parser raises
                    status = Status(grpc.StatusCode.INTERNAL, f"the response: {error}")
        if status.code is not grpc.StatusCode.OK:
            self.set_exception(error_of(status))
        self._leave()

    def _leave(self) -> None:
        if self._deadline is not None:
            self._deadlines.discard(self._deadline)
            self._deadline = None
        reset, self.reset = self.reset, None
        if reset is not None:
            reset()


class ClientConnection(Http2Protocol):
    """One connection to a server; ``connections`` are those of the channel that are open.

    ``again`` gets calls that the server has not looked at, and ``full`` is called once when it takes no
    further calls.
    """

    def __init__(
        self,
        again: Callable[[ClientCall], None],
        full: Callable[[ClientConnection], None],
        connections: set[ClientConnection],
    ) -> None:
        super().__init__(Role.CLIENT, {Setting.ENABLE_PUSH: 0})
        self._again = again
        self._full = full
        self._connections = connections
        self._calls: dict[int, ClientCall] = {}
        self.takes_calls = True
        self.made_at = self.loop.time()
        self.has_answered = False
        """Whether some call had a response."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._connections.add(self)
        super().connection_made(transport)

    def start(self, call: ClientCall) -> None:
        """Send a call."""
        if not self.http2.can_send_request:
            self._stop_taking()
            self._again(call)
            return
        headers = call.headers
        if call.expires_at is not None:
            left = call.expires_at - self.loop.time()
            headers = [*headers, (b"grpc-timeout", timeout_of(left))]
        stream_id = self.http2.send_request(headers)
        self.http2.send_data(stream_id, call.body, end_stream=True)
        self._calls[stream_id] = call
        call.reset = partial(self._reset, stream_id)
        self.flush()
        self.handle_further()

    def _reset(self, stream_id: int) -> None:
        if self._calls.pop(stream_id, None) is not None and not self.is_closed:
            self.http2.reset_stream(stream_id, ErrorCode.CANCEL)
            self.flush()

    def received(self, events: Sequence[Event]) -> None:
        """Handle what the server has sent."""
        for event in events:
            if isinstance(event, DataReceived):
                self._data(event.stream_id, event.data, ended=event.end_stream)
            elif isinstance(event, ResponseReceived):
                self._begin(event)
            elif isinstance(event, TrailersReceived):
                self._end_call(event.stream_id, status_in(event.headers))
            elif isinstance(event, StreamClosed):
                self._closed(event.stream_id, event.error_code)
            elif isinstance(event, GoAwayReceived):
                self._stop_taking()

    def _begin(self, event: ResponseReceived) -> None:
        self.has_answered = True
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        found = dict(event.headers)
        status = found.get(b":status", b"")
        if status != b"200":
            code = _HTTP_CODES.get(status, grpc.StatusCode.UNKNOWN)
            self._end_call(event.stream_id, Status(code, f"HTTP status {status.decode()}"))
        elif event.end_stream:
            self._end_call(event.stream_id, status_in(event.headers))
        else:
            call.messages = Messages(MAX_MESSAGE_BYTES, found.get(b"grpc-encoding"))

    def _data(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        call = self._calls.get(stream_id)
        if call is None or call.messages is None:
            return
        try:
            messages = call.messages.feed(data)
        except WireError as error:
            self._fail(stream_id, error.status)
            return
        if len(messages) > (call.response is None):
            self._fail(stream_id, _NOT_ONE)
        elif messages:
            call.response = messages[0]
        if ended:
            self._end_call(stream_id, status_in(()))

    def _fail(self, stream_id: int, status: Status) -> None:
        """End a call for what the server sends."""
        if (call := self._calls.get(stream_id)) is not None:
            call.end(status)

    def _end_call(self, stream_id: int, status: Status) -> None:
        """End a call with the status that the server has sent."""
        if (call := self._calls.pop(stream_id, None)) is not None:
            call.end(status)

    def _closed(self, stream_id: int, error_code: int) -> None:
        """Handle that a stream is closed; its call has ended before unless something went wrong."""
        call = self._calls.pop(stream_id, None)
        if call is None:
            return
        if error_code == ErrorCode.REFUSED_STREAM and not call.was_refused:
            call.was_refused = True
            call.reset = call.messages = None
            self._again(call)
            return
        code = _RESET_CODES.get(error_code, grpc.StatusCode.INTERNAL)
        call.end(Status(code, f"the server reset the call with error {error_code}"))

    def _stop_taking(self) -> None:
        if self.takes_calls:
            self.takes_calls = False
            self._full(self)

    def lost(self, why: str) -> None:
        """Fail the calls."""
        self._connections.discard(self)
        self._stop_taking()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end(Status(grpc.StatusCode.UNAVAILABLE, why))
