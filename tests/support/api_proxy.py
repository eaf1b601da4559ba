"""A TCP proxy in front of an API server, which can be made to refuse, hang or cut connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from shashin.local.ports import HOST
from tests.support.tcp_proxy import Direction, TcpProxy


class ApiProxy(TcpProxy):
    """Forwards connections, encrypted as they are, for as long as it is told to."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self.port = 0
        self.connections = 0
        """How many were accepted."""

    def refuse(self) -> None:
        """Cut all connections and abort new ones at once."""
        self._refusing = True
        self.cut_all()

    def hang(self) -> None:
        """Keep connections open, accept new ones, and forward nothing."""
        self._flowing.clear()

    def come_back(self) -> None:
        """Forward again; connections that hung are cut, as by a load balancer that restarts."""
        self._refusing = False
        self.cut_all()
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, unless all are refused."""
        if self._refusing:
            writer.transport.abort()
            return
        self.connections += 1
        await super().serve(reader, writer)

    async def lets_through(self, piece: bytes, direction: Direction, carried: int) -> bool:
        """Wait while connections hang."""
        await self._flowing.wait()
        return True


@asynccontextmanager
async def proxied(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[ApiProxy, Path]]:
    """Run a proxy to a kubeconfig's API server; gives the kubeconfig that leads through it."""
    config = yaml.safe_load(kubeconfig.read_text())  # noqa: ASYNC240  (nothing else runs)
    (cluster,) = [entry["cluster"] for entry in config["clusters"]]
    url = urlsplit(cluster["server"])
    assert url.hostname is not None
    proxy = ApiProxy(url.hostname, url.port or 443)
    server = await asyncio.start_server(proxy.serve, HOST, 0)
    try:
        proxy.port = server.sockets[0].getsockname()[1]
        cluster["server"] = f"https://{HOST}:{proxy.port}"
        cluster["tls-server-name"] = url.hostname
        through = folder / "through-the-proxy.yaml"
        through.write_text(yaml.safe_dump(config))
        yield proxy, through
    finally:
        server.close()
        proxy.cut_all()
