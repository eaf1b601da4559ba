"""The resumable uploads of Google Cloud Storage, as its documentation describes them.

fake-gcs-server appends whatever it gets, and publishes what it has when it is asked for the state of
an upload, so it cannot show what happens when connections break.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import google_crc32c
from aiohttp import web

from shashin.local.ports import HOST

KEPT_MULTIPLE = 256 * 1024
"""Of a request that breaks off, the store keeps a multiple of this."""

_CHUNK = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass
class Session:
    """One upload."""

    crc32c: str
    if_generation_match: str | None
    data: bytearray = field(default_factory=bytearray)
    generation: str = ""
    """Of the object, once it is complete."""


class ResumableGcs:
    """A bucket that takes one object."""

    def __init__(self) -> None:
        self.port = 0
        self.generation = 0
        """Of the object; 0 if there is none."""
        self.content = b""
        self.sessions: list[Session] = []
        self.ranges: list[str] = []
        """The Content-Range of every request to a session."""

    async def start_session(self, request: web.Request) -> web.Response:
        declared = (await request.json())["crc32c"]
        self.sessions.append(Session(declared, request.query.get("ifGenerationMatch")))
        url = f"http://{request.host}/session/{len(self.sessions) - 1}"
        return web.json_response({}, headers={"Location": url})

    async def put(self, request: web.Request) -> web.Response:
        self.ranges.append(request.headers["Content-Range"])
        number = int(request.match_info["number"])
        if number >= len(self.sessions):
            await request.read()
            return web.Response(status=404)
        session = self.sessions[number]
        if session.generation:
            return self._resource(session)
        chunk = _CHUNK.fullmatch(request.headers["Content-Range"])
        if chunk is not None:
            start, last, size = map(int, chunk.groups())
            if start > len(session.data):
                return web.Response(status=503)
            await self._keep(session, request, start)
            if len(session.data) == size == last + 1:
                return self._complete(session)
        kept = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
        return web.Response(status=308, headers=kept)

    async def _keep(self, session: Session, request: web.Request, start: int) -> None:
        """Keep what is new in a request, and of one that breaks off only whole multiples."""
        position = start
        received = bytearray()
        whole = False
        try:
            async for piece in request.content.iter_any():
                received += piece
            whole = True
        finally:
            if not whole:
                del received[len(received) // KEPT_MULTIPLE * KEPT_MULTIPLE :]
            session.data += received[len(session.data) - position :]

    def _complete(self, session: Session) -> web.Response:
        checksum = google_crc32c.value(bytes(session.data)).to_bytes(4, "big")
        if base64.b64encode(checksum).decode() != session.crc32c:
            return web.json_response({"error": {"message": "crc32c"}}, status=400)
        if session.if_generation_match not in {None, str(self.generation)}:
            return web.json_response({"error": {"message": "generation"}}, status=412)
        self.generation += 1
        session.generation = str(self.generation)
        self.content = bytes(session.data)
        return self._resource(session)

    def _resource(self, session: Session) -> web.Response:
        return web.json_response({"generation": session.generation, "crc32c": session.crc32c})


@asynccontextmanager
async def resumable_gcs() -> AsyncIterator[ResumableGcs]:
    """Run one."""
    bucket = ResumableGcs()
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/upload/storage/v1/b/{bucket}/o", bucket.start_session)
    app.router.add_put("/session/{number}", bucket.put)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        bucket.port = runner.addresses[0][1]
        yield bucket
    finally:
        await runner.cleanup()
