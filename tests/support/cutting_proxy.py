"""A TCP proxy that counts requests, and cuts connections in the middle of what they carry."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shashin.local.ports import HOST
from tests.support.tcp_proxy import Direction, TcpProxy


class CuttingProxy(TcpProxy):
    """Forwards connections to a server on this machine."""

    def __init__(self, port: int) -> None:
        super().__init__(HOST, port)
        self._cuts: deque[tuple[Direction, int]] = deque()
        self.cut_connections = 0
        self.sent_bytes = 0
        """From clients to the server, over all connections."""
        self.received_bytes = 0
        """From the server to clients, over all connections, without what was cut."""
        self.requests = 0
        """HTTP requests, each of which begins in a piece of its own."""
        self.url = ""

    def cut(self, direction: Direction, *, after: int) -> None:
        """Cut the next connection that carries more than so many bytes in a direction.

        ``sent`` is from the client to the server. Cuts happen one after the other.
        """
        self._cuts.append((direction, after))

    def stop_cutting(self) -> None:
        """Forget the cuts that have not happened yet."""
        self._cuts.clear()

    async def lets_through(self, piece: bytes, direction: Direction, carried: int) -> bool:
        """Count the piece, and cut the connection if its turn has come."""
        self.sent_bytes += len(piece) if direction == "sent" else 0
        self.requests += direction == "sent" and b" HTTP/1.1\r\n" in piece
        if self._cuts and self._cuts[0][0] == direction and carried > self._cuts[0][1]:
            self._cuts.popleft()
            self.cut_connections += 1
            return False
        self.received_bytes += len(piece) if direction == "received" else 0
        return True


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
