"""Opens gRPC channels: one per endpoint, with fast reconnection."""

from __future__ import annotations

import grpc

from shashin.rpc.server import MAX_MESSAGE_BYTES


def open_channel(address: str) -> grpc.aio.Channel:
    """Open a channel to one endpoint, ``HOST:PORT``; it connects on the first call."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # Reconnect to a restarted endpoint within a second instead of two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # Channels to the same address do not share a connection.
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )
