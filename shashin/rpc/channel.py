"""Opens gRPC channels: one per endpoint, with fast reconnection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc

from shashin.rpc.server_limits import MAX_MESSAGE_BYTES

_RETRIES = {
    "maxAttempts": 5,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    # A server that stops cancels calls that reach it at that moment, before it has begun to answer them.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}


def open_channel(
    address: str,
    *,
    retried_service: str = "",
    wait_for_ready: bool = False,
    credentials: grpc.ChannelCredentials | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """Open a channel to one endpoint, ``HOST:PORT``; it connects on the first call.

    With credentials it uses TLS.

    Calls of ``retried_service`` are sent again, up to five times within their deadline, while the
    endpoint is unavailable: for an address behind which others take over, and calls that may be
    repeated. Of several addresses that a name has (``dns:///NAME:PORT``), they use all that respond.
    With ``wait_for_ready`` they also wait for a connection until their deadline.
    """
    options: list[tuple[str, Any]] = []
    if retried_service:
        method = {
            "name": [{"service": retried_service}],
            "retryPolicy": _RETRIES,
            "waitForReady": wait_for_ready,
        }
        service = {"methodConfig": [method], "loadBalancingConfig": [{"round_robin": {}}]}
        options.append(("grpc.service_config", json.dumps(service)))
    options += [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Reconnect to a restarted endpoint within a second instead of two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Ask again for the addresses of a name as soon as one fails, not only after 30 seconds.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # Channels to the same address do not share a connection.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)
