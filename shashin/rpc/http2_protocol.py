"""A connection of HTTP/2 on a transport of asyncio: moves its bytes, and pings a peer that is silent."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

from ngh2 import (
    Configuration,
    Connection,
    ConnectionStateError,
    ErrorCode,
    Event,
    NGH2Error,
    Role,
    Setting,
)

PING_SECONDS, PING_TIMEOUT_SECONDS = 30.0, 10.0
"""A peer from which nothing has come for so long is pinged, and one that does not respond is dead."""

_STREAM_WINDOW, _CONNECTION_WINDOW = 1 << 20, 4 << 20
"""Bytes that a peer may send before they are acknowledged: a photo needs no more than a few round trips."""
_LINGER_SECONDS, _MAX_LINGER_SECONDS = 2.0, 60.0
"""A connection that was closed is given up when its peer has taken and sent nothing for so long, or at last."""
_FRAME_BYTES = 64 * 1024
HEADER_BYTES = 16 * 1024
"""All headers of a request or response together, as the peer is told."""
_TAKEN_HEADER_BYTES = {Role.SERVER: 4 * HEADER_BYTES, Role.CLIENT: 16 * HEADER_BYTES}
"""More than that ends the connection, and not only the call that has them."""


def _unsent(socket: int) -> int:
    """Return how many bytes the system has not sent yet, or has sent and the peer's has not taken."""
    return int.from_bytes(fcntl.ioctl(socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


class Http2Protocol(asyncio.Protocol, ABC):
    """Base of both ends of a connection.

    Whoever queues something with ``http2`` sees to it that ``flush`` is called soon.
    """

    def __init__(self, role: Role, settings: Mapping[Setting, int] | None = None) -> None:
        self.http2 = Connection(
            role, Configuration(max_inbound_header_list_size=_TAKEN_HEADER_BYTES[role])
        )
        self._settings = {
            Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            Setting.MAX_FRAME_SIZE: _FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: HEADER_BYTES,
            **(settings or {}),
        }
        self.loop = asyncio.get_running_loop()
        self.heard_at = self.loop.time()
        """When something has come from the peer."""
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self.is_paused = False
        """Whether what is queued has to wait, since the peer does not take it."""
        self._pinged_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def received(self, events: Sequence[Event]) -> None:
        """Handle what the peer has sent; all that this queues is flushed then."""

    @abstractmethod
    def lost(self, why: str) -> None:
        """Handle that the connection is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the settings."""
        self._transport = cast("asyncio.Transport", transport)
        self.http2.initiate_connection(self._settings)
        self.http2.set_local_window_size(_CONNECTION_WINDOW)
        self.flush()
        self.look_again()

    def data_received(self, data: bytes) -> None:
        """Handle the events that these bytes bring."""
        self.heard_at = self.loop.time()
        if not self.is_closed:
            self._go_on(data)

    def _go_on(self, data: bytes = b"") -> None:
        """Handle what the peer has sent, and what follows from it."""
        try:
            if data:
                self.http2.receive_data(data)
            self.handle_events()
            is_over = not self.http2.want_read and not self.http2.want_write
        except ConnectionStateError:
            is_over = True
        except NGH2Error as error:
            self.refuse(ErrorCode.PROTOCOL_ERROR, f"what was received is not HTTP/2: {error}")
            return
        if is_over and not self.is_closed:
            self.close()

    def handle_events(self) -> None:
        """Handle what has happened, and flush; a stream that is found wrong is closed when that is sent."""
        self.received(self.http2.events())
        self.flush()
        self.handle_further()

    def handle_further(self) -> None:
        """Handle what has happened since something was flushed."""
        while events := self.http2.events():
            self.received(events)
            self.flush()

    def flush(self) -> None:
        """Write what is queued, as far as the peer takes it."""
        self.write()

    def write(self) -> bool:
        """Write what is queued; returns False if nothing can be written now."""
        if self.is_paused or self.is_closed or self._transport is None:
            return False
        with suppress(ConnectionStateError):  # of a connection that has failed
            if data := self.http2.data_to_send():
                self._transport.write(data)
        return True

    def pause_writing(self) -> None:
        """Leave what is queued there: the peer reads too slowly."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """Write on."""
        self.is_paused = False
        if not self.is_closed:
            self._go_on()

    def look_again(self) -> None:
        """Look at the clock now, and whenever something may be due."""
        if self.is_closed:
            return
        self._stop_timer()
        due = self.next_look(self.loop.time())
        if not self.is_closed:
            self._timer = self.loop.call_at(due, self.look_again)

    def next_look(self, now: float) -> float:
        """Do what is due, and return when to look again."""
        if self._pinged_at is not None and self.heard_at >= self._pinged_at:
            self._pinged_at = None
        if self._pinged_at is not None:
            if now >= self._pinged_at + PING_TIMEOUT_SECONDS:
                self.abort("the peer does not respond")
            return self._pinged_at + PING_TIMEOUT_SECONDS
        if now >= self.heard_at + PING_SECONDS:
            self._pinged_at = now
            self.ping()
            return now + PING_TIMEOUT_SECONDS
        return self.heard_at + PING_SECONDS

    def ping(self, data: bytes = bytes(8)) -> None:
        """Ping the peer; a connection that has ended is closed instead."""
        try:
            self.http2.ping(data)
        except ConnectionStateError:
            self.close()
        else:
            self.flush()

    def close(self) -> None:
        """Close the connection once all that is queued is sent."""
        if not self.is_closed:
            self._hang_up("the connection was closed", _MAX_LINGER_SECONDS)

    def refuse(self, error: ErrorCode, why: str) -> None:
        """Close the connection, and tell the peer why."""
        if self.is_closed:
            return
        with suppress(ConnectionStateError):  # since it has failed already
            self.http2.send_goaway(error, debug_data=why.encode())
        self._hang_up(why, _LINGER_SECONDS)

    def abort(self, why: str) -> None:
        """End the connection without waiting for anything."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def waiting_bytes(self) -> int:
        """Return how much of what was queued the system has not taken yet."""
        if self._transport is None:
            return 0
        queued = 0 if self.is_closed else self.http2.queued_body_size()
        return queued + self._transport.get_write_buffer_size()

    def unread_bytes(self) -> int:
        """Return how much of what was queued the peer's system has not taken yet, as far as it is known."""
        size = self.waiting_bytes()
        if self._transport is not None:
            with suppress(OSError, ValueError, AttributeError):  # of a socket that is closed
                size += _unsent(self._transport.get_extra_info("socket").fileno())
        return size

    def _hang_up(self, why: str, seconds: float) -> None:
        """End the connection; the peer has so long to take what is on its way to it, and to close its side.

        To close the transport would make the system throw away what is not sent yet once the peer sends something.
        """
        self.write()
        self._end(why)
        if self._transport is None:
            return
        if self._transport.can_write_eof() and not self._transport.is_closing():
            with suppress(OSError):  # of a peer that is gone
                self._transport.write_eof()
        self._linger(self._transport, self.loop.time() + seconds, self.unread_bytes())

    def _linger(self, transport: asyncio.Transport, until: float, unread: int) -> None:
        def look() -> None:
            left, now = self.unread_bytes(), self.loop.time()
            is_alive = left != unread or self.heard_at > now - _LINGER_SECONDS
            if is_alive and now < until:
                self._linger(transport, until, left)
            elif transport.is_closing() or transport.can_write_eof():
                transport.abort()
            else:
                # TLS, which has a last message of its own.
                transport.close()
                self._linger(transport, now, left)

        self._stop_timer()
        self._timer = self.loop.call_later(_LINGER_SECONDS, look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the transport."""
        self._end(f"the connection was lost ({exc})" if exc else "the peer closed the connection")
        self._stop_timer()

    def _end(self, why: str) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._stop_timer()
        self.lost(why)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
