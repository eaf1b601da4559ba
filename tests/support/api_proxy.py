"""A TCP proxy in front of an API server, which can be made to refuse, hang or cut connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from shashin.local.ports import HOST

_PIECE_BYTES = 64 * 1024


class ApiProxy:
    """Forwards connections, encrypted as they are, for as long as it is told to."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self.port = 0
        self.connections = 0
        """How many were accepted."""

    def cut(self) -> None:
        """Abort every open connection, in the middle of whatever it carries."""
        for writer in list(self._open):
            writer.transport.abort()

    def refuse(self) -> None:
        """Cut all connections and abort new ones at once."""
        self._refusing = True
        self.cut()

    def hang(self) -> None:
        """Keep connections open, accept new ones, and forward nothing."""
        self._flowing.clear()

    def come_back(self) -> None:
        """Forward again; connections that hung are cut, as by a load balancer that restarts."""
        self._refusing = False
        self.cut()
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        if self._refusing:
            writer.transport.abort()
            return
        self.connections += 1
        self._open.add(writer)
        ends = [writer]
        copies: list[asyncio.Future[None]] = []
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            ends.append(up_writer)
            copies = [
                asyncio.ensure_future(self._copy(reader, up_writer)),
                asyncio.ensure_future(self._copy(up_reader, writer)),
            ]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            for copy in copies:
                copy.cancel()
            for end in ends:
                end.transport.abort()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(_PIECE_BYTES):
                await self._flowing.wait()
                target.write(piece)
                await target.drain()


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
        proxy.cut()
