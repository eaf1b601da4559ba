"""Serves an app over HTTP on the event loop of the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.router.rest.problems import problem
from shashin.errors import UserError

# What a client sends is no reason to warn anybody here.
for _name in ("uvicorn", "python_multipart"):
    logging.getLogger(_name).setLevel(logging.ERROR)

HEADER_SECONDS = 10.0
"""For how long the headers of a request may take to arrive: slower clients are disconnected."""
MAX_CONNECTIONS = 1_000
_KEEP_ALIVE_SECONDS = 30


class _Protocol(HttpToolsProtocol):
    """Disconnects who takes too long to say what he wants."""

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def on_message_begin(self) -> None:
        self._expect_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._forget()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        del msg
        document = problem(
            HTTPStatus.BAD_REQUEST,
            "MalformedRequest",
            "the request is not HTTP/1.1, or its URL and headers have more than 64 KiB",
            headers={"Connection": "close"},
        )
        headers = b"".join(b"%b: %b\r\n" % header for header in document.raw_headers)
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\n" + headers + b"\r\n" + bytes(document.body)
        )
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


class _Server(uvicorn.Server):
    """Leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def http_server(
    app: Any,
    *,
    host: str,
    port: int,
    drain_seconds: float,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port. With a ``context``, by TLS.

    On exit, new requests are refused, and those in progress get ``drain_seconds`` to finish.

    Raises:
        UserError: when the port is in use.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
    config.load()
    config.ssl = context
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UserError(
            f"cannot listen on {host}:{port} for REST ({error.strerror}): set SHASHIN_REST_PORT to a free "
            "port"
        ) from error
    listening.setblocking(False)
    return listening
