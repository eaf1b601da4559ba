"""What a gRPC server takes from its clients, and when it closes their connections."""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Maximum size of a request or response: a batch of photos, or a thousand hits of many queries."""

_PING_SECONDS, _PING_TIMEOUT_SECONDS = 30, 10
"""A connection whose client does not acknowledge a ping is dead: its calls are cancelled."""
_CLIENT_PING_SECONDS = 10
"""Clients that ping more often without calls are disconnected (ENHANCE_YOUR_CALM)."""

Option = tuple[str, int]


@dataclass(frozen=True)
class ServerLimits:
    """The limits of a server whose clients are not Shashin's own."""

    request_bytes: int
    """Maximum size of a request; a larger one is RESOURCE_EXHAUSTED."""
    calls_per_connection: int
    """Maximum calls at once on a connection; further ones wait in the client."""
    waiting_calls: int
    """Maximum calls that wait until the server looks at them: further ones are CANCELLED, and some of those
    beyond half of it."""
    idle_seconds: float
    """A connection without a call for so long is closed."""
    connection_seconds: float
    """A connection is closed at about this age, once its calls have ended; 0 for never."""

    def options(self) -> list[Option]:
        """Return what gRPC calls them."""
        options = [
            ("grpc.max_receive_message_length", self.request_bytes),
            ("grpc.max_concurrent_streams", self.calls_per_connection),
            ("grpc.server.max_pending_requests", self.waiting_calls // 2),
            ("grpc.server.max_pending_requests_hard_limit", self.waiting_calls),
            ("grpc.max_connection_idle_ms", round(self.idle_seconds * 1000)),
            ("grpc.keepalive_time_ms", _PING_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_SECONDS * 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _CLIENT_PING_SECONDS * 1000),
        ]
        if self.connection_seconds:
            options.append(("grpc.max_connection_age_ms", round(self.connection_seconds * 1000)))
        return options
