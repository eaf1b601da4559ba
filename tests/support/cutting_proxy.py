"""A TCP proxy that counts requests, and cuts connections in the middle of what they carry."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from shashin.local.ports import HOST

Direction = Literal["sent", "received"]

_PIECE_BYTES = 64 * 1024


class CuttingProxy:
    """Forwards connections to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._cuts: deque[tuple[Direction, int]] = deque()
        self.cut_connections = 0
        self.sent_bytes = 0
        """From clients to the server, over all connections."""
        self.requests = 0
        """HTTP requests, each of which begins in a piece of its own."""
        self.url = ""

    def cut(self, direction: Direction, *, after: int) -> None:
        """Cut the next connection that carries more than so many bytes in a direction.

        ``sent`` is from the client to the server. Cuts happen one after the other.
        """
        self._cuts.append((direction, after))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            up_reader, up_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        both = [
            asyncio.ensure_future(self._copy(reader, up_writer, "sent")),
            asyncio.ensure_future(self._copy(up_reader, writer, "received")),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            for end in (writer, up_writer):
                end.transport.abort()

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: Direction
    ) -> None:
        copied = 0
        with suppress(OSError):
            while piece := await source.read(_PIECE_BYTES):
                copied += len(piece)
                self.sent_bytes += len(piece) if direction == "sent" else 0
                self.requests += direction == "sent" and b" HTTP/1.1\r\n" in piece
                if self._cuts and self._cuts[0][0] == direction and copied > self._cuts[0][1]:
                    self._cuts.popleft()
                    self.cut_connections += 1
                    return
                target.write(piece)
                await target.drain()


@asynccontextmanager
async def cutting_proxy(port: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy to this port of this machine."""
    proxy = CuttingProxy(port)
    server = await asyncio.start_server(proxy.serve, HOST, 0)
    try:
        proxy.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        yield proxy
    finally:
        server.close()
