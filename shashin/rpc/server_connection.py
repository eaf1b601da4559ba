"""The server's end of a connection: its calls, from their first header to their status."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

import grpc
from ngh2 import (
    ConnectionStateError,
    DataReceived,
    ErrorCode,
    Event,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    Role,
    Setting,
    StreamClosed,
    StreamProtocolError,
    TrailersReceived,
)

from shashin.rpc.deadlines import Deadlines
from shashin.rpc.http2_protocol import HEADER_BYTES, PING_TIMEOUT_SECONDS, Http2Protocol
from shashin.rpc.server_call import FAILED, Ended, Method, ServerCall, Stream, Unary
from shashin.rpc.server_limits import ServerLimits
from shashin.rpc.wire import (
    ACCEPTED_COMPRESSIONS,
    CONTENT_TYPE,
    OK,
    Messages,
    Status,
    WireError,
    framed,
    timeout_in,
)
from shashin.runtime.logging import get_logger

log = get_logger(__name__)

Find = Callable[[str, ServerCall], "Method | Status"]
"""Returns what answers a call of ``/PACKAGE.SERVICE/METHOD``, or why nothing does."""

RECEIVE_SECONDS = 60.0
"""A request has to arrive within this time; it may have a shorter deadline."""
_REFUSE_SECONDS = 1.0
"""A call of a method that does not exist is refused at the latest after this time."""

_RESPONSE = [(b":status", b"200"), CONTENT_TYPE, (b"grpc-accept-encoding", ACCEPTED_COMPRESSIONS)]
_LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed")
_STOPPED = Status(grpc.StatusCode.UNAVAILABLE, "the server stops")
_NOT_RECEIVED = Status(
    grpc.StatusCode.DEADLINE_EXCEEDED,
    f"the request did not arrive within {RECEIVE_SECONDS:.0f} seconds",
)
_NOT_ONE = Status(grpc.StatusCode.INTERNAL, "expected one request, whole")
_CUT_OFF = Status(grpc.StatusCode.INTERNAL, "the last request is cut off")
_TOO_LARGE_HEADERS = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    f"the headers have too many bytes: expected at most {HEADER_BYTES}",
)
_TOO_MANY_REQUESTS = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "requests come faster than they are answered"
)
_UNREAD = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "the client does not read the responses")
_TOO_MUCH_HELD = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "too many large requests arrive at once: retry after a pause",
)
MAX_HELD_BYTES = 256 << 20
"""Of requests that no handler has taken yet, on all connections of a server together."""
_UNFLUSHED_SECONDS, _NEVER = 0.002, math.inf
"""For how long a response waits for others that end in the same turn of the event loop."""
_MAX_WAITING_REQUESTS = 100
_MAX_UNREAD_BYTES = 8 << 20
"""Of the responses of one stream."""
_MAX_QUEUED_BYTES = 64 << 20
"""Of the responses of a connection: while its client has not read those, it gets no further ones."""
_UNREAD_SECONDS = 60.0
"""A client that reads nothing of a response for so long is disconnected."""

_LAST_STREAM_KNOWN = b"shutdown"
"""Of the ping that is acknowledged once all calls have arrived that the client sent before it knew."""
_PING_STRIKES = 2
"""So many pings may come too early without anything else in between."""


class _Call:
    """What the connection knows of a call."""

    __slots__ = (
        "call",
        "deadline",
        "has_headers",
        "is_ended",
        "is_late_at_deadline",
        "is_soon_late",
        "messages",
        "method",
        "requests",
        "taken",
        "task",
        "timer",
    )

    def __init__(self, call: ServerCall, method: Method, messages: Messages) -> None:
        self.call = call
        self.method = method
        self.messages: Messages | None = messages
        """None once all that the client sends has come."""
        self.requests: _Requests | None = None
        """Of a stream, as far as they wait for its handler."""
        self.taken = 0
        """How many requests a stream has had."""
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        """Ends it if its request does not arrive."""
        self.deadline: int | None = None
        """Its number among those of the server; None if it has none."""
        self.is_soon_late = False
        """Whether the deadline comes before the request has to have arrived."""
        self.is_late_at_deadline = False
        """Whether it has until its deadline, and not only until the request has to have arrived."""
        self.has_headers = False
        """Whether a response has begun."""
        self.is_ended = False


class Connections:
    """The connections of a server that are open."""

    def __init__(self) -> None:
        self.open: set[ServerConnection] = set()
        self.is_draining = False
        """Whether those that are accepted from now on drain at once."""
        self.held_bytes = 0
        """Of requests that no handler has taken yet."""
        self.deadlines = Deadlines()
        """Of its calls."""


class _Requests:
    """The requests of a stream, until its handler takes them."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, request: bytes) -> None:
        """Add one."""
        self._connections.held_bytes += len(request)
        self._queue.put_nowait(request)

    def end(self) -> None:
        """Note that there are no more."""
        self._queue.put_nowait(None)

    def clear(self) -> None:
        """Throw away what waits."""
        while not self._queue.empty():
            self._connections.held_bytes -= len(self._queue.get_nowait() or b"")

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._queue.qsize()

    async def taken(self) -> AsyncIterator[bytes]:
        """Take them out, as they come."""
        while (request := await self._queue.get()) is not None:
            self._connections.held_bytes -= len(request)
            yield request


class ServerConnection(Http2Protocol):
    """One connection of a server, among its ``connections``."""

    def __init__(self, find: Find, limits: ServerLimits, connections: Connections) -> None:
        super().__init__(Role.SERVER, {Setting.MAX_CONCURRENT_STREAMS: limits.calls_per_connection})
        self._find = find
        self._limits = limits
        self._connections = connections
        self._calls: dict[int, _Call] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """Of calls whose handlers have not returned."""
        self.gone: asyncio.Future[None] = self.loop.create_future()
        """Done once the connection is closed."""
        now = self.loop.time()
        self._idle_since = now
        # Not all at the same time after a server has started.
        spread = random.uniform(0.9, 1.1)
        age = limits.connection_seconds
        self._ages_at = now + spread * age if age else None
        self._is_draining = False
        self._is_last_known = False
        """Whether no further call can come."""
        self._unended: set[int] = set()
        """Streams that have their whole response, though the client may still send: reset once it is sent."""
        self._answered_bytes = 0
        """Of all responses so far."""
        self._unflushed_since = _NEVER
        """Since when a response waits to be flushed in the next turn of the event loop."""
        self._begun: list[int] = []
        """Calls of which it is not yet known whether all of the request has come."""
        self._taken: tuple[int, float] | None = None
        """How much of them was taken when some of them waited, and since when it has been as much."""
        self._pinged_by_client_at: float | None = None
        self._strikes = 0

    @property
    def has_calls(self) -> bool:
        """Whether some call has no status yet."""
        return bool(self._calls)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._connections.open.add(self)
        super().connection_made(transport)
        if self._connections.is_draining:
            self.drain()

    def lost(self, why: str) -> None:
        """Cancel the calls: nobody is there who would get their answers."""
        del why
        for one in self._calls.values():
            self._leave(one)
        self._calls.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._connections.open.discard(self)
        if not self.gone.done():
            self.gone.set_result(None)

    def flush(self) -> None:
        """Write what is queued, and do what has waited for that."""
        is_written = self.write()
        if is_written and self._unended:
            self._reset_unended()
        if self._is_last_known:
            self._close_if_last()

    def _flush_soon(self) -> None:
        """Flush once the calls that end in this turn of the event loop have ended, but soon.

        Calls that wait for the same often end together. To write several responses at once costs less than half
        of writing each of them, which also wakes the client each time.
        """
        now = time.monotonic()
        if not self._calls or now >= self._unflushed_since + _UNFLUSHED_SECONDS:
            self._flush_now()
        elif self._unflushed_since == _NEVER:
            self._unflushed_since = now
            self.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._unflushed_since = _NEVER
        self.flush()

    def _reset_unended(self) -> None:
        """Tell clients whose response is written to send no more; a reset before would take its place."""
        for stream_id in list(self._unended):
            if not self.http2.queued_body_size(stream_id):
                self._unended.discard(stream_id)
                with suppress(StreamProtocolError, ConnectionStateError):
                    self.http2.reset_stream(stream_id, ErrorCode.NO_ERROR)
        self.write()

    def drain(self) -> None:
        """Answer the calls that come until the client knows, and close once the last one is answered."""
        if self._is_draining or self.is_closed:
            return
        self._is_draining = True
        with suppress(ConnectionStateError):  # ping closes it then
            self.http2.send_shutdown_notice()
        self.ping(_LAST_STREAM_KNOWN)
        self.loop.call_later(PING_TIMEOUT_SECONDS, self._know_last)

    def _know_last(self) -> None:
        """Take no further calls: the client knows, or has had the time."""
        if self._is_last_known or self.is_closed:
            return
        self._is_last_known = True
        with suppress(ConnectionStateError):
            self.http2.send_goaway()
        self.flush()

    def stop(self) -> None:
        """End all calls as they are, and close."""
        if self.is_closed:
            return
        for stream_id in list(self._calls):
            self._end_call(stream_id, _STOPPED)
        with suppress(ConnectionStateError):  # if it was sent before
            self.http2.send_goaway()
        self.close()

    def next_look(self, now: float) -> float:
        """Close the connection when it is idle for too long, or old."""
        due = [super().next_look(now)]
        if self._is_unread(now):
            self.abort("the client does not read the responses")
            return now
        if self._ages_at is not None and not self._is_draining:
            if now >= self._ages_at:
                self.drain()
            else:
                due.append(self._ages_at)
        if not self._calls and not self._is_draining:
            idle_until = self._idle_since + self._limits.idle_seconds
            if now >= idle_until:
                self.drain()
            else:
                due.append(idle_until)
        elif self._calls:
            due.append(now + self._limits.idle_seconds)
        return min(due)

    def _is_unread(self, now: float) -> bool:
        """Return whether the client has taken nothing of the responses that wait for too long."""
        waiting = self.waiting_bytes()
        taken = self._answered_bytes - waiting
        if not waiting:
            self._taken = None
        elif self._taken is None or self._taken[0] != taken:
            self._taken = taken, now
        else:
            return now - self._taken[1] >= _UNREAD_SECONDS
        return False

    def received(self, events: Sequence[Event]) -> None:
        """Handle what the client has sent."""
        is_last_known = False
        for event in events:
            if self.is_closed:
                return
            if isinstance(event, DataReceived):
                self._data(event.stream_id, event.data, ended=event.end_stream)
            elif isinstance(event, RequestReceived):
                self._begin(event)
            elif isinstance(event, StreamClosed):
                self._closed(event.stream_id)
            elif isinstance(event, TrailersReceived):
                self._data(event.stream_id, b"", ended=True)
            elif isinstance(event, PingReceived):
                self._pinged()
            elif isinstance(event, PingAcknowledged) and event.opaque_data == _LAST_STREAM_KNOWN:
                is_last_known = True
        self._time_receipts()
        if is_last_known:
            # After the calls that have come together with it.
            self._know_last()

    def _begin(self, event: RequestReceived) -> None:
        stream_id, headers = event.stream_id, event.headers
        found = dict(headers)
        if not found.get(b"content-type", b"").startswith(CONTENT_TYPE[1]):
            self._respond_http(stream_id, b"415", ended=event.end_stream)
            return
        if sum(map(len, chain.from_iterable(headers))) > HEADER_BYTES:
            self._refuse(stream_id, _TOO_LARGE_HEADERS, ended=event.end_stream)
            return
        if self.http2.queued_body_size() > _MAX_QUEUED_BYTES:
            self._refuse(stream_id, _UNREAD, ended=event.end_stream)
            return
        seconds = None
        if (timeout := found.get(b"grpc-timeout")) is not None:
            seconds = timeout_in(timeout)
            if seconds is None:
                message = f"grpc-timeout is {timeout[:20]!r}: expected a number and one of HMSmun"
                status = Status(grpc.StatusCode.INTERNAL, message)
                self._refuse(stream_id, status, ended=event.end_stream)
                return
        call = ServerCall(headers, self.loop, seconds)
        method = self._find(found.get(b":path", b"").decode("ascii", "replace"), call)
        if isinstance(method, Status):
            self._refuse(stream_id, method, ended=event.end_stream)
            return
        request_bytes = method.request_bytes or self._limits.request_bytes
        messages = Messages(request_bytes, found.get(b"grpc-encoding"))
        one = self._calls[stream_id] = _Call(call, method, messages)
        self._time_call(stream_id, one, seconds)
        if method.stream is not None:
            one.requests = _Requests(self._connections)
            self._start(one, self._stream(stream_id, one, method.stream, one.requests))
        if event.end_stream:
            self._data(stream_id, b"", ended=True)

    def _data(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        one = self._calls.get(stream_id)
        if one is None or one.messages is None:
            return
        if one.method.refusal is not None:
            if ended:
                one.messages = None
            self._end_call(stream_id, one.method.refusal)
            return
        held = one.messages.held_bytes
        try:
            messages = one.messages.feed(data) if data else []
        except WireError as error:
            self._connections.held_bytes -= held
            one.messages.clear()
            self._end_call(stream_id, error.status)
            return
        self._connections.held_bytes += one.messages.held_bytes - held
        if one.requests is not None:
            for message in messages:
                one.requests.put(message)
        if self._connections.held_bytes > MAX_HELD_BYTES:
            self._end_call(stream_id, _TOO_MUCH_HELD)
            return
        if one.requests is not None:
            self._streamed(stream_id, one, one.requests, len(messages), ended=ended)
        elif messages or ended:
            self._complete(stream_id, one, messages, ended=ended)

    def _complete(
        self, stream_id: int, one: _Call, messages: Sequence[bytes], *, ended: bool
    ) -> None:
        """Begin to answer a unary call if its request has come; some clients end it in a frame of its own."""
        assert one.messages is not None
        assert one.method.unary is not None
        is_waiting = one.task is None
        if len(messages) != is_waiting or not one.messages.is_whole:
            self._end_call(stream_id, _NOT_ONE)
            return
        if messages:
            if not one.is_late_at_deadline:
                self._time_answer(one)
            self._start(one, self._answer(stream_id, one, one.method.unary, messages[0]))
        if ended:
            one.messages = None

    def _time_call(self, stream_id: int, one: _Call, seconds: float | None) -> None:
        """Limit the time of a call by its deadline, and that of its request unless that is sooner."""
        if one.call.expires_at is not None:
            late = partial(self._end_call, stream_id, _LATE)
            one.deadline = self._connections.deadlines.add(one.call.expires_at, late)
        if seconds is not None and seconds <= RECEIVE_SECONDS:
            one.is_soon_late = one.is_late_at_deadline = True
        else:
            self._begun.append(stream_id)

    def _time_receipts(self) -> None:
        """Limit the time of requests that have begun; most have also come by now."""
        begun, self._begun = self._begun, []
        for stream_id in begun:
            one = self._calls.get(stream_id)
            if one is not None and one.timer is None and not one.is_late_at_deadline:
                self._time_receipt(stream_id, one)

    def _time_receipt(self, stream_id: int, one: _Call) -> None:
        """Wait for what is missing of a request, but not for ever."""
        if one.timer is not None:
            one.timer.cancel()
        if (refusal := one.method.refusal) is not None:
            one.timer = self.loop.call_later(_REFUSE_SECONDS, self._end_call, stream_id, refusal)
        else:
            one.timer = self.loop.call_later(
                RECEIVE_SECONDS, self._end_call, stream_id, _NOT_RECEIVED
            )
        one.is_late_at_deadline = False

    def _time_answer(self, one: _Call) -> None:
        """Limit the time of the request no longer, but only that of the call, by its deadline."""
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        one.is_late_at_deadline = True

    def _streamed(
        self, stream_id: int, one: _Call, requests: _Requests, count: int, *, ended: bool
    ) -> None:
        """Note that so many requests of a stream have come, or its end."""
        assert one.messages is not None
        one.taken += count
        is_whole = one.messages.is_whole
        if not one.method.takes_many and one.taken and (one.taken > 1 or not is_whole):
            self._end_call(stream_id, _NOT_ONE)
        elif requests.waiting > _MAX_WAITING_REQUESTS:
            self._end_call(stream_id, _TOO_MANY_REQUESTS)
        elif ended and not is_whole:
            self._end_call(stream_id, _CUT_OFF)
        else:
            if not one.is_soon_late:
                if is_whole:
                    self._time_answer(one)
                elif count or one.is_late_at_deadline:
                    self._time_receipt(stream_id, one)
            if ended:
                one.messages = None
                requests.end()

    def _start(self, one: _Call, handle: Coroutine[Any, Any, None]) -> None:
        task = one.task = self.loop.create_task(handle)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _end_by(self, stream_id: int, error: BaseException) -> None:
        """End a call by what its handler raises."""
        if isinstance(error, Ended):
            self._end_call(stream_id, error.status)
        elif isinstance(error, asyncio.CancelledError):
            self._end_call(stream_id, _STOPPED)
        elif isinstance(error, Exception):
            log.error("a handler failed unexpectedly", exc_info=error)
            self._end_call(stream_id, FAILED)
        else:
            raise error

    async def _answer(self, stream_id: int, one: _Call, unary: Unary, request: bytes) -> None:
        try:
            answer = await unary(request, one.call)
            if one.is_ended:
                return
            if self.http2.queued_body_size() > _MAX_QUEUED_BYTES:
                self._end_call(stream_id, _UNREAD)
            else:
                self._calls.pop(stream_id)
                self._forget(one)
                self._respond(stream_id, answer, ended=one.messages is None)
        except BaseException as error:  # noqa: BLE001 - whatever ends the handler ends the call
            self._end_by(stream_id, error)

    def _respond(self, stream_id: int, answer: bytes, *, ended: bool) -> None:
        http2 = self.http2
        http2.send_response(stream_id, _RESPONSE)
        body = framed(answer)
        http2.send_data(stream_id, body)
        self._answered_bytes += len(body)
        http2.send_trailers(stream_id, OK.trailers)
        if not ended:
            self._unended.add(stream_id)
        self._sent()
        self._flush_soon()

    async def _stream(
        self, stream_id: int, one: _Call, stream: Stream, requests: _Requests
    ) -> None:
        try:
            async for answer in stream(requests.taken(), one.call):
                if one.is_ended:
                    return
                self._send_one(stream_id, one, answer)
            self._end_call(stream_id, OK)
        except BaseException as error:  # noqa: BLE001 - whatever ends the handler ends the call
            self._end_by(stream_id, error)

    def _send_one(self, stream_id: int, one: _Call, answer: bytes) -> None:
        """Send one of the responses of a stream."""
        if not one.has_headers:
            one.has_headers = True
            self.http2.send_response(stream_id, _RESPONSE)
        body = framed(answer)
        self.http2.send_data(stream_id, body)
        self._answered_bytes += len(body)
        self._sent()
        self.flush()
        if self.http2.queued_body_size(stream_id) > _MAX_UNREAD_BYTES:
            raise Ended(_UNREAD)

    def _end_call(self, stream_id: int, status: Status) -> None:
        """End a call with a status, if it has none."""
        one = self._calls.pop(stream_id, None)
        if one is None:
            return
        ended = one.messages is None
        self._leave(one)
        try:
            trailers = status.trailers
        except ValueError:
            # A handler has given what no header may have.
            log.exception("a call has a status that cannot be sent")
            status, trailers = FAILED, FAILED.trailers
        if not one.has_headers:
            self._refuse(stream_id, status, ended=ended)
        else:
            with suppress(StreamProtocolError):
                self.http2.send_trailers(stream_id, trailers)
                if not ended:
                    self._unended.add(stream_id)
        self._sent()
        self.flush()

    def _refuse(self, stream_id: int, status: Status, *, ended: bool) -> None:
        """Send a status and nothing else, when all is flushed that is queued."""
        self._only_headers(stream_id, status.response, ended=ended)

    def _respond_http(self, stream_id: int, status: bytes, *, ended: bool) -> None:
        """Answer what is no call of gRPC."""
        self._only_headers(stream_id, [(b":status", status)], ended=ended)

    def _only_headers(
        self, stream_id: int, headers: list[tuple[bytes, bytes]], *, ended: bool
    ) -> None:
        # A client may have reset the stream by what arrived together with this.
        with suppress(StreamProtocolError):
            self.http2.send_response(stream_id, headers, end_stream=True)
            if not ended:
                self._unended.add(stream_id)

    def _closed(self, stream_id: int) -> None:
        """Cancel a call that its client has left."""
        self._unended.discard(stream_id)
        one = self._calls.pop(stream_id, None)
        if one is not None:
            self._leave(one)
            self._idle_since = self.loop.time()

    def _leave(self, one: _Call) -> None:
        self._forget(one)
        if one.task is not None and one.task is not asyncio.current_task(self.loop):
            one.task.cancel()

    def _forget(self, one: _Call) -> None:
        one.is_ended = True
        if one.messages is not None:
            self._connections.held_bytes -= one.messages.held_bytes
            one.messages.clear()
        if one.requests is not None:
            one.requests.clear()
        if (ended := one.call.ended) is not None:
            one.call.ended = None
            ended()
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        if one.deadline is not None:
            self._connections.deadlines.discard(one.deadline)
            one.deadline = None

    def _sent(self) -> None:
        """Note that something was sent: a client may ping again."""
        self._pinged_by_client_at = None
        self._strikes = 0
        if not self._calls:
            self._idle_since = self.loop.time()

    def _pinged(self) -> None:
        if self.http2.queued_body_size():
            # Some measure the way with a ping for each round trip while a response comes.
            self._pinged_by_client_at = None
            self._strikes = 0
            return
        now, before = self.loop.time(), self._pinged_by_client_at
        self._pinged_by_client_at = now
        if before is None or now - before >= self._limits.client_ping_seconds:
            return
        self._strikes += 1
        if self._strikes > _PING_STRIKES:
            self.refuse(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def _close_if_last(self) -> None:
        """Close a connection that takes no further calls, once it has none and all is written."""
        if self._calls or self.is_closed or self.is_paused:
            return
        with suppress(ConnectionStateError):
            if self.http2.queued_body_size() or self.http2.want_write:
                return
        self.close()
