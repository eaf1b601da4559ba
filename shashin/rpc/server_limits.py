"""What a gRPC server takes from its clients, and when it closes their connections."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Maximum size of a request or response: a batch of photos, or a thousand hits of many queries."""


@dataclass(frozen=True)
class ServerLimits:
    """The limits of a server; those of one whose clients are all Shashin's own by default."""

    request_bytes: int = MAX_MESSAGE_BYTES
    """Maximum size of a request; a larger one is RESOURCE_EXHAUSTED."""
    calls_per_connection: int = 10_000
    """Maximum calls at once on a connection; further ones wait in the client."""
    idle_seconds: float = math.inf
    """A connection without a call for so long is closed."""
    connection_seconds: float = 0.0
    """A connection is closed at about this age, once its calls have ended; 0 for never."""
    client_ping_seconds: float = 10.0
    """Clients that ping more often without anything in between are disconnected (ENHANCE_YOUR_CALM)."""
