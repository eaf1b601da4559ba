"""Index endpoints that never respond, and sockets that accept and never send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from shashin.rpc.server import grpc_server
from shashin.v1 import index_pb2_grpc


class HungEndpoint(index_pb2_grpc.IndexServiceServicer):
    """One that never answers."""

    def __init__(self) -> None:
        self.address = ""
        self.received = asyncio.Event()
        """Set once it has a call."""
        self.ended = asyncio.Event()
        """Set once the call is cancelled."""

    async def _never(self, request: Any, context: Any) -> Any:
        self.received.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    Search = _never
    Lookup = _never
    Describe = _never
    Newest = _never


@asynccontextmanager
async def hung_endpoints(count: int) -> AsyncIterator[list[HungEndpoint]]:
    """Serve so many of them, each on a port of its own; calls under way are cut off at the end."""
    endpoints = [HungEndpoint() for _ in range(count)]
    async with AsyncExitStack() as stack:
        for endpoint in endpoints:

            def add(server: grpc.aio.Server, handlers: HungEndpoint = endpoint) -> None:
                index_pb2_grpc.add_IndexServiceServicer_to_server(handlers, server)

            port = await stack.enter_async_context(
                grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0)
            )
            endpoint.address = f"127.0.0.1:{port}"
        yield endpoints


class SilentSocket:
    """Accepts connections and never sends anything."""

    def __init__(self) -> None:
        self.address = ""
        self.connected = asyncio.Event()
        self._hung_up = asyncio.Event()

    def hang_up(self) -> None:
        """Close each connection."""
        self._hung_up.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep a connection until it is hung up."""
        del reader
        self.connected.set()
        await self._hung_up.wait()
        writer.close()


@asynccontextmanager
async def silent_sockets(count: int) -> AsyncIterator[list[SilentSocket]]:
    """Listen on so many ports."""
    sockets = [SilentSocket() for _ in range(count)]
    async with AsyncExitStack() as stack:
        for silent in sockets:
            server = await asyncio.start_server(silent.accept, "127.0.0.1", 0)
            stack.callback(server.close)
            stack.callback(silent.hang_up)
            host, port = server.sockets[0].getsockname()
            silent.address = f"{host}:{port}"
        yield sockets
