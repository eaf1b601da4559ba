"""A client of HTTP/2 that sends what a test says, byte by byte if it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ngh2 import Configuration, Connection, ConnectionStateError, Event, Role, Setting

HEADERS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"test"),
    (b":path", b"/shashin.v1.EmbedService/Embed"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]


class RawClient:
    """One connection; ``http2`` queues what ``send`` sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http2 = Connection(Role.CLIENT, Configuration(max_send_header_block_length=1 << 20))
        self._reader = reader
        self._writer = writer
        self._events: list[Event] = []

    async def send(self) -> None:
        """Send what is queued."""
        self.write(self.http2.data_to_send())
        await self._writer.drain()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def end(self) -> None:
        """Send nothing more, and read nothing."""
        self._writer.write_eof()

    async def taken(self) -> list[Event]:
        """Return the next events; what HTTP/2 answers to them is queued."""
        self.http2.receive_data(await self._reader.read(1 << 16))
        return self.http2.events()

    async def receive(self) -> Event | None:
        """Return the next event; None once the server has closed the connection."""
        while not self._events:
            data = await self._reader.read(1 << 16)
            if not data:
                return None
            try:
                self.http2.receive_data(data)
                self._events = self.http2.events()
                await self.send()
            except ConnectionStateError:
                # The server has closed it, and nothing that comes now means anything.
                return self._events.pop(0) if self._events else None
        return self._events.pop(0)

    async def until(self, kind: type[Event]) -> Event | None:
        """Return the next event of a kind; None if the server closes the connection before."""
        while (event := await self.receive()) is not None:
            if isinstance(event, kind):
                return event
        return None

    async def until_closed(self) -> list[Event]:
        """Return all that comes until the server closes the connection."""
        found = []
        while (event := await self.receive()) is not None:
            found.append(event)
        return found

    async def hung_up(self) -> None:
        """Wait until the server closes the connection, whatever it sends."""
        await self._reader.read(-1)


@asynccontextmanager
async def raw_client(
    port: int, *, preface: bool = True, settings: Mapping[Setting, int] | None = None
) -> AsyncIterator[RawClient]:
    """Connect to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = RawClient(reader, writer)
    try:
        if preface:
            client.http2.initiate_connection(settings)
            await client.send()
        yield client
    finally:
        writer.close()
