"""A TCP proxy that forwards pieces as its subclass lets it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

Direction = Literal["sent", "received"]
"""``sent`` is from the client to the server."""

_PIECE_BYTES = 64 * 1024


class TcpProxy:
    """Forwards connections to a server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._open: set[asyncio.StreamWriter] = set()

    async def lets_through(self, piece: bytes, direction: Direction, carried: int) -> bool:
        """Return whether to forward a piece, the last of ``carried`` bytes, or cut the connection."""
        raise NotImplementedError

    def cut_all(self) -> None:
        """Abort every open connection, in the middle of whatever it carries."""
        for writer in list(self._open):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._open.add(writer)
        ends = [writer]
        copies: list[asyncio.Future[None]] = []
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            ends.append(up_writer)
            copies = [
                asyncio.ensure_future(self._copy(reader, up_writer, "sent")),
                asyncio.ensure_future(self._copy(up_reader, writer, "received")),
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

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: Direction
    ) -> None:
        carried = 0
        with suppress(OSError):
            while piece := await source.read(_PIECE_BYTES):
                carried += len(piece)
                if not await self.lets_through(piece, direction, carried):
                    return
                target.write(piece)
                await target.drain()
