"""A web server of photos with a certificate of its own authority, as a test tells it to behave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from aiohttp import web

from shashin.local.ports import HOST

NAME = "localhost"

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PhotoServer:
    """``https://localhost:PORT``; ``pages`` are its answers by path, ``requests`` what it was asked."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.pages: dict[str, Respond] = {}
        self.requests: list[web.Request] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._respond)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(NAME, HOST).configure_cert(context)
        site = web.TCPSite(self._runner, HOST, 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop it; requests are refused from now on."""
        await self._runner.cleanup()

    def url(self, path: str) -> str:
        """Return the address of a page."""
        return f"https://{NAME}:{self.port}/{path}"

    def trusting(self) -> ssl.SSLContext:
        """Return a client's context that trusts its certificate."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    def write_authority(self, path: Path) -> None:
        """Write the certificate of its authority, for ``SSL_CERT_FILE``."""
        self._authority.cert_pem.write_to_path(path)

    def has(self, path: str, data: bytes, **headers: str) -> None:
        """Answer a path with these bytes; with an ETag, conditional requests are answered too."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def respond(request: web.Request) -> web.StreamResponse:
            etag, modified = named.get("ETag"), named.get("Last-Modified")
            known = request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since")
            if (etag and known[0] == etag) or (modified and known[1] == modified):
                return web.Response(status=304, headers=named)
            return web.Response(body=data, headers=named)

        self.pages[path] = respond

    def answers(self, path: str, status: int, **headers: str) -> None:
        """Answer a path with a status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def respond(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers=named)

        self.pages[path] = respond

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        respond = self.pages.get(request.match_info["path"])
        return web.Response(status=404) if respond is None else await respond(request)


async def hang(_request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
